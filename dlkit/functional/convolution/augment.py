"""Random changes of pictures that keep what they show: mirrored, moved."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

__all__ = ["random_crop", "random_flip"]


def random_flip(key: Array, x: Shaped[Array, "B H W C"], rate: float = 0.5) -> Shaped[Array, "B H W C"]:
    """Pictures `[B, H, W, C]`, each mirrored left to right with probability `rate`, drawn for each by itself.

    >>> x = jnp.arange(3.0).reshape(1, 1, 3, 1)
    >>> random_flip(jax.random.key(0), x, 1.0).ravel()
    Array([2., 1., 0.], dtype=float32)

    Raises:
      ValueError: x is not `[B, H, W, C]`, or the rate is outside [0, 1].
    """
    _check("random_flip", x)
    if not 0 <= rate <= 1:
        raise ValueError(f"random_flip wants a rate in [0, 1], got {rate}")
    mirrored = jax.random.bernoulli(key, rate, (x.shape[0], 1, 1, 1))
    return jnp.where(mirrored, x[:, :, ::-1], x)


def random_crop(key: Array, x: Shaped[Array, "B H W C"], pad: int = 4) -> Shaped[Array, "B H W C"]:
    """Pictures `[B, H, W, C]`, each moved by -pad .. pad pixels on both axes; what comes in from outside is 0.

    The same as zeros all around and a cut of the old size at a place drawn for each picture, uniformly.

    >>> random_crop(jax.random.key(0), jnp.ones((2, 8, 8, 3)), 2).shape
    (2, 8, 8, 3)

    Raises:
      ValueError: x is not `[B, H, W, C]`, or `pad` is negative.
    """
    _check("random_crop", x)
    if pad < 0:
        raise ValueError(f"random_crop wants pad of at least 0, got {pad}")
    b, h, w, _ = x.shape
    places = jax.random.randint(key, (2, b), 0, 2 * pad + 1)
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = places[0][:, None] + jnp.arange(h)[None]
    columns = places[1][:, None] + jnp.arange(w)[None]
    return padded[jnp.arange(b)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _check(name: str, x: Array) -> None:
    if x.ndim != 4:
        raise ValueError(f"{name} wants pictures [B, H, W, C], got x of shape {x.shape}")
