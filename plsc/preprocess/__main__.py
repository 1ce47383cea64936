"""The doorway ``python -m plsc.preprocess experiment=... key=value ...``."""

import hydra
from omegaconf import DictConfig

from plsc import doorway
from plsc.conf import from_hydra
from plsc.preprocess.stage import run


@hydra.main(version_base="1.3", config_path="pkg://plsc.conf", config_name="config")
def main(tree: DictConfig) -> None:
    """Compose the configuration and run the stage."""
    with doorway.main("preprocess"):
        config = from_hydra(tree)
        with doorway.enter("preprocess", config):
            run(config)


if __name__ == "__main__":
    main()
