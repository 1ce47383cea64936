"""``python -m plsc.train run_id=...``: train in this process; torchrun starts one per rank."""

import hydra
from omegaconf import DictConfig

from plsc import doorway
from plsc.conf import from_hydra
from plsc.train.stage import run


@hydra.main(version_base="1.3", config_path="pkg://plsc.conf", config_name="config")
def _main(tree: DictConfig) -> None:
    with doorway.main("train"):
        config = from_hydra(tree)
        with doorway.enter("train", config):
            run(config)


if __name__ == "__main__":
    _main()
