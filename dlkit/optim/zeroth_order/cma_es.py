"""CMA-ES: a Gaussian that learns the shape of the loss from the order of its samples."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from dlkit.functional import decompositions
from dlkit.optim.hyper import Scalar, as_count, safe_increment, settle
from dlkit.optim.leaves import check_like, widest
from dlkit.optim.transform import Transform
from dlkit.optim.zeroth_order.cma_constants import Constants, constants
from dlkit.optim.zeroth_order.directions import check_floating, need_value_fn, value_dtype, value_of
from dlkit.optim.zeroth_order.random_search import check_width

__all__ = ["CmaEs", "CmaEsState", "cma_es"]


class CmaEsState(NamedTuple):
    """The distribution of the next samples: N(params, sigma^2 C). float32, or wider where a parameter is."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]  # generations so far (int32)
    sigma: Float[Array, ""]  # the step size
    path_sigma: Float[Array, "n"]  # the evolution path that sets it
    path_c: Float[Array, "n"]  # and that of the covariance
    covariance: Float[Array, "n n"]  # C
    root: Float[Array, "n n"]  # C^(1/2), when it was last decomposed


@dataclass(frozen=True)
class CmaEs(Transform[CmaEsState]):
    """One generation an update: sample around the parameters, rank, move them, learn step size and covariance.

        x_i = p + sigma y_i,  y_i = C^(1/2) z_i,  z_i ~ N(0, I)                     i = 1 ... population
        p   = p + sigma y_w,  y_w = sum of the positive w_i times the y_i of the best half, best first
        s   = (1 - c_s) s + sqrt(c_s (2 - c_s) mu_eff) z_w                          z_w = C^(-1/2) y_w
        sigma = sigma exp((c_s / d_s) (|s| / E|N(0, I)| - 1))
        q   = (1 - c_c) q + h sqrt(c_c (2 - c_c) mu_eff) y_w                        h = 0 where |s| is large, else 1
        C   = (1 + c_1 (1 - h) c_c (2 - c_c) - c_1 - c_mu sum of w) C + c_1 q q^T + c_mu sum w_i y_i y_i^T

    The root is the symmetric one, which unlike eigenvectors is unique. The weights of the worse half are negative, each
    divided by |z_i|^2 / n (active CMA). All constants are the tutorial's (table 1), functions of n
    and the population alone. Only the order of the values counts: the loss may have jumps, and any increasing function
    of it gives the same search.

    The parameters are the mean: whatever else moves them, the search goes on from there. C has n^2 elements for n
    parameters and its decomposition, once every few generations, costs n^3: it is meant for n up to a few hundred.

    Args:
      initial_step: sigma at the start, about a third of the distance to the solution.
      population: evaluations an update; None means 4 + floor(3 ln n).
      seed: of the samples.

    Differences. The package `cma` takes as many evaluations on standard functions; it has options for bounds, noise and
    restarts, which this has not. optax, torch and Keras do not have it.

    Reference: Hansen, "The CMA evolution strategy: a tutorial", 2016 (arXiv:1604.00772).

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(jnp.abs(p["w"]))
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = cma_es(0.5)
    >>> state = tx.init(params)
    >>> for _ in range(40):
    ...     updates, state = tx.update(params, state, params, value_fn=loss)
    ...     params = optim.apply_updates(params, updates)
    >>> bool(loss(params) < 0.01)
    True

    Raises:
      ValueError: an `initial_step` that is not above 0 or a population below 2; from `update`, when `value_fn` or
        `params` is missing. TypeError: a parameter is not real and floating-point.
    """

    uses_gradient: ClassVar[bool] = False

    initial_step: Scalar
    population: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        settle("cma_es", self, numbers=("initial_step",))
        check_width("cma_es", "initial_step", self.initial_step)
        if self.population is not None:
            object.__setattr__(self, "population", as_count("cma_es", "population", self.population, 2))
        object.__setattr__(self, "seed", as_count("cma_es", "seed", self.seed))

    def init(self, params: Any) -> CmaEsState:
        check_floating("cma_es", params)
        n, dtype = _size(params), value_dtype(params)
        sigma = jnp.full((), 1.0, dtype) * self.initial_step
        zeros, eye = jnp.zeros(n, dtype), jnp.eye(n, dtype=dtype)
        count = jnp.zeros((), jnp.int32)
        return CmaEsState(count, jnp.asarray(sigma, dtype), zeros, zeros + 0, eye, eye + 0)

    def update(
        self, grads: Any, state: CmaEsState, params: Any = None, *, value_fn: Any = None
    ) -> tuple[Any, CmaEsState]:
        need_value_fn("cma_es", params, value_fn)
        check_like("cma_es", "the gradients do not match the parameters", params, grads)
        n, dtype = _size(params), value_dtype(params)
        if state.path_c.shape != (n,):
            raise ValueError(f"cma_es: the state is of {state.path_c.shape[0]} parameters, and there are {n}")
        if n == 0:
            return grads, state._replace(count=safe_increment(state.count))
        k = constants(n, self.population)
        wide = jax.tree.map(lambda p: jnp.asarray(p, dtype), params)
        mean, unravel = ravel_pytree(wide)

        def value_at(x: Array) -> Array:
            moved = jax.tree.map(lambda new, p: new.astype(jnp.result_type(p)), unravel(x), params)
            return value_of("cma_es", value_fn, moved, dtype)

        key = jax.random.fold_in(jax.random.key(self.seed), state.count)
        z = jax.random.normal(key, (k.population, n), jnp.float32).astype(dtype)
        y = z @ state.root
        order = jnp.argsort(jax.vmap(value_at)(mean[None] + state.sigma * y))  # NaN comes last
        y, z = y[order], z[order]
        shift, new = self._learn(k, state, y, z)
        grads_dtype = jax.tree.map(lambda g, p: widest(jnp.result_type(g), jnp.result_type(p)), grads, params)
        updates = jax.tree.map(lambda u, d: u.astype(d), unravel(state.sigma * shift), grads_dtype)
        return updates, new

    def _learn(self, k: Constants, state: CmaEsState, y: Array, z: Array) -> tuple[Array, CmaEsState]:
        n, dtype = y.shape[1], y.dtype
        count = safe_increment(state.count)
        w = jnp.asarray(k.weights, dtype)
        positive = jnp.maximum(w, 0)
        shift = positive @ y
        gain_s, gain_c = math.sqrt(k.c_s * (2 - k.c_s) * k.mu_eff), math.sqrt(k.c_c * (2 - k.c_c) * k.mu_eff)
        path_sigma = (1 - k.c_s) * state.path_sigma + gain_s * (positive @ z)
        length = jnp.sqrt(jnp.sum(jnp.square(path_sigma)))
        sigma = state.sigma * jnp.exp(jnp.minimum(1.0, (k.c_s / k.d_s) * (length / k.expected - 1)))
        begun = -jnp.expm1(2 * count.astype(dtype) * math.log1p(-k.c_s))
        h = (length / jnp.sqrt(begun) < (1.4 + 2 / (n + 1)) * k.expected).astype(dtype)
        path_c = (1 - k.c_c) * state.path_c + h * gain_c * shift
        # So scaled, negative weights keep C positive definite.
        scaled = jnp.where(w < 0, w * n / (jnp.sum(jnp.square(z), axis=1) + 1e-30), w)
        kept = 1 + k.c_1 * (1 - h) * k.c_c * (2 - k.c_c) - k.c_1 - k.c_mu * float(np.sum(k.weights))
        rank_mu = (y * scaled[:, None]).T @ y
        covariance = kept * state.covariance + k.c_1 * path_c[:, None] * path_c[None] + k.c_mu * rank_mu
        root = jax.lax.cond(count % k.every == 0, _root, lambda _: state.root, covariance)
        return shift, CmaEsState(count, sigma, path_sigma, path_c, covariance, root)


def _root(covariance: Array) -> Array:
    values, basis = decompositions.eigh((covariance + covariance.T) / 2)
    # Roundings can make the least eigenvalue negative; beside the largest it is then nothing.
    values = jnp.maximum(values, jnp.finfo(values.dtype).eps * jnp.max(values))
    return (basis * jnp.sqrt(values)[None]) @ basis.T


def _size(params: Any) -> int:
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(params))


cma_es = CmaEs
