"""The parts of a run that are chosen by name: losses, metrics, optimizers, schedules.

Each is a frozen, strict record whose `name` picks it out of the closed list below; nothing is imported by name.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dlkit.tree import WEIGHTS

__all__ = ["LossSpec", "MetricSpec", "OptimizerSpec", "RegularizerSpec", "ScheduleSpec", "Section"]


NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
FOLDER_PATTERN = r"^[^\x00-\x1f]+$"


class Section(BaseModel):
    """A part of the configuration: unknown keys, wrong types, NaN and infinity are errors, and nothing is converted."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


Width = Annotated[int, Field(ge=1, le=10**7)]
Widths = Annotated[tuple[Width, ...], Field(max_length=10_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Globs = Annotated[tuple[Name, ...], Field(min_length=1, max_length=100)]
Activation = Literal["relu", "gelu", "silu", "elu", "selu", "tanh", "sigmoid", "leaky_relu", "softplus", "mish"]


# Losses


class CrossEntropy(Section):
    name: Literal["cross_entropy"]
    label_smoothing: Fraction = 0.0


class Focal(Section):
    name: Literal["focal"]
    gamma: NotNegative = 2.0


class MulticlassHinge(Section):
    name: Literal["multiclass_hinge"]
    margin: Positive = 1.0
    variant: Literal["sum", "crammer_singer"] = "sum"


class Huber(Section):
    name: Literal["huber"]
    delta: Positive = 1.0


class PlainLoss(Section):
    """A loss without options."""

    name: Literal["binary_cross_entropy", "mse", "mae", "l2_loss", "log_cosh", "poisson_nll", "simple_diffusion"]


class NegativeElbo(Section):
    """The bound of a `vae`; `beta` weighs the divergence of its codes from the prior."""

    name: Literal["negative_elbo"]
    beta: NotNegative = 1.0


LossSpec = Annotated[
    CrossEntropy | Focal | MulticlassHinge | Huber | NegativeElbo | PlainLoss, Field(discriminator="name")
]


# Metrics


class PlainMetric(Section):
    """A metric without options."""

    name: Literal["accuracy", "binary_accuracy", "perplexity", "r2", "mse", "mae"]


class TopK(Section):
    name: Literal["top_k"]
    k: Width = 5


class CalibrationError(Section):
    name: Literal["calibration_error"]
    bins: Annotated[int, Field(ge=1, le=1000)] = 15


MetricSpec = Annotated[PlainMetric | TopK | CalibrationError, Field(discriminator="name")]


# Schedules: factors of `learning_rate`. Lengths are shares of the whole run, so that they follow `epochs`.


class Constant(Section):
    name: Literal["constant"]
    warmup: Rate = 0.0


class Cosine(Section):
    """Up in a straight line over the first `warmup` of the run, down a half cosine to `end` (a factor)."""

    name: Literal["cosine"]
    warmup: Rate = 0.0
    end: Fraction = 0.0


class OneCycle(Section):
    """Up from 1 / `div_factor` over the first `warmup`, then down to 1 / (`div_factor` * `final_div_factor`)."""

    name: Literal["one_cycle"]
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.3
    div_factor: Positive = 25.0
    final_div_factor: Positive = 1e4


class Step(Section):
    """Times `factor` at each of `at` (shares of the run, rising)."""

    name: Literal["step"]
    at: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1, max_length=100)]
    factor: Positive = 0.1


class Exponential(Section):
    """Falls smoothly to `end` (a factor) at the end of the run: factor(s) = end ** s."""

    name: Literal["exponential"]
    end: Annotated[float, Field(gt=0, le=1)] = 0.01


class Polynomial(Section):
    """factor(s) = (1 - end) (1 - s) ** power + end."""

    name: Literal["polynomial"]
    power: Positive = 1.0
    end: Fraction = 0.0


ScheduleSpec = Annotated[Constant | Cosine | OneCycle | Step | Exponential | Polynomial, Field(discriminator="name")]


# Optimizers: the fields of the recipes in `dlkit.optim`, and the schedule and clipping that go around them.
# `l2` is coupled (added to the gradient), `weight_decay` decoupled; both act on the parameters that `mask` chooses.


class _Optimizer(Section):
    learning_rate: NotNegative
    schedule: ScheduleSpec | None = None
    clip_value: Positive | None = None
    clip_norm: Positive | None = None
    mask: Globs = WEIGHTS


class Sgd(_Optimizer):
    name: Literal["sgd"]
    l2: NotNegative = 0.0
    momentum: Rate | None = None
    nesterov: bool = False


class Adagrad(_Optimizer):
    name: Literal["adagrad"]
    l2: NotNegative = 0.0
    initial_accumulator_value: NotNegative = 0.1
    eps: NotNegative = 1e-7


class Rmsprop(_Optimizer):
    name: Literal["rmsprop"]
    l2: NotNegative = 0.0
    decay: Rate = 0.9
    eps: NotNegative = 1e-8
    centered: bool = False
    momentum: Rate | None = None
    nesterov: bool = False


class Adam(_Optimizer):
    name: Literal["adam"]
    l2: NotNegative = 0.0
    b1: Rate = 0.9
    b2: Rate = 0.999
    eps: NotNegative = 1e-8


class Adamw(_Optimizer):
    name: Literal["adamw"]
    b1: Rate = 0.9
    b2: Rate = 0.999
    eps: NotNegative = 1e-8
    weight_decay: NotNegative = 1e-4


RecipeName = Literal[
    "acprop", "adabelief", "adadelta", "adafactor", "adahessian", "adamax", "adamaxw", "adan", "ademamix", "adopt",
    "amsgrad", "cma_es", "cocob", "dadapt_adamw", "damped_newton", "dog", "dowg", "fromage", "galore", "kfac",
    "lamb", "lars", "lbfgs", "lion", "madgrad", "momo", "momo_adam", "muon", "nadam", "nadamw", "natural_gradient",
    "newton", "newton_cg", "noisy_sgd", "nonlinear_cg", "novograd", "optimistic_adam", "optimistic_adam_v2",
    "optimistic_gradient_descent", "polyak_sgd", "prodigy", "psgd_kron", "radam", "random_search", "rprop",
    "shampoo", "sign_sgd", "signum", "simplified_ademamix", "sm3", "soap", "sophia", "spsa", "steepest_descent",
    "stochastic_newton", "trust_region", "yogi",
]  # fmt: skip


class Recipe(_Optimizer):
    """Any other recipe of `dlkit.optim`; `options` are its keyword arguments, checked when it is built."""

    name: RecipeName
    learning_rate: NotNegative | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    options: Annotated[dict[Name, bool | int | float | str | tuple[float, ...]], Field(max_length=30)] = {}


OptimizerSpec = Annotated[Sgd | Adagrad | Rmsprop | Adam | Adamw | Recipe, Field(discriminator="name")]


class RegularizerSpec(Section):
    """`l1` times the absolute values plus `l2` times the squares of the parameters that the globs `over` choose."""

    l1: NotNegative = 0.0
    l2: NotNegative = 0.0
    over: Globs = WEIGHTS
