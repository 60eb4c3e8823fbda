"""Samples of a sample, labels that are wrong, and what a network had to learn by heart."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

__all__ = ["Corrupted", "bootstrap", "corrupt_labels", "memorization", "random_subsets"]


class Corrupted(NamedTuple):
    """Labels `[N]`, and which of them are not what they were."""

    labels: Int[Array, "n"]
    changed: Bool[Array, "n"]


def corrupt_labels(key: Any, labels: Int[Array, "n"], fraction: Any, classes: int, *, other: bool = False) -> Corrupted:
    """A share of the labels drawn anew: `fraction=1` leaves no relation between examples and labels.

    Exactly `round(fraction N)` of them are drawn, evenly from all classes, so that one in `classes` of these comes out
    as it was; with `other=True` evenly from the wrong classes, so that none does. The chosen ones of a smaller fraction
    are among those of a larger, with the same new labels. `fraction` may be traced: `vmap` over it.

    Args:
      key: of the draw. labels: integers in [0, classes). fraction: from 0 to 1. classes: how many, at least 2.

    >>> found = corrupt_labels(jax.random.key(0), jnp.zeros(10, jnp.int32), 0.3, 5, other=True)
    >>> int(found.changed.sum()), bool((found.labels[found.changed] > 0).all())
    (3, True)

    Raises:
      ValueError: fewer than 2 classes, or a fraction outside [0, 1].

    Reference: Zhang et al., "Understanding deep learning requires rethinking generalization", 2017, section 2.
    """
    if classes < 2:
        raise ValueError(f"corrupt_labels wants at least 2 classes, got {classes}")
    if not isinstance(fraction, jax.Array) and not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}")
    labels = jnp.asarray(labels)
    n = labels.shape[0]
    order, drawn = jax.random.split(key)
    rank = jnp.argsort(jax.random.permutation(order, n))
    chosen = rank < jnp.round(jnp.asarray(fraction, jnp.float32) * n).astype(rank.dtype)
    shift = jax.random.randint(drawn, (n,), 1 if other else 0, classes).astype(labels.dtype)
    new = jnp.where(chosen, (labels + shift) % classes, labels)
    return Corrupted(new, new != labels)


def random_subsets(keys: Any, n: int, fraction: float) -> Float[Array, "members n"]:
    """Weights 0 and 1, `[K, n]`: each row has `round(fraction n)` ones at random, for `train_population(each=...)`.

    >>> random_subsets(jax.random.split(jax.random.key(0), 3), 10, 0.7).sum(1).tolist()
    [7.0, 7.0, 7.0]

    Raises:
      ValueError: a fraction that leaves a subset, or what it leaves out, empty.
    """
    size = round(fraction * n)
    if not 0 < size < n:
        raise ValueError(f"fraction {fraction} of {n} examples makes subsets of {size}: take one between")
    return jax.vmap(lambda key: (jax.random.permutation(key, n) < size).astype(jnp.float32))(keys)


def bootstrap(keys: Any, n: int) -> Float[Array, "members n"]:
    """Weights `[K, n]`: how often each example is in a sample of n drawn with replacement. For bagging.

    Members of a `train_population(each=["weight"])` that learn from them, and whose mean answers, are bagged. About
    1 - 1/e = 63 % of the examples are in a sample; the others can test its member.

    >>> weights = bootstrap(jax.random.split(jax.random.key(0), 3), 100)
    >>> weights.sum(1).tolist()
    [100.0, 100.0, 100.0]

    Raises:
      ValueError: no examples.

    References: Efron 1979; Breiman, "Bagging predictors", 1996.
    """
    if n < 1:
        raise ValueError(f"bootstrap draws from at least 1 example, got {n}")
    drawn = jax.vmap(lambda key: jax.random.randint(key, (n,), 0, n))(keys)
    return jax.vmap(lambda rows: jnp.zeros(n).at[rows].add(1.0))(drawn)


def memorization(correct: Any, included: Any) -> np.ndarray:
    """How much more often an example is right when it was trained on: near 0 it is learned, near 1 learned by heart.

    mem(i) = P(the model is right on i | i was in its set) - P(right on i | it was not), over the K models.

    Args:
      correct: `[K, N]`, whether model k is right on example i (or the probability that it gives its label).
      included: `[K, N]`, whether i was in the set of model k: `random_subsets`, say.

    Returns:
      `[N]`; NaN for an example that was in all sets or in none.

    >>> memorization([[1, 1], [1, 0]], [[1, 1], [0, 0]]).tolist()
    [0.0, 1.0]

    Raises:
      ValueError: shapes that differ.

    References: Feldman, "Does learning require memorization?", 2020; Feldman and Zhang, "What neural networks memorize
    and why", 2020, equation 1.
    """
    correct, included = np.asarray(correct, np.float64), np.asarray(included, np.float64)
    if correct.shape != included.shape or correct.ndim != 2:
        raise ValueError(f"correct and included must both be [K, N], got {correct.shape} and {included.shape}")
    inside, outside = included != 0, included == 0
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = [np.where(mask, correct, 0).sum(0) / mask.sum(0) for mask in (inside, outside)]
    return rates[0] - rates[1]
