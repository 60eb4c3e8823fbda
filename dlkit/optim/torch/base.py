"""What every optimizer of torch's has: `maximize`, a pair of betas, coupled or decoupled weight decay."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.gradients.decay import decay_links, l2_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, schedule_value, settle
from dlkit.optim.scaling import scale, scale_by_learning_rate
from dlkit.optim.transform import Chain, chain
from dlkit.optim.wrappers.masks import Mask

__all__: list[str] = []


def pair(owner: str, name: str, value: Any) -> tuple[Any, Any]:
    """`value` as two numbers, torch's `betas` for one."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{owner}: {name} is {value!r}, wanted a pair of numbers")
    return value[0], value[1]


def ascent(maximize: bool) -> tuple[Any, ...]:
    """torch turns the gradients round before everything else, weight decay too."""
    return (scale(-1.0),) if maximize else ()


def assemble(
    *direction: Any, lr: ScalarOrSchedule, weight_decay: Scalar, decoupled: bool, maximize: bool, mask: Mask
) -> Chain:
    """Gradients, coupled decay, the direction, decoupled decay, the rate."""
    coupled = () if decoupled else l2_links(weight_decay, mask)
    apart = decay_links(weight_decay, mask) if decoupled else ()
    return chain(*ascent(maximize), *coupled, *direction, *apart, scale_by_learning_rate(lr))


@dataclass(frozen=True)
class InverseTime:
    """learning_rate(t) / (1 + t lr_decay): the schedule of torch's Adagrad."""

    learning_rate: ScalarOrSchedule
    lr_decay: Scalar

    def __post_init__(self) -> None:
        settle("adagrad", self, schedules=("learning_rate",), nonnegative=("lr_decay",))

    def __call__(self, count: Int[Array, ""]) -> Float[Array, ""]:
        rate = schedule_value("adagrad", self.learning_rate, count)
        return rate / (1 + self.lr_decay * jnp.asarray(count, rate.dtype))


@dataclass(frozen=True)
class Times:
    """factor learning_rate(t), as a schedule: a decay at the pace of the rate, outside of the rate's own link."""

    learning_rate: ScalarOrSchedule
    factor: Scalar

    def __post_init__(self) -> None:
        settle("weight decay", self, schedules=("learning_rate",), numbers=("factor",))

    def __call__(self, count: Int[Array, ""]) -> Float[Array, ""]:
        return self.factor * schedule_value("weight decay", self.learning_rate, count)
