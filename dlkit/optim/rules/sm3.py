"""SM3: Adagrad with one accumulator for every row and every column instead of one for every parameter."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, settle
from dlkit.optim.leaves import leafwise, zeros_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.traced import Traced, as_dtype
from dlkit.optim.transform import Chain, Transform, chain

__all__ = ["ScaleBySM3", "ScaleBySM3State", "scale_by_sm3", "sm3"]


class ScaleBySM3State(NamedTuple):
    """The accumulators, for each parameter a tuple with a vector for every axis; and the average of the directions."""

    mu: Any
    nu: Any


@dataclass(frozen=True)
class ScaleBySM3(Transform[ScaleBySM3State]):
    """Adagrad's step from accumulators of the slices, and a momentum: see `sm3`.

    Args:
      b1: the weight of the old average of directions.
      b2: the weight of the old accumulators; below 1 they are averages instead of sums.
      eps: stands inside the root.

    Differences. optax: equal; it cannot take scalars, which have one accumulator here.

    >>> tx = scale_by_sm3(b1=0.0)
    >>> tx.update({"w": jnp.array([[3.0, 0.0], [0.0, 4.0]])}, tx.init({"w": jnp.ones((2, 2))}))[0]
    {'w': Array([[1., 0.],
           [0., 1.]], dtype=float32)}

    Raises:
      ValueError: `b1` outside of [0, 1), `b2` outside of [0, 1], a negative `eps`; from `init`, a complex parameter.
    """

    b1: Scalar = 0.9
    b2: Scalar = 1.0
    eps: Scalar = 1e-8

    def __post_init__(self) -> None:
        settle("scale_by_sm3", self, decays=("b1",), nonnegative=("b2", "eps"))
        if not isinstance(self.b2, Traced) and self.b2 > 1:
            raise ValueError(f"scale_by_sm3: b2 is {self.b2}, wanted 0 <= b2 <= 1")

    def init(self, params: Any) -> ScaleBySM3State:
        if any(jnp.iscomplexobj(p) for p in jax.tree.leaves(params)):
            raise ValueError("scale_by_sm3: it does not work on complex parameters. Leave them out with `masked`")
        nu = zeros_like("scale_by_sm3", params)

        def slices(p: Array) -> tuple[Array, ...]:
            # Sums of the zeros lie where those of the parameter would: the sharding is inherited.
            return tuple(jnp.sum(p, axis=_others(p, i)) for i in range(p.ndim)) or (p,)

        return ScaleBySM3State(jax.tree.map(slices, nu), nu)

    def update(self, grads: Any, state: ScaleBySM3State, params: Any = None) -> tuple[Any, ScaleBySM3State]:
        leaves, structure = jax.tree.flatten(grads)
        kept = structure.flatten_up_to(state.mu)
        # The least accumulator of the slices that a parameter lies in.
        bounds = [functools.reduce(jnp.minimum, _spread(g, slices)) for g, slices in zip(leaves, kept, strict=True)]

        def step(g: Array, nu: Array, bound: Array) -> tuple[Array, Array, Array]:
            sums = self._weight(g) * (g * g) + self.b2 * bound
            direction = g * jnp.where(sums > 0, jax.lax.rsqrt(sums + self.eps), jnp.zeros_like(sums))
            nu = self.b1 * nu + (1 - self.b1) * direction
            return nu, nu, sums

        updates, nu, sums = leafwise("scale_by_sm3", step, grads, state.nu, jax.tree.unflatten(structure, bounds))
        mu = [_largest(s, old) for s, old in zip(jax.tree.leaves(sums), kept, strict=True)]
        return updates, ScaleBySM3State(jax.tree.unflatten(structure, mu), nu)

    def _weight(self, g: Array) -> Any:
        if isinstance(self.b2, Traced):
            b2 = as_dtype(self.b2, g.dtype)
            return jnp.where(b2 == 1, jnp.ones_like(b2), 1 - b2)
        return 1.0 if self.b2 == 1 else 1 - self.b2


def _others(p: Array, axis: int) -> tuple[int, ...]:
    return tuple(i for i in range(p.ndim) if i != axis)


def _spread(g: Array, slices: tuple[Array, ...]) -> list[Array]:
    """The accumulators, each in the shape of the gradient."""
    if jnp.ndim(g) == 0:
        return list(slices)
    return [jnp.broadcast_to(jnp.expand_dims(s, _others(g, i)), jnp.shape(g)) for i, s in enumerate(slices)]


def _largest(sums: Array, old: tuple[Array, ...]) -> tuple[Array, ...]:
    new = [jnp.max(sums, axis=_others(sums, i)) for i in range(sums.ndim)] or [sums]
    return tuple(s.astype(o.dtype) for s, o in zip(new, old, strict=True))


scale_by_sm3 = ScaleBySM3


def sm3(learning_rate: ScalarOrSchedule, momentum: Scalar = 0.9) -> Chain:
    """SM3-II: Adagrad whose memory is a vector for every axis of a parameter, not another parameter.

        s  = min(a_r, b_c) + g^2                a_r, b_c: the accumulators of the row and the column of an element
        a_r = max of s over row r               b_c = max of s over column c
        d  = g / sqrt(s + 1e-8)                 0 where s is 0
        nu = momentum nu + (1 - momentum) d
        p  = p - eta nu

    For a vector this is Adagrad with momentum; a parameter with more axes has an accumulator for every slice along
    each of them.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      momentum: the weight of the old average of directions.

    Differences. optax: equal; its rate is a number only. torch and Keras have none. The paper's momentum is this one;
    its eps is 0.

    Reference: Anil, Gupta, Koren, Singer, "Memory-efficient adaptive optimization", 2019.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([[1.0, 2.0]])}
    >>> tx = sm3(0.5, momentum=0.0)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    2.500
    1.516
    0.992

    Raises:
      ValueError: `momentum` outside of [0, 1); from `init`, a complex parameter.
    """
    return chain(scale_by_sm3(momentum), scale_by_learning_rate(learning_rate))
