"""Random estimates of the diagonal of a Hessian, as transforms: for `sophia` and `adahessian`."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.leaves import leafwise, need_params
from dlkit.optim.modern.keys import make_key, settle_key
from dlkit.optim.transform import Transform

__all__ = [
    "GaussNewtonBartlett",
    "Hutchinson",
    "HutchinsonState",
    "gauss_newton_bartlett_estimator_diag_hessian",
    "hutchinson_estimator_diag_hessian",
]


class HutchinsonState(NamedTuple):
    key: Array


@dataclass(frozen=True)
class Hutchinson(Transform[HutchinsonState]):
    """Hutchinson's estimate z * (H z) of the Hessian's diagonal, with signs z drawn anew in each call.

    Its mean is diag(H); where H is diagonal it is exact. It costs about two gradients. The "update" that it returns is
    the estimate, and what it is given as gradients is ignored:

        diagonal, state = tx.update(grads, state, params, obj_fn=lambda p: loss(p, batch))

    Args:
      random_seed: a seed, or a JAX key, typed or raw; None for the seed 0.

    Differences. optax: equal, the same draws for the same key; there a plain seed is refused.

    Reference: Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1990.

    >>> tx = hutchinson_estimator_diag_hessian(0)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> cubes = lambda p: jnp.sum(p["w"] ** 3)
    >>> tx.update(params, tx.init(params), params, obj_fn=cubes)[0]
    {'w': Array([ 6., 12.], dtype=float32)}

    Raises:
      TypeError: `random_seed` is neither; from `update`, without `obj_fn`.
      ValueError: from `update`, `params` is None.
    """

    random_seed: Any = None

    def __post_init__(self) -> None:
        seed = 0 if self.random_seed is None else self.random_seed
        object.__setattr__(self, "random_seed", settle_key("hutchinson_estimator_diag_hessian", "random_seed", seed))

    def init(self, params: Any) -> HutchinsonState:
        return HutchinsonState(make_key(self.random_seed, typed=False))

    def update(
        self, grads: Any, state: HutchinsonState, params: Any = None, *, obj_fn: Any = None, **_: Any
    ) -> tuple[Any, HutchinsonState]:
        need_params("hutchinson_estimator_diag_hessian", params)
        if obj_fn is None:
            raise TypeError(
                "hutchinson_estimator_diag_hessian: it differentiates the loss twice: call update(grads, state, "
                "params, obj_fn=lambda params: loss)"
            )
        key, draw = jax.random.split(state.key)
        leaves, structure = jax.tree.flatten(params)
        signs = [
            jax.random.rademacher(k, jnp.shape(p), jnp.result_type(p))
            for k, p in zip(jax.random.split(draw, len(leaves)), leaves, strict=True)
        ]
        z = jax.tree.unflatten(structure, signs)
        strong = jax.tree.map(lambda p: jnp.asarray(p, jnp.result_type(p)), params)
        hz = jax.jvp(jax.grad(obj_fn), (strong,), (z,))[1]
        return _as_wide_as(jax.tree.map(jnp.multiply, z, hz), grads), HutchinsonState(key)


def _as_wide_as(diagonal: Any, grads: Any) -> Any:
    (wide,) = leafwise("the diagonal of the Hessian", lambda g, d: d, grads, read=(diagonal,))
    return wide


@dataclass(frozen=True)
class GaussNewtonBartlett(Transform[HutchinsonState]):
    """The estimate B g * g of the Gauss-Newton diagonal of a classifier, with g for labels that the model draws.

        y ~ softmax(logits),  g = the gradient of the mean cross-entropy for these y,  B = the number of logits' rows

    Its mean is the diagonal of the Gauss-Newton matrix of the mean cross-entropy (Bartlett's identity), which is never
    negative. It costs one gradient. `update` is given the model as a function from parameters to logits
    [..., classes]:

        diagonal, state = tx.update(grads, state, params, logits_fn=lambda p: model(p, batch))

    Args:
      random_seed: a seed, or a JAX key, typed or raw; None for the seed 0.

    Differences. optax has none.

    Reference: Liu, Li, Hall, Liang, Ma, "Sophia: a scalable stochastic second-order optimizer for language model
    pre-training", 2023 (Algorithm 2).

    >>> tx = gauss_newton_bartlett_estimator_diag_hessian(0)
    >>> params = {"w": jnp.zeros(2)}
    >>> tx.update(params, tx.init(params), params, logits_fn=lambda p: p["w"][None])[0]
    {'w': Array([0.25, 0.25], dtype=float32)}

    Raises:
      TypeError: `random_seed` is neither; from `update`, without `logits_fn`.
      ValueError: from `update`, `params` is None.
    """

    random_seed: Any = None

    def __post_init__(self) -> None:
        seed = 0 if self.random_seed is None else self.random_seed
        owner = "gauss_newton_bartlett_estimator_diag_hessian"
        object.__setattr__(self, "random_seed", settle_key(owner, "random_seed", seed))

    def init(self, params: Any) -> HutchinsonState:
        return HutchinsonState(make_key(self.random_seed, typed=False))

    def update(
        self, grads: Any, state: HutchinsonState, params: Any = None, *, logits_fn: Any = None, **_: Any
    ) -> tuple[Any, HutchinsonState]:
        need_params("gauss_newton_bartlett_estimator_diag_hessian", params)
        if logits_fn is None:
            raise TypeError(
                "gauss_newton_bartlett_estimator_diag_hessian: it draws labels: call update(grads, state, params, "
                "logits_fn=lambda params: logits)"
            )
        key, draw = jax.random.split(state.key)
        logits, pull = jax.vjp(logits_fn, params)
        labels = jax.nn.one_hot(jax.random.categorical(draw, logits), logits.shape[-1], dtype=logits.dtype)
        rows = logits.size // logits.shape[-1]
        (sampled,) = pull((jax.nn.softmax(logits) - labels) / rows)
        return _as_wide_as(jax.tree.map(lambda g: rows * g * g, sampled), grads), HutchinsonState(key)


hutchinson_estimator_diag_hessian = Hutchinson
gauss_newton_bartlett_estimator_diag_hessian = GaussNewtonBartlett
