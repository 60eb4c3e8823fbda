"""Augmentation as layers in front of a model: they act in training alone, with the key of the step."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Shaped

from dlkit import functional
from dlkit.nn.checks import check_rank, check_rate, describe
from dlkit.nn.layer import Layer
from dlkit.nn.mode import Mode

__all__ = ["RandomCrop", "RandomFlip"]


@dataclass(frozen=True)
class RandomFlip(Layer[Any, None]):
    """In training each picture of `[B, H, W, C]` is mirrored left to right with probability `rate`. Any dtype.

    Drawn from `mode.rng("flip")`. In evaluation y = x. Keras: `RandomFlip("horizontal")`.

    >>> from dlkit.nn import EVAL
    >>> RandomFlip().apply({}, None, jnp.ones((2, 8, 8, 3)), EVAL)[0].shape
    (2, 8, 8, 3)

    Raises:
      ValueError: a rate outside [0, 1], or x that is not `[B, H, W, C]`, in training.
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        check_rate(self)

    def init(self, key: Any) -> Any:
        return {}

    def apply(self, params: Any, state: None, x: Array, mode: Mode) -> tuple[Shaped[Array, "*shape"], None]:
        if (key := mode.rng("flip")) is None:
            return x, None
        check_rank(self, x, "[B, H, W, C]", 4, "it moves pictures", most=4)
        return functional.random_flip(key, x, self.rate), None


@dataclass(frozen=True)
class RandomCrop(Layer[Any, None]):
    """In training each picture of `[B, H, W, C]` is moved by -pad .. pad pixels on both axes, zeros coming in.

    Drawn from `mode.rng("crop")`. In evaluation y = x. torch: `RandomCrop(size, padding=pad)`.

    >>> from dlkit.nn import EVAL
    >>> RandomCrop(2).apply({}, None, jnp.ones((2, 8, 8, 3)), EVAL)[0].shape
    (2, 8, 8, 3)

    Raises:
      ValueError: a negative `pad`, or x that is not `[B, H, W, C]`, in training.
    """

    pad: int = 4

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise ValueError(f"{describe(self)}: expected pad of at least 0")

    def init(self, key: Any) -> Any:
        return {}

    def apply(self, params: Any, state: None, x: Array, mode: Mode) -> tuple[Shaped[Array, "*shape"], None]:
        if (key := mode.rng("crop")) is None:
            return x, None
        check_rank(self, x, "[B, H, W, C]", 4, "it moves pictures", most=4)
        return functional.random_crop(key, x, self.pad), None
