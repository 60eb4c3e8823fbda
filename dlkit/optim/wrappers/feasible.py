"""Updates that keep the parameters in a set, or make them sparse: projections and proximal steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.functional import decompositions
from dlkit.optim.hyper import ScalarOrSchedule, safe_increment, schedule_value, settle
from dlkit.optim.leaves import leafwise, need_params, widest
from dlkit.optim.transform import EmptyState, Transform
from dlkit.optim.wrappers.shown import Shown, check_callable, show

__all__ = [
    "KeepParamsNonnegative",
    "Project",
    "Proximal",
    "ProximalState",
    "keep_params_nonnegative",
    "project",
    "prox_group_lasso",
    "prox_l1",
    "prox_nuclear",
    "proximal",
]


def _moved(params: Any, updates: Any) -> Any:
    """The parameters after the update, in the wider of both dtypes."""

    def add(p: Any, u: Any) -> Any:
        wide = widest(jnp.result_type(p), jnp.result_type(u))
        return jnp.asarray(p, wide) + jnp.asarray(u, wide)

    return jax.tree.map(add, params, updates)


def _toward(params: Any, target: Any) -> Any:
    """The update that leads from the parameters to the target; exactly so where the target is 0."""
    return jax.tree.map(lambda p, t: t - jnp.asarray(p, t.dtype), params, target)


@dataclass(frozen=True, repr=False, init=False)
class Project(Shown, Transform[EmptyState]):
    """u' = projection(p + u) - p: after the update the parameters lie in the set, up to a rounding. The last link.

    Args:
      projection: from a tree to the nearest tree of the set, such as those of `optim.projections`.
      **arguments: given to it.

    For some of the parameters alone put it into `masked` or `partition`: the tree is then that of these.

    >>> from dlkit import optim
    >>> tx = optim.chain(optim.sgd(1.0), project(optim.projections.projection_l2_ball, scale=2.5))
    >>> params = {"w": jnp.array([3.0, 0.0])}
    >>> updates, _ = tx.update({"w": jnp.array([0.0, -4.0])}, tx.init(params), params)
    >>> optim.apply_updates(params, updates)["w"]
    Array([1.5, 2. ], dtype=float32)

    Raises:
      TypeError: `projection` is no function. ValueError: from `update`, `params` is None.
    """

    projection: Callable[..., Any]
    arguments: tuple[tuple[str, Any], ...]

    def __init__(self, projection: Callable[..., Any], **arguments: Any) -> None:
        check_callable("project", "projection", projection)
        object.__setattr__(self, "projection", projection)
        object.__setattr__(self, "arguments", tuple(sorted(arguments.items())))

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        need_params("project", params)
        if not jax.tree.leaves(grads):
            return grads, state
        return _toward(params, self.projection(_moved(params, grads), **dict(self.arguments))), state

    def __repr__(self) -> str:
        return f"Project({', '.join([show(self.projection), *(f'{k}={v!r}' for k, v in self.arguments)])})"


project = Project


@dataclass(frozen=True)
class KeepParamsNonnegative(Transform[EmptyState]):
    """u' = -p where p + u would be negative, else u: parameters that are not negative stay so. The last link.

    >>> tx = keep_params_nonnegative()
    >>> tx.update({"w": jnp.array([-3.0, 1.0])}, tx.init(None), {"w": jnp.ones(2)})[0]
    {'w': Array([-1.,  1.], dtype=float32)}

    Raises:
      ValueError: from `update`, `params` is None.
    """

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        need_params("keep_params_nonnegative", params)
        (updates,) = leafwise(
            "keep_params_nonnegative", lambda u, p: jnp.where(p + u < 0, -p, u), grads, read=(params,)
        )
        return updates, state


keep_params_nonnegative = KeepParamsNonnegative


def prox_l1(x: Array, strength: Any) -> Array:
    """argmin_y |y - x|^2 / 2 + strength sum |y|: soft thresholding, with exact zeros.

    >>> prox_l1(jnp.array([-3.0, 0.5, 2.0]), 1.0)
    Array([-2.,  0.,  1.], dtype=float32)
    """
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - jnp.asarray(strength, x.real.dtype), 0)


def prox_group_lasso(x: Array, strength: Any, axis: int | tuple[int, ...] = -1) -> Array:
    """argmin_y |y - x|^2 / 2 + strength sum over groups of |group|: a group shrinks as a whole, or is exactly 0.

    Args:
      x: the array. strength: not negative.
      axis: the axes that a group spans: -1 for the rows of a matrix, 0 for its columns.

    Reference: Yuan, Lin, "Model selection and estimation in regression with grouped variables", 2006.

    >>> prox_group_lasso(jnp.array([[3.0, 4.0], [0.3, 0.4]]), 2.5)
    Array([[1.5, 2. ],
           [0. , 0. ]], dtype=float32)
    """
    norm = jnp.sqrt(jnp.sum(jnp.square(x), axis=axis, keepdims=True))
    strength = jnp.asarray(strength, x.dtype)
    return x * (jnp.maximum(norm - strength, 0) / jnp.where(norm == 0, 1, norm))


def prox_nuclear(x: Array, strength: Any) -> Array:
    """argmin_Y |Y - X|^2 / 2 + strength sum of singular values of Y: they are soft-thresholded, and the rank falls.

    Args:
      x: a matrix, or a stack of matrices in the last two axes; vectors and numbers are left as they are.

    Reference: Cai, Candes, Shen, "A singular value thresholding algorithm for matrix completion", 2010.

    >>> prox_nuclear(jnp.array([[3.0, 0.0], [0.0, 0.5]]), 1.0).round(2)
    Array([[2., 0.],
           [0., 0.]], dtype=float32)
    """
    if x.ndim < 2:
        return x
    wide = widest(x.dtype, jnp.dtype(jnp.float32))
    u, s, v = decompositions.svd(x.astype(wide))
    s = jnp.maximum(s - jnp.asarray(strength, s.dtype), 0)
    return ((u * s[..., None, :]) @ v).astype(x.dtype)


class ProximalState(NamedTuple):
    """Updates so far (int32)."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True, repr=False)
class Proximal(Shown, Transform[ProximalState]):
    """p + u' = prox(p + u, learning_rate(t) strength): a proximal gradient step, for penalties with exact zeros.

    After the learning rate, as the last link: ISTA is `chain(sgd(rate), proximal(prox_l1, strength, rate))`. Behind an
    optimizer that scales coordinates (Adam) it is not the proximal step of the same metric; the zeros are exact anyway.

    Args:
      prox: `prox(array, strength) -> array`, for each leaf: `prox_l1`, `prox_group_lasso`, `prox_nuclear`, or your own.
      strength: of the penalty: a number.
      learning_rate: as that of the optimizer: a number or a schedule.

    Reference: Parikh, Boyd, "Proximal algorithms", 2014.

    >>> from dlkit import optim
    >>> tx = optim.chain(optim.sgd(0.5), proximal(prox_l1, 1.0, 0.5))
    >>> params = {"w": jnp.array([0.2, 3.0])}
    >>> updates, _ = tx.update({"w": jnp.zeros(2)}, tx.init(params), params)
    >>> optim.apply_updates(params, updates)["w"]
    Array([0. , 2.5], dtype=float32)

    Raises:
      TypeError: `prox` is no function. ValueError: a negative `strength`; from `update`, `params` is None.
    """

    prox: Callable[..., Any]
    strength: Any
    learning_rate: ScalarOrSchedule

    def __post_init__(self) -> None:
        check_callable("proximal", "prox", self.prox)
        settle("proximal", self, nonnegative=("strength",), schedules=("learning_rate",))

    def init(self, params: Any) -> ProximalState:
        return ProximalState(jnp.zeros((), jnp.int32))

    def update(self, grads: Any, state: ProximalState, params: Any = None) -> tuple[Any, ProximalState]:
        need_params("proximal", params)
        threshold = self.strength * schedule_value("proximal", self.learning_rate, state.count)

        def step(u: Array, p: Array) -> Array:
            return self.prox(p + u, threshold.astype(u.real.dtype)) - p

        (updates,) = leafwise("proximal", step, grads, read=(params,))
        return updates, ProximalState(safe_increment(state.count))


proximal = Proximal
