"""Losses of vectors that should be near or far: cosine, contrastive, triplet. The last axis is the vector."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from dlkit.losses.arrays import Scalar, matched

__all__ = ["contrastive", "cosine_distance", "cosine_embedding", "triplet"]


def _cosine(a: Array, b: Array, eps: Scalar) -> Array:
    # The floor is on the square: sqrt has no finite gradient at 0.
    floor = jnp.asarray(eps, a.dtype) ** 2
    a = a / jnp.sqrt(jnp.maximum(jnp.sum(a * a, axis=-1, keepdims=True), floor))
    b = b / jnp.sqrt(jnp.maximum(jnp.sum(b * b, axis=-1, keepdims=True), floor))
    return jnp.sum(a * b, axis=-1)


def _distance(a: Array, b: Array, squared: bool = False) -> Array:
    """Euclidean distance whose gradient at a = b is 0, where that of a plain square root is NaN."""
    square = jnp.sum(jnp.square(a - b), axis=-1)
    if squared:
        return square
    apart = square > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)


def _labels(loss: str, targets: ArrayLike, vectors: Array) -> Array:
    targets = jnp.asarray(targets)
    if targets.shape != vectors.shape[:-1]:
        raise ValueError(
            f"{loss}: vectors {list(vectors.shape)} need one label a pair, {list(vectors.shape[:-1])}; "
            f"got targets {list(targets.shape)}"
        )
    return targets.astype(vectors.dtype)


def cosine_distance(
    outputs: Float[ArrayLike, "... d"], targets: Float[ArrayLike, "... d"], *, eps: Scalar = 1e-8
) -> Float[Array, "..."]:
    r"""One minus the cosine of the angle between two vectors: :math:`\ell = 1 - \frac{a \cdot b}{\|a\| \|b\|}`.

    >>> cosine_distance(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]]))
    Array([1.], dtype=float32)

    Args:
      outputs: `[..., D]`.
      targets: the same shape.
      eps: the least norm, so that a zero vector has cosine 0.

    Returns: `[...]`, in [0, 2].

    Raises:
      ValueError: the shapes differ.

    torch: 1 - `cosine_similarity` (the same eps). optax `cosine_distance`: its `epsilon` is 0 (NaN for a zero vector)
    and bounds the *squared* norm. Keras `CosineSimilarity`, as a loss, is minus the cosine, without the 1.
    """
    a, b = matched("cosine_distance", outputs, targets)
    return 1 - _cosine(a, b, eps)


def cosine_embedding(
    a: Float[ArrayLike, "... d"],
    b: Float[ArrayLike, "... d"],
    targets: ArrayLike,
    *,
    margin: Scalar = 0.0,
    eps: Scalar = 1e-8,
) -> Float[Array, "..."]:
    r"""Cosine loss of pairs that belong together (label +1) or do not (label -1).

    .. math:: \ell = 1 - \cos(a, b) \ \text{ if } y = 1, \quad \max(0,\, \cos(a, b) - m) \ \text{ if } y = -1

    >>> a, b = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> cosine_embedding(a, b, jnp.array([1, -1]), margin=0.25)
    Array([1.  , 0.75], dtype=float32)

    Args:
      a: `[..., D]`.
      b: the same shape.
      targets: `[...]` in {-1, +1}.
      margin: the cosine up to which unlike pairs cost nothing.
      eps: the least norm.

    Returns: `[...]`.

    Raises:
      ValueError: the shapes do not fit.

    torch: `CosineEmbeddingLoss` (which adds 1e-12 to the squared norms in place of eps).
    """
    a, b = matched("cosine_embedding", a, b)
    y = _labels("cosine_embedding", targets, a)
    cosine = _cosine(a, b, eps)
    return jnp.where(y > 0, 1 - cosine, jnp.maximum(cosine - margin, 0))


def contrastive(
    a: Float[ArrayLike, "... d"], b: Float[ArrayLike, "... d"], targets: ArrayLike, *, margin: Scalar = 1.0
) -> Float[Array, "..."]:
    r"""Pulls like pairs (label 1) together and pushes unlike ones (label 0) a margin apart; :math:`d = \|a - b\|`.

    .. math:: \ell = \tfrac12\, y\, d^2 + \tfrac12 (1 - y) \max(0,\, m - d)^2

    >>> a, b = jnp.array([[0.0, 0.0], [0.0, 0.0]]), jnp.array([[3.0, 4.0], [0.0, 0.5]])
    >>> contrastive(a, b, jnp.array([1, 0]))
    Array([12.5  ,  0.125], dtype=float32)

    Args:
      a: `[..., D]`.
      b: the same shape.
      targets: `[...]` in {0, 1}, **1 for like pairs**. (The paper's Y is 1 for unlike ones.)
      margin: m.

    Returns: `[...]`. An unlike pair of equal vectors has loss m^2 / 2 and gradient 0: no direction leads apart.

    Raises:
      ValueError: the shapes do not fit.

    The factors 1/2 are the paper's; TF-Slim's and TensorFlow Addons' versions leave them out. torch, optax and Keras
    have none.

    Reference: Hadsell, Chopra and LeCun, Dimensionality Reduction by Learning an Invariant Mapping, 2006.
    """
    a, b = matched("contrastive", a, b)
    y = _labels("contrastive", targets, a)
    short = jnp.maximum(margin - _distance(a, b), 0)
    return 0.5 * (y * _distance(a, b, squared=True) + (1 - y) * jnp.square(short))


def triplet(
    anchor: Float[ArrayLike, "... d"],
    positive: Float[ArrayLike, "... d"],
    negative: Float[ArrayLike, "... d"],
    *,
    margin: Scalar = 1.0,
    squared: bool = False,
) -> Float[Array, "..."]:
    r"""The anchor should be nearer to the positive than to the negative, by a margin.

    .. math:: \ell = \max(0,\, d(a, p) - d(a, n) + m), \qquad d(x, y) = \|x - y\| \ \text{ or } \|x - y\|^2

    >>> a, p, n = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 1.0]]), jnp.array([[1.5, 0.0]])
    >>> triplet(a, p, n), triplet(a, p, n, squared=True)
    (Array([0.5], dtype=float32), Array([0.], dtype=float32))

    Args:
      anchor: `[..., D]`.
      positive: the same shape.
      negative: the same shape.
      margin: m.
      squared: take squared distances, as FaceNet does.

    Returns: `[...]`.

    Raises:
      ValueError: the shapes differ.

    torch `TripletMarginLoss` adds 1e-6 to every coordinate difference, optax `triplet_margin_loss` 1e-6 to the squared
    distance; here nothing is added, and the gradient of a distance of 0 is 0.

    References: Balntas et al., Learning Local Feature Descriptors with Triplets and Shallow CNNs, 2016; Schroff et al.,
    FaceNet, 2015 (squared).
    """
    anchor, positive = matched("triplet", anchor, positive)
    anchor, negative = matched("triplet", anchor, negative)
    gap = _distance(anchor, positive, squared) - _distance(anchor, negative, squared)
    return jnp.maximum(gap + margin, 0)
