"""The settings that are a choice between names; ``schema`` tells where they are made."""

from enum import Enum

__all__ = [
    "ColumnOrder",
    "DeployBackend",
    "Distribution",
    "GradientMode",
    "HeadUpdate",
    "ImageCheck",
    "InputLayout",
    "LabelKind",
    "Loss",
    "Optimizer",
    "Precision",
    "Schedule",
    "StateDtype",
    "TrainingBackend",
]


class ColumnOrder(Enum):
    """Which column of a base64 record holds the image."""

    auto = "auto"
    image_label = "image_label"
    label_image = "label_image"


class InputLayout(Enum):
    """What lies at ``data_uri``."""

    auto = "auto"
    records = "records"
    """``file_list.txt`` and the base64 parts that it names."""
    image_files = "image_files"
    """``label.txt`` and the image files that it names."""
    class_folders = "class_folders"
    """One folder of image files for each class, named after it."""
    record_io = "record_io"
    """InsightFace's ``train.rec`` and ``train.idx``."""
    table = "table"
    """Parquet or Arrow files with a column of images and one of labels."""
    tar = "tar"
    """WebDataset: tar files of ``<key>.jpg`` and ``<key>.cls``."""


class LabelKind(Enum):
    """What the labels of the input are."""

    auto = "auto"
    integers = "integers"
    names = "names"


class ImageCheck(Enum):
    """How closely preprocess looks at an image."""

    header = "header"
    decode = "decode"


class Loss(Enum):
    """What the head minimises."""

    arcface = "arcface"
    cosface = "cosface"
    sphereface = "sphereface"
    combined = "combined"
    softmax = "softmax"
    normalized_softmax = "normalized_softmax"


class GradientMode(Enum):
    """What the margin passes back: its true derivative, or 1 (straight through)."""

    exact = "exact"
    ste = "ste"


class Distribution(Enum):
    """How ranks share the head: its classes cut over them, or a copy on each."""

    sharded = "sharded"
    replicated = "replicated"


class HeadUpdate(Enum):
    """When the class centers follow their gradient."""

    auto = "auto"
    fused = "fused"
    deferred = "deferred"
    plain = "plain"


class StateDtype(Enum):
    """How a matrix of the head is stored."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


class Optimizer(Enum):
    """How weights follow their gradients."""

    sgd = "sgd"
    adamw = "adamw"


class Schedule(Enum):
    """How the learning rate falls after its warm-up."""

    step = "step"
    cosine = "cosine"
    poly = "poly"


class Precision(Enum):
    """The dtype of arithmetic (weights and statistics stay fp32)."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class TrainingBackend(Enum):
    """What starts the ranks and waits for them."""

    auto = "auto"
    """``pytorchjob`` in a pod of a cluster, else ``torchrun``."""
    torchrun = "torchrun"
    """Processes of this machine."""
    pytorchjob = "pytorchjob"
    """Pods of a PyTorchJob, by Kubeflow's training operator."""


class DeployBackend(Enum):
    """Where Triton runs."""

    auto = "auto"
    """``deployment`` in a pod of a cluster, else ``server``."""
    server = "server"
    """One server, which is there already."""
    deployment = "deployment"
    """The pods of a Kubernetes Deployment, which this stage makes where it is missing."""
