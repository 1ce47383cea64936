"""The five stages of the river, in order: the one place where their names are written."""

STAGES: tuple[str, ...] = ("preprocess", "train", "evaluate", "export", "deploy")
"""Every folder, extra, image, component and configuration group of a stage bears its name."""

STEPS: tuple[str, ...] = ("preprocess", "train", "evaluate", "export", "gate", "deploy")
"""The tasks of the pipeline: the stages, and the gate, which is a step between two of them."""
