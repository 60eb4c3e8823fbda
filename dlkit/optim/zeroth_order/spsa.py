"""SPSA: the slope along one random corner of the cube, two evaluations whatever the number of parameters."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, safe_increment, settle
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.schedules.powers import PowerLawDecay
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.zeroth_order.directions import check_floating, estimate, need_value_fn
from dlkit.optim.zeroth_order.random_search import check_width

__all__ = ["SimultaneousPerturbation", "SimultaneousPerturbationState", "simultaneous_perturbation", "spsa"]


class SimultaneousPerturbationState(NamedTuple):
    """Updates so far (int32); the directions of update t come from the key fold_in(key(seed), t)."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class SimultaneousPerturbation(Transform[SimultaneousPerturbationState]):
    """Spall's estimate of the gradient, in place of the gradients that it is given.

        g   = mean over delta of delta (f(p + c_t delta) - f(p - c_t delta)) / (2 c_t)
        c_t = c / (t + 1)^gamma,    delta = -1 or 1 in every coordinate, t = 0 in the first update

    Args:
      c: how far the parameters are moved: about the noise of the loss where it is noisy (another batch at every
        evaluation), a small number where it is not. In float32 not below 1e-4, or the difference is all rounding.
      gamma: how fast c_t falls; 0 for not at all.
      samples: how many directions are averaged.
      seed: of the directions.

    References: see `spsa`.

    >>> params = {"w": jnp.ones(2)}
    >>> tx = simultaneous_perturbation(0.01)
    >>> g, _ = tx.update(params, tx.init(params), params, value_fn=lambda p: 3 * p["w"][0] - p["w"][1])
    >>> [round(abs(float(x)), 2) in (2, 4) for x in g["w"]]  # 3 and -1, each plus or minus the other
    [True, True]

    Raises:
      ValueError: `c` not above 0, a negative `gamma` or `samples` below 1; from `update`, when `value_fn` or `params`
        is missing. TypeError: a parameter is not real and floating-point.
    """

    uses_gradient: ClassVar[bool] = False

    c: Scalar = 0.01
    gamma: Scalar = 0.101
    samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        owner = "simultaneous_perturbation"
        settle(owner, self, numbers=("c",), nonnegative=("gamma",))
        check_width(owner, "c", self.c)
        object.__setattr__(self, "samples", as_count(owner, "samples", self.samples, 1))
        object.__setattr__(self, "seed", as_count(owner, "seed", self.seed))

    def init(self, params: Any) -> SimultaneousPerturbationState:
        check_floating("simultaneous_perturbation", params)
        return SimultaneousPerturbationState(jnp.zeros((), jnp.int32))

    def update(
        self, grads: Any, state: SimultaneousPerturbationState, params: Any = None, *, value_fn: Any = None
    ) -> tuple[Any, SimultaneousPerturbationState]:
        owner = "simultaneous_perturbation"
        need_value_fn(owner, params, value_fn)
        updates = estimate(
            owner, grads, params, value_fn, None, draw=_corner,
            key=jax.random.fold_in(jax.random.key(self.seed), state.count),
            step=PowerLawDecay(self.c, power=self.gamma)(state.count), samples=self.samples, central=True,
        )  # fmt: skip
        return updates, SimultaneousPerturbationState(safe_increment(state.count))


def _corner(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    return jax.random.rademacher(key, shape, jnp.float32)


simultaneous_perturbation = SimultaneousPerturbation


def spsa(
    learning_rate: ScalarOrSchedule,
    c: Scalar = 0.01,
    gamma: Scalar = 0.101,
    samples: int = 1,
    *,
    seed: int = 0,
) -> Chain:
    """Simultaneous perturbation stochastic approximation: two evaluations of the loss an update, and no gradient.

        g_t = delta (f(p + c_t delta) - f(p - c_t delta)) / (2 c_t)          delta = -1 or 1 in every coordinate
        p   = p - a_t g_t,      a_t = a / (A + 1 + t)^alpha,    c_t = c / (t + 1)^gamma

    Args:
      learning_rate: a_t: a number, a schedule, or a callable from the count to a rate. Spall's gains are
        `power_law_decay(a / (A + 1)**alpha, A + 1, power=alpha)` with alpha = 0.602 and A about a tenth of the updates.
      c, gamma: see `SimultaneousPerturbation`.
      samples: directions an update; each costs two evaluations.
      seed: of the directions.

    Differences. Spall divides by delta where this multiplies: the same for -1 and 1. optax, torch and Keras do not
    have it.

    References: Spall, "Multivariate stochastic approximation using a simultaneous perturbation gradient approximation",
    1992; "Implementation of the simultaneous perturbation algorithm for stochastic optimization", 1998, for the gains.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = spsa(optim.power_law_decay(0.2, 10, power=0.602))
    >>> state = tx.init(params)
    >>> for _ in range(30):
    ...     updates, state = tx.update(params, state, params, value_fn=loss)
    ...     params = optim.apply_updates(params, updates)
    >>> bool(loss(params) < 0.1)
    True

    Raises:
      ValueError: see `SimultaneousPerturbation`.
    """
    return chain(simultaneous_perturbation(c, gamma, samples, seed), scale_by_learning_rate(learning_rate))
