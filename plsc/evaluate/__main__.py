"""``python -m plsc.evaluate``: the stage from the command line."""

import hydra
from omegaconf import DictConfig

from plsc import doorway
from plsc.conf import from_hydra
from plsc.evaluate.stage import run


@hydra.main(version_base="1.3", config_path="pkg://plsc.conf", config_name="config")
def main(tree: DictConfig) -> None:
    """Run the stage and end with its exit code."""
    with doorway.main("evaluate"):
        config = from_hydra(tree)
        with doorway.enter("evaluate", config):
            run(config)


if __name__ == "__main__":
    main()
