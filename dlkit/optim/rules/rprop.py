"""Rprop: a step size for every parameter that the signs of its gradients set, whatever their sizes."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.hyper import Scalar, settle
from dlkit.optim.leaves import leafwise, zeros_like
from dlkit.optim.scaling import scale
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain

__all__ = ["ScaleByRprop", "ScaleByRpropState", "rprop", "scale_by_rprop"]


class ScaleByRpropState(NamedTuple):
    step_sizes: Any  # one for every parameter
    prev_updates: Any  # step size times sign of the last gradient; 0 where its sign had changed


@dataclass(frozen=True)
class ScaleByRprop(Transform[ScaleByRpropState]):
    """u = step_size sign(g): see `rprop`.

    >>> tx = scale_by_rprop(0.1, delayed=False)
    >>> state = tx.init({"w": jnp.ones(2)})
    >>> for g in ([3.0, -0.1], [2.0, 0.1], [1.0, 0.1]):
    ...     updates, state = tx.update({"w": jnp.array(g)}, state)
    ...     print([f"{u:.3f}" for u in updates["w"]])
    ['0.100', '-0.100']
    ['0.120', '0.000']
    ['0.144', '0.050']

    Raises:
      ValueError: `eta_minus` outside of (0, 1), `eta_plus` below 1, another negative argument, or a `min_step_size`
        above `max_step_size`.
    """

    learning_rate: Scalar
    eta_minus: Scalar = 0.5
    eta_plus: Scalar = 1.2
    min_step_size: Scalar = 1e-6
    max_step_size: Scalar = 50.0
    _: KW_ONLY
    delayed: bool = True

    def __post_init__(self) -> None:
        limits = ("learning_rate", "min_step_size", "max_step_size")
        settle("scale_by_rprop", self, decays=("eta_minus",), nonnegative=(*limits, "eta_plus"))
        if self.eta_minus == 0:
            raise ValueError("scale_by_rprop: eta_minus is 0.0, wanted 0 < eta_minus < 1")
        if isinstance(self.eta_plus, float) and self.eta_plus < 1:
            raise ValueError(f"scale_by_rprop: eta_plus is {self.eta_plus}, wanted 1 or more")
        both = (self.min_step_size, self.max_step_size)
        if all(isinstance(size, float) for size in both) and both[0] > both[1]:
            raise ValueError(f"scale_by_rprop: min_step_size is {both[0]}, above max_step_size, {both[1]}")

    def init(self, params: Any) -> ScaleByRpropState:
        if any(jnp.iscomplexobj(p) for p in jax.tree.leaves(params)):
            raise TypeError("scale_by_rprop: it works on the signs of real gradients; leave complex ones out: `masked`")
        sizes = zeros_like("scale_by_rprop", params, fill=self.learning_rate)
        return ScaleByRpropState(sizes, zeros_like("scale_by_rprop", params))

    def update(self, grads: Any, state: ScaleByRpropState, params: Any = None) -> tuple[Any, ScaleByRpropState]:
        def step(g: Array, size: Array, last: Array) -> tuple[Array, Array, Array]:
            agreement = g * last
            least, most = (as_dtype(limit, g.dtype) for limit in (self.min_step_size, self.max_step_size))
            factor = jnp.where(agreement > 0, as_dtype(self.eta_plus, g.dtype), as_dtype(self.eta_minus, g.dtype))
            size = jnp.where(agreement == 0, size, jnp.clip(size * factor, least, most))
            new = jnp.where(agreement < 0, jnp.zeros_like(g), size * jnp.sign(g))
            late = jnp.where(agreement < 0, jnp.zeros_like(g), last)
            return (late if self.delayed else new), size, new

        updates, sizes, last = leafwise("scale_by_rprop", step, grads, state.step_sizes, state.prev_updates)
        return updates, ScaleByRpropState(sizes, last)


scale_by_rprop = ScaleByRprop


def rprop(
    learning_rate: Scalar,
    eta_minus: Scalar = 0.5,
    eta_plus: Scalar = 1.2,
    min_step_size: Scalar = 1e-6,
    max_step_size: Scalar = 50.0,
    *,
    delayed: bool = True,
) -> Chain:
    """Rprop: for whole-batch gradients; only their signs count.

        where g and the last g agree:       size = min(eta_plus size, max_step_size)      p = p - size sign(g)
        where they differ in sign:          size = max(eta_minus size, min_step_size)     p stays, and g counts as 0
        where one of them is 0:             size stays                                    p = p - size sign(g)

    Args:
      learning_rate: the first step size of every parameter; a number, since later ones follow from the signs.
      eta_minus: the factor of a step size where the gradient has changed its sign.
      eta_plus: the factor of a step size where it has not.
      min_step_size, max_step_size: limits of the step sizes.
      delayed: whether every step is taken one update late (the first update is then 0, and a step that turns out too
        long is left out), as optax 0.2.8 does. False is the paper's and torch's rule.

    Differences. optax: equal. Its delay is reported as a defect (google-deepmind/optax#1725); it is the default here
    only as long as it is optax's, and `delayed=False` is the better choice. torch `Rprop`:
    `rprop(lr, **preset("torch", "rprop"))`; it also brings the first step size within the limits. Keras has none.

    Reference: Riedmiller, Braun, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm",
    1993.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = rprop(0.1, delayed=False)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.420
    3.777
    3.081

    Raises:
      ValueError: as `ScaleByRprop`.
      TypeError: from `init`, a parameter is complex.
    """
    direction = scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size, delayed=delayed)
    return chain(direction, scale(-1.0))
