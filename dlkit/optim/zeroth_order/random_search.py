"""Random search: finite differences along random directions, as an estimate of the gradient."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, safe_increment, schedule_value, settle
from dlkit.optim.rules.momentum import trace
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.zeroth_order.directions import check_floating, estimate, need_value_fn

__all__ = ["GaussianSmoothing", "GaussianSmoothingState", "gaussian_smoothing", "random_search"]


class GaussianSmoothingState(NamedTuple):
    """Updates so far (int32); the directions of update t come from the key fold_in(key(seed), t)."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class GaussianSmoothing(Transform[GaussianSmoothingState]):
    """An estimate of the gradient from values of the loss, in place of the gradients that it is given.

        central     g = mean over u of u (f(p + c u) - f(p - c u)) / (2 c)        u ~ N(0, I)
        otherwise   g = mean over u of u (f(p + c u) - f(p)) / c

    Its mean is the gradient of the loss smoothed by a Gaussian of width c. Its variance grows with the number of
    parameters: the error of one sample is about sqrt(d) times as long as the gradient.

    Args:
      smoothing: c, a number or a schedule. Small enough that the loss is smooth over it; in float32 not below 1e-4, or
        the difference is all rounding.
      samples: how many directions are averaged.
      central: two evaluations a direction; otherwise one, and one at p, for which `value=` is taken where it is given.
      seed: of the directions.

    Reference: Nesterov, Spokoiny, "Random gradient-free minimization of convex functions", 2017.

    >>> loss = lambda p: 3 * p["w"][0] - p["w"][1]
    >>> params = {"w": jnp.ones(2)}
    >>> tx = gaussian_smoothing(0.01, samples=2000)
    >>> g, _ = tx.update(params, tx.init(params), params, value_fn=loss)
    >>> bool(jnp.abs(g["w"] - jnp.array([3.0, -1.0])).max() < 0.3)
    True

    Raises:
      ValueError: a smoothing that is not above 0 or `samples` below 1; from `update`, when `value_fn` or `params` is
        missing. TypeError: a parameter is not real and floating-point.
    """

    uses_gradient: ClassVar[bool] = False

    smoothing: ScalarOrSchedule = 1e-3
    samples: int = 1
    central: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        settle("gaussian_smoothing", self, schedules=("smoothing",))
        check_width("gaussian_smoothing", "smoothing", self.smoothing)
        object.__setattr__(self, "samples", as_count("gaussian_smoothing", "samples", self.samples, 1))
        object.__setattr__(self, "seed", as_count("gaussian_smoothing", "seed", self.seed))

    def init(self, params: Any) -> GaussianSmoothingState:
        check_floating("gaussian_smoothing", params)
        return GaussianSmoothingState(jnp.zeros((), jnp.int32))

    def update(
        self, grads: Any, state: GaussianSmoothingState, params: Any = None, *, value: Any = None, value_fn: Any = None
    ) -> tuple[Any, GaussianSmoothingState]:
        need_value_fn("gaussian_smoothing", params, value_fn)
        updates = estimate(
            "gaussian_smoothing", grads, params, value_fn, value, draw=jax.random.normal,
            key=jax.random.fold_in(jax.random.key(self.seed), state.count),
            step=schedule_value("gaussian_smoothing", self.smoothing, state.count),
            samples=self.samples, central=self.central,
        )  # fmt: skip
        return updates, GaussianSmoothingState(safe_increment(state.count))


def check_width(owner: str, name: str, value: Any) -> None:
    """Raise ValueError where the distance of a finite difference is a number that is not above 0."""
    if isinstance(value, float) and not value > 0:
        raise ValueError(f"{owner}: {name} is {value}, wanted more than 0")


gaussian_smoothing = GaussianSmoothing


def random_search(
    learning_rate: ScalarOrSchedule,
    smoothing: ScalarOrSchedule = 1e-3,
    samples: int = 1,
    *,
    central: bool = True,
    momentum: Scalar | None = None,
    seed: int = 0,
) -> Chain:
    """Random gradient-free search: p = p - eta g, with g a finite difference along random directions.

        g = mean over u of u (f(p + c u) - f(p - c u)) / (2 c)        u ~ N(0, I)

    Only values of the loss are used: 2 `samples` evaluations an update (`samples` + 1 without `central`). The step that
    is stable is about 1 / (d + 4) of gradient descent's, with d parameters and one sample: so many more updates it
    takes. `chain(gaussian_smoothing(...), adam(...))` gives the estimate to any other optimizer.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      smoothing: c, a number or a schedule.
      samples: directions an update.
      central: differences on both sides; otherwise from p itself.
      momentum: of the velocity v = momentum v + g; None for none.
      seed: of the directions.

    Differences. The name is used for two things. This is the random search of Nesterov and Spokoiny (and, with several
    samples, the basic random search of Mania, Guy and Recht), which estimates a slope. The older one (Rastrigin, 1963)
    tries a point and keeps the better of two; `cma_es` is its descendant. optax, torch and Keras have neither.

    References: Nesterov, Spokoiny, "Random gradient-free minimization of convex functions", 2017. Mania, Guy, Recht,
    "Simple random search of static linear policies is competitive for reinforcement learning", 2018.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = random_search(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(30):
    ...     updates, state = tx.update(params, state, params, value_fn=loss)
    ...     params = optim.apply_updates(params, updates)
    >>> bool(loss(params) < 0.1)
    True

    Raises:
      ValueError: see `GaussianSmoothing`; a negative momentum.
    """
    links = () if momentum is None else (trace(momentum),)
    estimates = gaussian_smoothing(smoothing, samples, central, seed)
    return chain(estimates, *links, scale_by_learning_rate(learning_rate))
