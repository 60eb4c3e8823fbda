"""Differential privacy: gradients of single examples, clipped, summed, and hidden in noise."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, settle
from dlkit.optim.leaves import widest
from dlkit.optim.modern.keys import make_key, settle_key
from dlkit.optim.modern.whole import wide_dtype
from dlkit.optim.rules.momentum import trace
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain

__all__ = [
    "DifferentiallyPrivateAggregate",
    "DifferentiallyPrivateAggregateState",
    "differentially_private_aggregate",
    "dpsgd",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
]


def _sq_norms(leaf: Array, dtype: Any) -> Array:
    return jnp.sum(jnp.square(jnp.asarray(leaf, dtype)).reshape(leaf.shape[0], -1), axis=1)


def _batch(owner: str, grads: Any) -> int:
    leaves = jax.tree.leaves(grads)
    sizes = {jnp.shape(leaf)[:1] for leaf in leaves}
    if not leaves:
        return 1
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError(
            f"{owner}: it reads a gradient per example, stacked along axis 0 of every leaf; got leaves of shapes "
            f"{[jnp.shape(leaf) for leaf in leaves]}"
        )
    return sizes.pop()[0]


def _clipped_sum(leaf: Array, norms: Array, limit: Any) -> Array:
    """The sum over axis 0 of each row times min(1, limit / norm)."""
    long = norms > limit
    factors = jnp.where(long, limit / jnp.where(long, norms, jnp.ones_like(norms)), jnp.ones_like(norms))
    wide = widest(norms.dtype, jnp.result_type(leaf))
    rows = jnp.asarray(leaf, wide) * factors.astype(wide).reshape(-1, *[1] * (leaf.ndim - 1))
    return jnp.sum(rows, axis=0)


def per_example_global_norm_clip(grads: Any, l2_norm_clip: Scalar) -> tuple[Any, Int[Array, ""]]:
    """Shortens each example's gradient, over all leaves, to a length of at most `l2_norm_clip`, and sums over examples.

    Args:
      grads: a tree (optax: a list) with an axis for the examples in front of every leaf.
      l2_norm_clip: the longest an example's gradient may be.

    Returns:
      The sums, and how many examples were clipped (int32).

    Differences. optax: equal; sums and norms are in float32 at least.

    Reference: Abadi et al., "Deep learning with differential privacy", 2016.

    >>> grads = [jnp.array([[0.0, 0, 0], [0, 3, 4], [4, 0, 3], [3, 4, 0]])]
    >>> per_example_global_norm_clip(grads, 1.25)
    ([Array([1.75, 1.75, 1.75], dtype=float32)], Array(3, dtype=int32))

    Raises:
      ValueError: the leaves have no common leading axis.
    """
    _batch("per_example_global_norm_clip", grads)
    dtype = wide_dtype(grads)
    norms = jnp.sqrt(sum(_sq_norms(jnp.asarray(leaf), dtype) for leaf in jax.tree.leaves(grads)))
    limit = as_dtype(l2_norm_clip, dtype)
    sums = jax.tree.map(lambda leaf: _clipped_sum(jnp.asarray(leaf), norms, limit), grads)
    return sums, jnp.sum(norms > limit, dtype=jnp.int32)


def per_example_layer_norm_clip(grads: Any, global_l2_norm_clip: Scalar, uniform: bool = True) -> tuple[Any, Any]:
    """As `per_example_global_norm_clip`, with a limit for each leaf alone, so that together they keep the global one.

    Args:
      grads: a tree (optax: a list) with an axis for the examples in front of every leaf.
      global_l2_norm_clip: C.
      uniform: whether each of K leaves has the limit C / sqrt(K); otherwise C sqrt(its share of all parameters).

    Returns:
      The sums, and for each leaf how many examples were clipped (int32).

    Differences. optax: equal; sums and norms are in float32 at least.

    Reference: McMahan, Ramage, Talwar, Zhang, "Learning differentially private recurrent language models", 2017.

    >>> grads = {"w": jnp.array([[3.0], [1.0]]), "b": jnp.array([[0.5], [4.0]])}
    >>> sums, clipped = per_example_layer_norm_clip(grads, 2.0)
    >>> clipped, sums["b"].round(3)
    ({'b': Array(1, dtype=int32), 'w': Array(1, dtype=int32)}, Array([1.914], dtype=float32))

    Raises:
      ValueError: the leaves have no common leading axis.
    """
    size = _batch("per_example_layer_norm_clip", grads)
    dtype = wide_dtype(grads)
    leaves, structure = jax.tree.flatten(grads)
    total = sum(leaf.size // size for leaf in leaves) if size else 1
    sums, counts = [], []
    for leaf in map(jnp.asarray, leaves):
        share = 1 / len(leaves) if uniform else leaf.size // max(size, 1) / total
        limit = as_dtype(global_l2_norm_clip, dtype) * math.sqrt(share)
        norms = jnp.sqrt(_sq_norms(leaf, dtype))
        sums.append(_clipped_sum(leaf, norms, limit))
        counts.append(jnp.sum(norms > limit, dtype=jnp.int32))
    return jax.tree.unflatten(structure, sums), jax.tree.unflatten(structure, counts)


class DifferentiallyPrivateAggregateState(NamedTuple):
    rng_key: Array


@dataclass(frozen=True)
class DifferentiallyPrivateAggregate(Transform[DifferentiallyPrivateAggregateState]):
    """The noisy mean of clipped gradients: the first link of a private optimizer.

        u = (sum over the B examples of g min(1, l2_norm_clip / |g|) + noise) / B
        noise ~ N(0, (l2_norm_clip noise_multiplier)^2), element by element

    `update` is given a gradient per example, with the examples along a leading axis of every leaf:
    `jax.vmap(jax.grad(loss), in_axes=(None, 0))(params, batch)`. The updates have the shapes of the parameters. Do not
    accumulate or average gradients before it: the clipping is per example.

    Args:
      l2_norm_clip: the longest an example's gradient may be.
      noise_multiplier: the noise's standard deviation, over `l2_norm_clip`.
      key: a JAX key, typed or raw, or a seed.
      seed: the old name of `key`.

    Differences. optax: equal, the same noise for the same key; a missing key is an error here. The definition holds the
    key's numbers, so that it is a value; the key that changes is in the state.

    Reference: Abadi et al., "Deep learning with differential privacy", 2016.

    >>> tx = differentially_private_aggregate(l2_norm_clip=1.0, noise_multiplier=0.0, key=0)
    >>> params = {"w": jnp.zeros(2)}
    >>> tx.update({"w": jnp.array([[3.0, 4.0], [0.0, 0.5]])}, tx.init(params), params)[0]["w"].round(3)
    Array([0.3       , 0.65000004], dtype=float32)

    Raises:
      ValueError: a negative number; from `update`, the gradients have no common leading axis.
      TypeError: not one of `key` and `seed`, or what is no key.
    """

    l2_norm_clip: Scalar
    noise_multiplier: Scalar
    key: Any = None
    _: KW_ONLY
    seed: Any = None

    per_example = True  # its gradients have an axis more than the parameters

    def __post_init__(self) -> None:
        owner = "differentially_private_aggregate"
        settle(owner, self, nonnegative=("l2_norm_clip", "noise_multiplier"))
        if (self.key is None) == (self.seed is None):
            raise TypeError(f"{owner}: pass key (or, by its old name, seed), and only one of them")
        given = self.seed if self.key is None else self.key
        object.__setattr__(self, "key", settle_key(owner, "key", given))
        object.__setattr__(self, "seed", None)

    def init(self, params: Any) -> DifferentiallyPrivateAggregateState:
        return DifferentiallyPrivateAggregateState(make_key(self.key))

    def update(
        self, grads: Any, state: DifferentiallyPrivateAggregateState, params: Any = None
    ) -> tuple[Any, DifferentiallyPrivateAggregateState]:
        size = _batch("differentially_private_aggregate", grads)
        sums, _ = per_example_global_norm_clip(grads, self.l2_norm_clip)
        leaves, structure = jax.tree.flatten(sums)
        key, *draws = jax.random.split(state.rng_key, len(leaves) + 1)

        def noisy(total: Array, draw: Array) -> Array:
            deviation = as_dtype(self.l2_norm_clip, total.dtype) * as_dtype(self.noise_multiplier, total.dtype)
            return (total + deviation * jax.random.normal(draw, total.shape, total.dtype)) / size

        updates = [noisy(total, draw) for total, draw in zip(leaves, draws, strict=True)]
        return jax.tree.unflatten(structure, updates), DifferentiallyPrivateAggregateState(key)


differentially_private_aggregate = DifferentiallyPrivateAggregate


def dpsgd(
    learning_rate: ScalarOrSchedule,
    l2_norm_clip: Scalar,
    noise_multiplier: Scalar,
    seed: Any,
    momentum: Scalar | None = None,
    nesterov: bool = False,
) -> Chain:
    """Differentially private SGD: `differentially_private_aggregate`, then SGD.

    `update` is given a gradient per example: see there. It gives no accounting: how much privacy a run has spent
    follows from the noise multiplier, the sampling of batches and the number of steps.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      l2_norm_clip: the longest an example's gradient may be.
      noise_multiplier: the noise's standard deviation, over `l2_norm_clip`.
      seed: a seed, or a JAX key.
      momentum, nesterov: see `sgd`.

    Differences. optax: equal, the same noise for the same seed.

    Reference: Abadi et al., "Deep learning with differential privacy", 2016.

    >>> from dlkit import optim
    >>> data = jnp.array([[1.0, 2.0], [3.0, 2.0]])
    >>> loss = lambda p, x: jnp.sum((p["w"] - x) ** 2)
    >>> params = {"w": jnp.zeros(2)}
    >>> tx = dpsgd(0.25, l2_norm_clip=10.0, noise_multiplier=0.001, seed=0)
    >>> state = tx.init(params)
    >>> for _ in range(9):
    ...     grads = jax.vmap(jax.grad(loss), in_axes=(None, 0))(params, data)
    ...     updates, state = tx.update(grads, state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(params["w"].round(1))
    [2. 2.]

    Raises:
      ValueError: a negative number; from `update`, the gradients have no common leading axis.
      TypeError: `seed` is neither a seed nor a key.
    """
    links = () if momentum is None else (trace(momentum, nesterov),)
    private = differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed)
    return chain(private, *links, scale_by_learning_rate(learning_rate))
