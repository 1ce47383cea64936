"""The doorways ``python -m plsc.preprocess experiment=... key=value`` and ``... inspect URI``."""

import sys

import hydra
from omegaconf import DictConfig

from plsc.conf import from_hydra


@hydra.main(version_base="1.3", config_path="pkg://plsc.conf", config_name="config")
def main(tree: DictConfig) -> None:
    """Compose the configuration and run the stage."""
    from plsc import doorway  # noqa: PLC0415  inspect needs none of these
    from plsc.preprocess.stage import run  # noqa: PLC0415

    with doorway.main("preprocess"):
        config = from_hydra(tree)
        with doorway.enter("preprocess", config):
            run(config)


if __name__ == "__main__":
    if sys.argv[1:2] == ["inspect"]:
        from plsc.preprocess import inspect_command

        sys.exit(inspect_command.main(sys.argv[2:]))
    main()
