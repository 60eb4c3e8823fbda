"""What a run is, as data: every key there is, with its type, its bounds and its default."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dlkit.config.model_parts import ModelSpec
from dlkit.config.parts import (
    FOLDER_PATTERN,
    NAME_PATTERN,
    LossSpec,
    MetricSpec,
    Name,
    OptimizerSpec,
    RegularizerSpec,
    Section,
)

__all__ = ["Checkpoints", "Config", "DataSpec", "EarlyStopping", "Precision", "Run", "Train"]

Count = Annotated[int, Field(ge=1, le=10**9)]
Size = Annotated[int, Field(ge=0, le=10**9)] | Annotated[float, Field(ge=0, lt=1)]
Direction = Literal["min", "max"]
Float = Literal["float16", "bfloat16", "float32"]
Folder = Annotated[str, Field(min_length=1, max_length=1000, pattern=FOLDER_PATTERN)]


class Run(Section):
    """Where the run is saved: `directory`/`name`; without a name, that of the config file."""

    directory: Folder = "runs"
    name: Annotated[str, Field(max_length=100, pattern=NAME_PATTERN)] | None = None


class Digits(Section):
    """scikit-learn's 1,797 digits; `valid` and `test` are shares (below 1) or counts."""

    name: Literal["digits"]
    valid: Size = 0.1
    test: Size = 0.2
    limit: Count | None = None


class Mnist(Section):
    """MNIST with its own test set; `valid` is taken from the 60,000 training images.

    With `fallback`, where MNIST cannot be had, scikit-learn's digits enlarged to 28 x 28; the run says so.
    """

    name: Literal["mnist"]
    valid: Size = 5000
    limit: Count | None = None
    fallback: bool = False


class Cifar10(Section):
    """CIFAR-10 from archives of JPEG files under DLKIT_DATA; at most `per_class` training pictures of each class.

    With `fallback`, where it is missing, scikit-learn's digits enlarged to 32 x 32 x 3; the run says so.
    """

    name: Literal["cifar10"]
    valid: Size = 0.1
    limit: Count | None = None
    per_class: Count | None = None
    fallback: bool = False


class Cora(Section):
    """The citations of Cora under DLKIT_DATA; with `fallback`, where it is missing, `karate_club`; the run says so."""

    name: Literal["cora"]
    limit: None = None
    fallback: bool = False


class KarateClub(Section):
    """Zachary's karate club, 34 nodes in two classes."""

    name: Literal["karate_club"]
    limit: None = None


class ArraysFile(Section):
    """Arrays of your own from an `.npz` file; `stratify` keeps the classes in proportion (integer targets)."""

    name: Literal["arrays"]
    path: Folder
    x: Name = "x"
    y: Name = "y"
    valid: Size = 0.1
    test: Size = 0.1
    stratify: bool = True
    limit: Count | None = None


class Text(Section):
    """Characters of tiny-shakespeare under DLKIT_DATA, or of a file of UTF-8 at `path`, in windows of `length`.

    The last share `valid` of the text is the validation set. `stride` is from one training window to the next, by
    default `length`; `limit` counts windows. With `fallback`, where tiny-shakespeare is missing, the source of Python's
    standard library; the run says so.
    """

    name: Literal["text"]
    path: Folder | None = None
    length: Annotated[int, Field(ge=1, le=10**6)] = 64
    stride: Annotated[int, Field(ge=1, le=10**6)] | None = None
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    limit: Count | None = None
    fallback: bool = False


class Pairs(Section):
    """English and French sentences under DLKIT_DATA, or the two first columns of a file at `path` (tabs between).

    Those of at most `length` words (and signs) count; one source is in one part alone. `limit` counts pairs. With
    `fallback`, where the file of DLKIT_DATA is missing, numbers below 10,000 in English and French words; the run says
    so.
    """

    name: Literal["pairs"]
    path: Folder | None = None
    length: Annotated[int, Field(ge=1, le=10_000)] = 12
    valid: Size = 0.1
    test: Size = 0.1
    limit: Count | None = None
    fallback: bool = False


DataSpec = Annotated[
    Digits | Mnist | Cifar10 | Cora | KarateClub | ArraysFile | Text | Pairs, Field(discriminator="name")
]


class EarlyStopping(Section):
    """Stop when `monitor` has not improved by more than `min_delta` for `patience` epochs.

    `direction` says whether less (`min`) or more (`max`) is better; without it the monitor's name does.
    """

    monitor: Name = "valid/loss"
    direction: Direction | None = None
    patience: Count = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    restore_best: bool = True


class Checkpoints(Section):
    """Saved after every `every_epochs`; the last `keep_last` and the best `keep_best` by `monitor` stay.

    Those whose step `keep_every` divides stay too. Without a `monitor` it is the validation loss; `direction` as for
    early stopping.
    """

    monitor: Name | None = None
    direction: Direction | None = None
    keep_last: Count = 2
    keep_best: Annotated[int, Field(ge=0, le=10**6)] = 1
    every_epochs: Count = 1
    keep_every: Count | None = None


class Precision(Section):
    """`train.Policy`: the dtypes of parameters, of what is computed, and of the outputs."""

    param: Float = "float32"
    compute: Float = "bfloat16"
    output: Float = "float32"

    def build(self) -> Any:
        """The policy."""
        from dlkit.train import Policy

        return Policy(self.param, self.compute, self.output)


class Train(Section):
    """How long, in which pieces, and where it runs."""

    epochs: Annotated[int, Field(ge=1, le=10**6)]
    batch_size: Annotated[int, Field(ge=1, le=10**7)]
    eval_batch_size: Annotated[int, Field(ge=1, le=10**7)] | None = None
    accumulate: Annotated[int, Field(ge=1, le=10**6)] = 1
    freeze: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    policy: Precision | None = None
    log_every: Count = 20
    early_stopping: EarlyStopping | None = None
    checkpoints: Checkpoints = Checkpoints()
    matmul_precision: Literal["default", "high", "highest"] = "default"
    platform: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    tensorboard: bool = True
    plots: bool = True


class Config(Section):
    """A run. `dlkit.config.load` reads one from TOML; `docs/config.md` lists every key."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    run: Run = Run()
    data: DataSpec
    model: ModelSpec
    loss: LossSpec
    metrics: Annotated[tuple[MetricSpec, ...], Field(max_length=20)] = ()
    optimizer: OptimizerSpec
    regularizer: RegularizerSpec | None = None
    train: Train

    @field_validator("metrics", mode="before")
    @classmethod
    def _named(cls, metrics: Any) -> Any:
        """`"accuracy"` is short for `{name = "accuracy"}`."""
        return tuple({"name": m} if isinstance(m, str) else m for m in metrics) if _listed(metrics) else metrics


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple)
