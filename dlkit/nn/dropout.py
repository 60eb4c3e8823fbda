"""The dropout layer."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_float, check_rate
from dlkit.nn.layer import Layer
from dlkit.nn.mode import Mode

__all__ = ["Dropout"]


@dataclass(frozen=True)
class Dropout(Layer[Any, None]):
    """In training each element is 0 with probability `rate`, else divided by `1 - rate`; in evaluation `y = x`.

    x of any shape. The expectation is x in both. `rate` is the probability of *dropping*, as in torch (`p`), flax and
    Keras. The mask is drawn from `mode.rng("dropout")`, so every Dropout of a model draws its own, at every step anew.

    >>> from dlkit.nn import EVAL, training
    >>> layer, x = Dropout(0.5), jnp.ones((2, 3))
    >>> bool((layer.apply({}, None, x, EVAL)[0] == x).all())
    True
    >>> y, _ = layer.apply({}, None, x, training(jax.random.key(0)))
    >>> set(y.ravel().tolist()) <= {0.0, 2.0}
    True

    Raises:
      ValueError: `rate` is outside [0, 1]; training with a mode that has no key, unless `rate` is 0.
      TypeError: x is not floating point.

    Reference: Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014.
    """

    rate: float

    def __post_init__(self) -> None:
        check_rate(self)

    def apply(self, params: Any, state: None, x: Array, mode: Mode) -> tuple[Float[Array, "*shape"], None]:
        check_float(self, x, because="what is kept is divided by 1 - rate")
        key = mode.rng("dropout") if self.rate > 0 else None
        return functional.dropout(key, x, self.rate), None
