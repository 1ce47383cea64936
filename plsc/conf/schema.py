"""Every setting of plsc, in river order: the types that Hydra checks each key and value against.

The root is ``PipelineConfig``. Values live in ``config.yaml`` and the YAML of each group; an
experiment (``experiment/<name>.yaml``) holds only what differs. Fields whose default is an
``${...}`` interpolation are filled from elsewhere in the same tree.
"""

from dataclasses import dataclass, field

from omegaconf import MISSING

from plsc.conf.choices import (
    ColumnOrder,
    DeployBackend,
    Distribution,
    GradientMode,
    HeadUpdate,
    ImageCheck,
    InputLayout,
    LabelKind,
    Loss,
    Optimizer,
    Precision,
    Schedule,
    StateDtype,
    TrainingBackend,
)
from plsc.conf.pods import PodsConfig

__all__ = [
    "AugmentConfig",
    "ColumnOrder",
    "DeployBackend",
    "DeployConfig",
    "Distribution",
    "EvaluateConfig",
    "ExportConfig",
    "GradientMode",
    "HeadConfig",
    "HeadUpdate",
    "ImageCheck",
    "InputLayout",
    "LabelKind",
    "LoaderConfig",
    "Loss",
    "LossScaleConfig",
    "ModelConfig",
    "Optimizer",
    "OptimizerConfig",
    "PipelineConfig",
    "PodsConfig",
    "Precision",
    "PreprocessConfig",
    "Schedule",
    "ScheduleConfig",
    "StateDtype",
    "TrainConfig",
    "TrainingBackend",
]


@dataclass
class PreprocessConfig:
    """Records in, shards out."""

    num_classes: int = 0
    """Classes of the task, C: a label outside 0..C-1 is a bad row. 0: the largest label found, plus
    one; or as many as there are names."""
    layout: InputLayout = InputLayout.auto
    """What lies at ``data_uri``; ``auto`` looks."""
    column_order: ColumnOrder = ColumnOrder.auto
    """Which column of base64 records holds the image; ``auto`` looks at each row."""
    image_column: str = "image"
    """Column of a table that holds the encoded images."""
    label_column: str = "label"
    """Column of a table that holds the labels."""
    labels: LabelKind = LabelKind.auto
    """``integers``: class ids as they are; ``names``: any text, numbered in sorted order, with the
    class map beside the shards; ``auto``: names for class folders and columns of text."""
    check: ImageCheck = ImageCheck.header
    """``header``: format, dimensions, and that a JPEG is not cut off; ``decode``: every pixel,
    about twice the work."""
    deduplicate: bool = False
    """Whether to keep only one of equal images of one class. (They are counted in any case.)"""
    min_images_per_class: int = 0
    """Classes with fewer images are left out, and the others are numbered anew. 0: none are."""
    samples_per_shard: int = 4096
    """Largest number of samples in one shard; shards differ by at most one sample."""
    workers: int = 0
    """Processes that map and reduce in one pod or on one machine; the result does not depend on it.
    0: one per processor that this process may use."""
    memory_mib: int = 512
    """MiB of images that each worker holds at once, whatever the size of the input; the process
    itself needs some 100 MiB besides."""
    max_bad_fraction: float = 0.01
    """The stage fails when more than this fraction of the rows is bad (each is quarantined with its
    reason)."""
    pods: PodsConfig = field(default_factory=PodsConfig)
    """The pods of the Indexed Jobs that map and reduce on a cluster."""


@dataclass
class ModelConfig:
    """The backbone: images to embeddings."""

    name: str = MISSING
    """A name of the registry (``plsc.models``), or ``package.module:Class`` of your own."""
    embedding_size: int = 512
    """Dimensions of the embedding, D."""
    dropout: float = 0.0
    """Probability of dropping a value in front of the last fully connected layer."""


@dataclass
class HeadConfig:
    """The distributed classifier on top of the embeddings."""

    loss: Loss = Loss.arcface
    """``arcface``: cos(theta + margin); ``cosface``: cos(theta) - margin; ``sphereface``:
    cos(margin * theta); ``combined``: cos(m1 theta + m2) - m3; ``normalized_softmax``: cos(theta);
    ``softmax``: plain, with a bias."""
    margin: float = 0.5
    """ArcFace: radians added to the target's angle; CosFace: subtracted from its cosine;
    SphereFace: factor on the angle, >= 1. Unused by the others."""
    margins: list[float] = field(default_factory=lambda: [1.0, 0.5, 0.0])
    """m1 (factor, >= 1), m2 (radians) and m3 (a cosine) of ``combined``."""
    gradient: GradientMode = GradientMode.exact
    """``exact``: the margin's true derivative; ``ste``: 1 instead, which is what InsightFace's code
    computes."""
    scale: float = 64.0
    """Factor on the cosines before the softmax. Unused by softmax."""
    distribution: Distribution = Distribution.sharded
    """``sharded``: each rank owns a block of classes; ``replicated``: each rank has all of them and
    gradients are averaged, for few classes."""
    sample_rate: float = 1.0
    """Fraction of the classes that take part in a step (Partial FC); those of the batch always do.
    Only their rows are read and written."""
    update: HeadUpdate = HeadUpdate.auto
    """``fused``: inside the backward pass, chunk by chunk; ``deferred``: after it, in a second
    sweep, as clipping, micro-batches and fp16 need; ``plain``: the gradient is left to a torch
    optimizer; ``auto``: ``fused`` where that is possible, else ``deferred`` (``plain`` for a
    replicated head)."""
    precision: Precision = Precision.fp32
    """Arithmetic of the head's matrix products: fp32 or bf16. Targets and statistics are fp32."""
    weight_dtype: StateDtype = StateDtype.fp32
    """How class centers are stored: fp32, or bf16 with stochastic rounding."""
    momentum_dtype: StateDtype = StateDtype.fp32
    """How the optimizer's first moment is stored: fp32, bf16, or int8 with one scale per 128 values
    (AdamW's second moment is then bf16)."""
    chunk_size: int = 2048
    """Classes computed at once: temporary memory grows with it, results do not depend on it."""
    logits_cache_mib: int = 0
    """MiB of logits that each rank may keep from the forward to the backward pass instead of
    computing them again."""


@dataclass
class OptimizerConfig:
    """The optimizer of backbone and head."""

    name: Optimizer = Optimizer.sgd
    """``sgd`` (momentum, coupled weight decay) or ``adamw``."""
    lr: float = 0.1
    """Peak learning rate at ``lr_batch_size`` samples a step."""
    lr_batch_size: int = 1024
    """The global batch that ``lr`` is meant for; the rate scales linearly with the real one. 0:
    never scaled."""
    momentum: float = 0.9
    """SGD's momentum; AdamW's beta1."""
    weight_decay: float = 5e-4
    """Weight decay of all weights with two or more dimensions, the class centers included."""


@dataclass
class ScheduleConfig:
    """The learning rate over the steps."""

    name: Schedule = Schedule.step
    """``step``: times ``factor`` at each boundary; ``cosine`` and ``poly``: down to zero at the
    last step."""
    warmup_epochs: float = 0.0
    """Epochs in which the rate rises linearly from near zero."""
    boundaries: list[int] = field(default_factory=lambda: [100000, 160000, 220000])
    """Steps at which ``step`` multiplies the rate."""
    factor: float = 0.1
    """What ``step`` multiplies it with."""
    power: float = 2.0
    """Exponent of ``poly``."""


@dataclass
class LossScaleConfig:
    """Loss scaling of fp16 training; the seed's knobs of mixed precision."""

    init: float = 1.0
    """First factor on the loss (PLSC's init_loss_scaling)."""
    is_dynamic: bool = True
    """Whether the factor follows what the gradients bear (use_dynamic_loss_scaling)."""
    growth_interval: int = 2000
    """Finite steps in a row after which it grows (incr_every_n_steps)."""
    growth_factor: float = 2.0
    """What it grows by (incr_ratio)."""
    backoff_interval: int = 2
    """Non-finite steps in a row after which it shrinks (decr_every_n_nan_or_inf)."""
    backoff_factor: float = 0.5
    """What it shrinks by (decr_ratio)."""


@dataclass
class LoaderConfig:
    """How shards become batches. The batches do not depend on it, but for ``window_shards``."""

    workers: int = 1
    """Processes per rank that decode and augment. 0: a thread of the rank itself."""
    window_shards: int = 32
    """Shards from which samples are drawn at any time; two such windows lie on this machine at
    once. A data set of no more shards is shuffled as a whole in every epoch."""
    cache_path: str = ""
    """Folder of this machine for the shards in use, shared by its ranks. Empty: ``plsc-cache`` in
    the temporary folder."""
    cache_gib: float = 0.0
    """GiB that the shards in ``cache_path`` may take. 0: no limit but the disk."""


@dataclass
class AugmentConfig:
    """Random changes of the training images, in this order."""

    flip: bool = True
    """Mirror every second image at random (faces: yes; characters: no)."""
    shift: int = 0
    """Move images by up to this many pixels each way, edges repeated."""
    crop: float = 1.0
    """Smallest part of the image's area to cut out and enlarge to the whole; its sides differ by up
    to a third. 1: nothing is cut."""
    color: float = 0.0
    """Change brightness, contrast and saturation by factors of up to 1 ± this. 0: not at all."""
    blur: float = 0.0
    """Fraction of the images to blur."""
    blur_radius: float = 1.0
    """Largest standard deviation of the blur, in pixels."""
    grey: float = 0.0
    """Fraction of the images whose color is taken away."""


@dataclass
class TrainConfig:
    """Shards in, checkpoints out."""

    dataset_uri: str = "${store_uri}/runs/${run_id}/preprocess/index.json"
    """Index of the shards to train on (default: what this run's preprocess wrote)."""
    resume_run: str = ""
    """Run whose newest checkpoint to go on from. Empty: this run's own, if it has one."""
    resume_step: int = 0
    """Step of the checkpoint to go on from. 0: the newest."""
    finetune_from: str = ""
    """Index of a checkpoint whose backbone a new run starts from. Empty: random weights."""
    finetune_head: bool = False
    """Whether to take over the class centers of ``finetune_from`` too, row by row: class ids that
    both have keep theirs, new ones start at random."""
    ranks: int = 2
    """Processes that share the classes, in all; torchrun starts them."""
    backend: TrainingBackend = TrainingBackend.auto
    """What starts the ranks: ``torchrun`` on this machine, or a ``pytorchjob`` on a cluster."""
    pods: PodsConfig = field(default_factory=lambda: PodsConfig(count=1, max_restarts=5))
    """The pods of the PyTorchJob, with ``ranks / pods.count`` ranks in each. A pod that fails or is
    drained costs every other pod a restart too."""
    lease_s: float = 300.0
    """On a cluster: how long ranks train on when the step that started them gives no sign."""
    threads_per_rank: int = 1
    """CPU threads of each rank. 0: the machine's cores divided by the ranks."""
    epochs: int = 120
    """Passes over the data set."""
    max_steps: int = 0
    """Stop after this many steps, whatever ``epochs`` says. 0: no limit."""
    global_batch_size: int = 1024
    """Samples of one step over all ranks, Bg: a multiple of the number of ranks."""
    micro_batches: int = 1
    """Parts in which each rank computes its share of a step, one after the other: saves memory."""
    clip_norm: float = 0.0
    """Largest norm of the gradient of backbone and head together; longer ones are scaled down. 0:
    no limit."""
    precision: Precision = Precision.bf16
    """Arithmetic of the backbone; ``fp16`` comes with loss scaling."""
    loss_scale: LossScaleConfig = field(default_factory=LossScaleConfig)
    compile: bool = False
    """Compile the backbone with torch.compile."""
    gradient_checkpointing: bool = False
    """Compute the backbone's activations again in the backward pass instead of keeping them."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    margin_warmup_epochs: float = 0.0
    """Epochs in which the margin rises linearly from zero to ``head.margin``."""
    checkpoint_every_steps: int = 2000
    """Steps between checkpoints; the last step writes one as well. 0: only the last."""
    keep_checkpoints: int = 5
    """Newest checkpoints to keep."""
    keep_best: bool = True
    """Whether to write a checkpoint when the verified accuracy is the best so far, and to keep it
    beside the newest."""
    verify_every_epochs: int = 1
    """Epochs between verifications on ``verify_benchmarks``. 0: never."""
    verify_benchmarks: list[str] = field(default_factory=lambda: ["lfw"])
    """Benchmarks to measure during training (all of them are measured by evaluate)."""
    log_every_steps: int = 10
    """Steps between lines of progress."""


@dataclass
class EvaluateConfig:
    """Checkpoint in, report out; and the gate's thresholds."""

    checkpoint_uri: str = "${store_uri}/runs/${run_id}/train/index.json"
    """Index of the checkpoint to verify (default: this run's)."""
    report_uri: str = "${store_uri}/runs/${run_id}/evaluate/index.json"
    """Index of the report that the gate reads (default: this run's)."""
    benchmarks: list[str] = field(default_factory=lambda: ["lfw", "cfp_fp", "agedb_30"])
    """Verification sets ``<data_uri>/<name>.bin``."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """Smallest accuracy (0..1) per benchmark with which the gate lets a model through."""
    flip: bool = True
    """Add the mirrored image's embedding before normalising, as the face protocols do."""
    folds: int = 10
    """Folds of the protocol: thresholds are chosen on all but one and measured on that one."""
    far_targets: list[float] = field(default_factory=lambda: [1e-1, 1e-2, 1e-3])
    """False accept rates at which the true accept rate is reported."""
    batch_size: int = 256
    """Images embedded at once."""
    pods: PodsConfig = field(default_factory=PodsConfig)
    """The pods of the Indexed Job that embeds the images on a cluster, for large benchmarks."""


@dataclass
class ExportConfig:
    """Checkpoint in, ONNX graph out."""

    checkpoint_uri: str = "${store_uri}/runs/${run_id}/train/index.json"
    """Index of the checkpoint to export (default: this run's)."""
    opset: int = 20
    """ONNX operator set."""
    parity_images: int = 32
    """Images on which the graph must give the model's embeddings."""
    parity_tolerance: float = 1e-4
    """Largest absolute difference allowed between the normalised embeddings."""


@dataclass
class DeployConfig:
    """ONNX graph in, live endpoint out."""

    onnx_uri: str = "${store_uri}/runs/${run_id}/export/index.json"
    """Index of the graph to serve (default: this run's)."""
    repository_uri: str = "${store_uri}/models"
    """Triton's model repository."""
    model_name: str = "${name}"
    """The name that clients ask for."""
    backend: DeployBackend = DeployBackend.auto
    """Where Triton runs: one ``server`` that is there, or a ``deployment`` on a cluster."""
    server: str = "${oc.env:PLSC_TRITON_URL,127.0.0.1:8001}"
    """Triton's gRPC address for clients, host:port; on a cluster its Service's."""
    image: str = "${oc.env:PLSC_TRITON_IMAGE,''}"
    """Triton's image, where this stage makes the Deployment."""
    timeout_s: float = 120.0
    """Longest wait for the server, and for it to load the model."""
    canary_tolerance: float = 1e-4
    """Largest absolute difference allowed between embeddings over the wire and those of the
    graph."""
    keep_versions: int = 3
    """Newest versions to keep in the repository, the one that serves included."""


@dataclass
class PipelineConfig:
    """The whole river."""

    name: str = MISSING
    """The experiment's name; the served model bears it."""
    run_id: str = MISSING
    """One run of the river: what its stages write lies under ``<store_uri>/runs/<run_id>``."""
    seed: int = 0
    """Seed of everything random: shuffle, weights, order, augmentation."""
    store_uri: str = "${oc.env:PLSC_STORE_URI,s3://plsc}"
    """Where everything that a stage writes goes."""
    data_uri: str = MISSING
    """Folder of the input: ``file_list.txt`` and its parts (or ``label.txt`` and ``images/``), and
    ``<benchmark>.bin``."""
    image_size: int = 112
    """Height and width of every image, in pixels."""
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    deploy: DeployConfig = field(default_factory=DeployConfig)
