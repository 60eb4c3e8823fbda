"""Distance over gradients: SGD whose step follows from how far it has come (DoG, layer-wise DoG, DoWG)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_float, settle
from dlkit.optim.leaves import abs_sq, leafwise, need_params, real_dtype, widest, zeros_like
from dlkit.optim.modern.whole import copied, sum_of, wide_dtype
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.traced import Traced, as_dtype
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = [
    "DoGState",
    "DoWGState",
    "ScaleByDistanceOverGradients",
    "ScaleByDistanceOverGradientsState",
    "ScaleByDoG",
    "ScaleByDoWG",
    "dog",
    "dowg",
    "scale_by_distance_over_gradients",
    "scale_by_dog",
    "scale_by_dowg",
]

INIT_STEPS = ("distance", "learning_rate", "heuristic")


def _sq_norm(of: Any, dtype: Any) -> Float[Array, ""]:
    return sum_of(jax.tree.map(lambda x: abs_sq(jnp.asarray(x, widest(dtype, jnp.result_type(x)))), of), dtype)


def _sq_distance(owner: str, params: Any, start: Any, dtype: Any) -> Float[Array, ""]:
    (way,) = leafwise(owner, lambda p, p0: p - p0, params, read=(start,))
    return _sq_norm(way, dtype)


class DoGState(NamedTuple):
    is_init_step: Bool[Array, ""]
    init_params: Any
    max_dist: Float[Array, ""]  # r: the largest distance so far
    sum_sq_norm_grads: Float[Array, ""]  # G


@dataclass(frozen=True)
class ScaleByDoG(Transform[DoGState]):
    """u = r / sqrt(G + eps) g: see `dog`.

    >>> tx = scale_by_dog(("distance", 0.5))
    >>> params = {"w": jnp.zeros(2)}
    >>> tx.update({"w": jnp.array([3.0, 4.0])}, tx.init(params), params)[0]
    {'w': Array([0.3, 0.4], dtype=float32)}

    Raises:
      ValueError: an unknown tag, or a negative number.
    """

    init_step: tuple[str, Scalar]
    eps: Scalar = 1e-8

    def __post_init__(self) -> None:
        settle("scale_by_dog", self, nonnegative=("eps",))
        tag, value = self.init_step
        if tag not in INIT_STEPS:
            raise ValueError(f"scale_by_dog: init_step begins with {tag!r}, wanted one of {', '.join(INIT_STEPS)}")
        value = as_float("scale_by_dog", "init_step[1]", value)
        if not isinstance(value, Traced) and not value > 0:
            raise ValueError(f"scale_by_dog: init_step is {self.init_step}, wanted a number above 0")
        object.__setattr__(self, "init_step", (tag, value))

    def init(self, params: Any) -> DoGState:
        start = copied("scale_by_dog", params)
        dtype = wide_dtype(params)
        tag, value = self.init_step
        first = jnp.zeros((), dtype) if tag == "learning_rate" else as_dtype(value, dtype)
        if tag == "heuristic":
            first = first * (1 + jnp.sqrt(_sq_norm(params, dtype)))
        return DoGState(jnp.ones((), bool), start, first, jnp.zeros((), dtype))

    def update(self, grads: Any, state: DoGState, params: Any = None) -> tuple[Any, DoGState]:
        need_params("scale_by_dog", params)
        dtype = state.max_dist.dtype
        distance = jnp.sqrt(_sq_distance("scale_by_dog", params, state.init_params, dtype))
        total = state.sum_sq_norm_grads + _sq_norm(grads, dtype)
        root = jnp.sqrt(total + as_dtype(self.eps, dtype))
        largest = jnp.maximum(state.max_dist, distance)
        rate = largest / root
        if self.init_step[0] == "learning_rate":
            rate = jnp.where(state.is_init_step, as_dtype(self.init_step[1], dtype), rate)
        (updates,) = leafwise("scale_by_dog", lambda g: rate.astype(real_dtype(g.dtype)) * g, grads)
        return updates, DoGState(jnp.zeros((), bool), state.init_params, largest, total)


class DoWGState(NamedTuple):
    init_params: Any
    weighted_sq_norm_grads: Float[Array, ""]  # G
    estim_sq_dist: Float[Array, ""]  # r^2


@dataclass(frozen=True)
class ScaleByDoWG(Transform[DoWGState]):
    """u = r^2 / sqrt(G + eps) g: see `dowg`.

    >>> tx = scale_by_dowg(0.25)
    >>> params = {"w": jnp.zeros(2)}
    >>> tx.update({"w": jnp.array([3.0, 4.0])}, tx.init(params), params)[0]["w"].round(3)
    Array([0.3, 0.4], dtype=float32)

    Raises:
      ValueError: a negative argument.
    """

    init_estim_sq_dist: Scalar | None = None
    eps: Scalar = 1e-4

    def __post_init__(self) -> None:
        given = () if self.init_estim_sq_dist is None else ("init_estim_sq_dist",)
        settle("scale_by_dowg", self, nonnegative=("eps", *given))

    def init(self, params: Any) -> DoWGState:
        start, dtype = copied("scale_by_dowg", params), wide_dtype(params)
        first = self.eps if self.init_estim_sq_dist is None else self.init_estim_sq_dist
        return DoWGState(start, jnp.zeros((), dtype), as_dtype(first, dtype))

    def update(self, grads: Any, state: DoWGState, params: Any = None) -> tuple[Any, DoWGState]:
        need_params("scale_by_dowg", params)
        dtype = state.estim_sq_dist.dtype
        estimate = jnp.maximum(state.estim_sq_dist, _sq_distance("scale_by_dowg", params, state.init_params, dtype))
        total = state.weighted_sq_norm_grads + estimate * _sq_norm(grads, dtype)
        rate = estimate / (jnp.sqrt(total) + as_dtype(self.eps, dtype))
        (updates,) = leafwise("scale_by_dowg", lambda g: rate.astype(real_dtype(g.dtype)) * g, grads)
        return updates, DoWGState(state.init_params, total, estimate)


class ScaleByDistanceOverGradientsState(NamedTuple):
    max_dist: Any  # r, a number for every parameter
    grad_sum_of_squares: Any  # G, likewise
    init_params: Any


@dataclass(frozen=True)
class ScaleByDistanceOverGradients(Transform[ScaleByDistanceOverGradientsState]):
    """Layer-wise DoG: u = global_scale r / sqrt(G + eps) g, with an r and a G for every parameter array.

    Args:
      reps_rel: the first r is reps_rel (1 + |p0|).
      eps: stands inside the root.
      param_dtype: the dtype in which the first parameters are kept.
      global_scale: a factor, usually 1 or -1.

    Differences. optax: equal, with state of the same names; its sums have one axis of length 1.

    Reference: Ivgi, Hinder, Carmon, "DoG is SGD's best friend", 2023.

    >>> tx = scale_by_distance_over_gradients(0.5)
    >>> params = {"w": jnp.zeros(2)}
    >>> tx.update({"w": jnp.array([3.0, 4.0])}, tx.init(params), params)[0]
    {'w': Array([0.3, 0.4], dtype=float32)}

    Raises:
      ValueError: a negative argument; from `update`, `params` is None.
    """

    reps_rel: Scalar = 1e-6
    eps: Scalar = 1e-8
    param_dtype: Any = jnp.float32
    global_scale: Scalar = 1.0

    def __post_init__(self) -> None:
        settle(
            "scale_by_distance_over_gradients",
            self,
            nonnegative=("reps_rel", "eps"),
            numbers=("global_scale",),
            dtypes=("param_dtype",),
        )

    def init(self, params: Any) -> ScaleByDistanceOverGradientsState:
        owner = "scale_by_distance_over_gradients"
        zeros_like(owner, params)

        def first(p: Array) -> Array:
            dtype = wide_dtype(p)
            return as_dtype(self.reps_rel, dtype) * (1 + jnp.sqrt(_sq_norm(p, dtype)))

        start = copied(owner, params, self.param_dtype)
        sums = jax.tree.map(lambda p: jnp.zeros((), wide_dtype(p)), params)
        return ScaleByDistanceOverGradientsState(jax.tree.map(first, params), sums, start)

    def update(
        self, grads: Any, state: ScaleByDistanceOverGradientsState, params: Any = None
    ) -> tuple[Any, ScaleByDistanceOverGradientsState]:
        owner = "scale_by_distance_over_gradients"
        need_params(owner, params)
        (way,) = leafwise(owner, lambda p, p0: p - p0, params, read=(state.init_params,))
        largest = jax.tree.map(
            lambda r, w: jnp.maximum(r, jnp.sqrt(_sq_norm(w, r.dtype)).astype(r.dtype)), state.max_dist, way
        )
        sums = jax.tree.map(lambda s, g: s + _sq_norm(g, s.dtype), state.grad_sum_of_squares, grads)

        def rate(r: Array, s: Array) -> Array:
            return self.global_scale * r / jnp.sqrt(s + as_dtype(self.eps, s.dtype))

        rates = jax.tree.map(rate, largest, sums)
        updates = jax.tree.map(lambda k, g: k.astype(jnp.result_type(g)) * jnp.asarray(g), rates, grads)
        return updates, ScaleByDistanceOverGradientsState(largest, sums, state.init_params)


scale_by_dog = ScaleByDoG
scale_by_dowg = ScaleByDoWG
scale_by_distance_over_gradients = ScaleByDistanceOverGradients


def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: tuple[str, Scalar] = ("heuristic", 1e-6),
    eps: Scalar = 1e-8,
    weight_decay: Scalar | None = None,
    mask: Mask = None,
) -> Chain:
    """DoG: SGD with the largest distance from the start, over the root of the sum of squared gradients.

        r = max(r, |p - p0|)          G = G + |g|^2          p = p - eta r / sqrt(G + eps) g

    The norms are over all parameters. The authors recommend an average of the parameters for evaluation.

    Args:
      learning_rate: eta, a factor: leave it at 1.
      init_step: the first r: ("distance", r), ("learning_rate", what the first step's r / sqrt(G + eps) shall be), or
        ("heuristic", a) for r = a (1 + |p0|), with a = 1e-6, or 1e-4 where the model has batch norms.
      eps: stands inside the root.
      weight_decay: coupled: g + weight_decay p stands for g. None for none.
      mask: which parameters decay; see `add_decayed_weights`.

    Differences. optax: equal. With "heuristic", `init` must see the actual parameters.

    Reference: Ivgi, Hinder, Carmon, "DoG is SGD's best friend: a parameter-free dynamic step size schedule", 2023.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = dog(init_step=("learning_rate", 0.1))
    >>> state = tx.init(params)
    >>> for _ in range(9):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.00

    Raises:
      ValueError: an unknown tag, a negative argument; from `update`, `params` is None.
    """
    links = () if weight_decay is None else (add_decayed_weights(weight_decay, mask),)
    return chain(*links, scale_by_dog(init_step, eps), scale_by_learning_rate(learning_rate))


def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    init_estim_sq_dist: Scalar | None = None,
    eps: Scalar = 1e-4,
    weight_decay: Scalar | None = None,
    mask: Mask = None,
) -> Chain:
    """DoWG: as `dog`, with gradients weighted by the squared distance, so that later ones count more.

        r2 = max(r2, |p - p0|^2)      G = G + r2 |g|^2       p = p - eta r2 / sqrt(G + eps) g

    Args:
      learning_rate: eta, a factor: leave it at 1.
      init_estim_sq_dist: the first r2; None for eps.
      eps: stands inside the root.
      weight_decay: coupled: g + weight_decay p stands for g. None for none.
      mask: which parameters decay; see `add_decayed_weights`.

    Differences. optax: equal.

    Reference: Khaled, Mishchenko, Jin, "DoWG unleashed: an efficient universal parameter-free gradient descent
    method", 2023.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = dowg()
    >>> state = tx.init(params)
    >>> for _ in range(30):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.00

    Raises:
      ValueError: a negative argument; from `update`, `params` is None.
    """
    links = () if weight_decay is None else (add_decayed_weights(weight_decay, mask),)
    return chain(*links, scale_by_dowg(init_estim_sq_dist, eps), scale_by_learning_rate(learning_rate))
