"""Initializers whose elements are independent draws from one distribution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dlkit.nn.initializers.base import Fans, Initializer, compute_fans, wide

__all__ = ["Constant", "Normal", "Ones", "TruncatedNormal", "Uniform", "VarianceScaling", "Zeros"]


@dataclass(frozen=True)
class Zeros(Initializer):
    """`w = 0`.

    >>> Zeros()(jax.random.key(0), (2,))
    Array([0., 0.], dtype=float32)
    """

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32, fans: Fans | None = None
    ) -> jax.Array:
        return jnp.zeros(shape, dtype)


@dataclass(frozen=True)
class Ones(Initializer):
    """`w = 1`.

    >>> Ones()(jax.random.key(0), (2,))
    Array([1., 1.], dtype=float32)
    """

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32, fans: Fans | None = None
    ) -> jax.Array:
        return jnp.ones(shape, dtype)


@dataclass(frozen=True)
class Constant(Initializer):
    """`w = value`.

    >>> Constant(0.25)(jax.random.key(0), (2,))
    Array([0.25, 0.25], dtype=float32)
    """

    value: float

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32, fans: Fans | None = None
    ) -> jax.Array:
        return jnp.full(shape, self.value, dtype)


@dataclass(frozen=True)
class Uniform(Initializer):
    """`w ~ U[low, high)`, mean `(low + high) / 2`, standard deviation `(high - low) / sqrt(12)`.

    torch's `uniform_(a, b)`. `jax.nn.initializers.uniform(scale)` is U[0, scale), Keras' default is U(-0.05, 0.05).

    >>> Uniform(-0.1, 0.1)(jax.random.key(0), (2, 3)).shape
    (2, 3)

    Raises:
      ValueError: `low > high`.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"Uniform wants low <= high, got low={self.low} and high={self.high}")

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32, fans: Fans | None = None
    ) -> jax.Array:
        return jax.random.uniform(key, shape, wide(dtype), self.low, self.high).astype(dtype)


@dataclass(frozen=True)
class Normal(Initializer):
    """`w ~ N(mean, std^2)`. The default of torch's `normal_` is std 1, of jax's `normal` 0.01, of Keras 0.05.

    >>> Normal(0.02)(jax.random.key(0), (2, 3)).shape
    (2, 3)

    Raises:
      ValueError: `std` is negative.
    """

    std: float
    mean: float = 0.0

    def __post_init__(self) -> None:
        _not_negative(self, "std", self.std)

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32, fans: Fans | None = None
    ) -> jax.Array:
        return (self.mean + self.std * jax.random.normal(key, shape, wide(dtype))).astype(dtype)


@dataclass(frozen=True)
class TruncatedNormal(Initializer):
    """`w ~ N(0, s^2)` given that `low s <= w <= high s`, with `s` such that the standard deviation of `w` is `std`.

    Cutting the tails makes a distribution narrower: at +-2 the standard deviation of what is left is 0.8796 s, which is
    divided out here, as variance scaling does in jax, flax and Keras (so the bounds are +-2.27 std). Three functions of
    this name do not divide it out, so multiply theirs by 0.8796 for this one: `jax.nn.initializers.truncated_normal`
    and Keras' `TruncatedNormal`, whose stddev is that of the normal before it is cut, and torch's `trunc_normal_`,
    where besides the bounds are absolute numbers, not multiples: its default +-2 cuts nothing off at std 0.02.

    Bounds that are not symmetric shift the mean away from 0; it is left there.

    >>> w = TruncatedNormal(0.02)(jax.random.key(0), (200, 200))
    >>> bool(abs(w).max() <= 0.0455), w.std().round(3)
    (True, Array(0.02, dtype=float32))

    Raises:
      ValueError: `std` is negative, or `low >= high`.
    """

    std: float
    low: float = -2.0
    high: float = 2.0

    def __post_init__(self) -> None:
        _not_negative(self, "std", self.std)
        if self.low >= self.high:
            raise ValueError(f"TruncatedNormal wants low < high, got low={self.low} and high={self.high}")

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32, fans: Fans | None = None
    ) -> jax.Array:
        cut = jax.random.truncated_normal(key, self.low, self.high, shape, wide(dtype))
        return (self.std / _truncated_std(self.low, self.high) * cut).astype(dtype)


def _truncated_std(low: float, high: float) -> float:
    """The standard deviation of N(0, 1) given that it lies in [low, high]."""
    a, b = (math.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in (low, high))
    mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    return math.sqrt(1 + (low * a - high * b) / mass - ((a - b) / mass) ** 2)


FanMode = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]
Distribution = Literal["normal", "truncated_normal", "uniform"]


@dataclass(frozen=True)
class VarianceScaling(Initializer):
    """Draws of mean 0 and variance `scale / n`, where n is a fan of the weight (`compute_fans`).

        fan_in: n = fan_in       fan_avg:     n = (fan_in + fan_out) / 2
        fan_out: n = fan_out     fan_geo_avg: n = sqrt(fan_in * fan_out)

    With the standard deviation s = sqrt(scale / n), `"normal"` is N(0, s^2), `"truncated_normal"` is
    `TruncatedNormal(s)`, bounded by 2.27 s, and `"uniform"` is U(-sqrt(3) s, sqrt(3) s): a uniform distribution of
    half-width a has the variance a^2 / 3. Every named recipe is one of these. jax, flax and Keras have the same words.

    >>> VarianceScaling(1.0, "fan_in", "uniform")(jax.random.key(0), (3, 3, 8, 16)).shape
    (3, 3, 8, 16)

    Raises:
      ValueError: a scale that is negative, an unknown mode or distribution, or no fans and a shape that has none.
    """

    scale: float = 1.0
    mode: FanMode = "fan_in"
    distribution: Distribution = "truncated_normal"

    def __post_init__(self) -> None:
        _not_negative(self, "scale", self.scale)
        for field, value, known in (
            ("mode", self.mode, ("fan_in", "fan_out", "fan_avg", "fan_geo_avg")),
            ("distribution", self.distribution, ("normal", "truncated_normal", "uniform")),
        ):
            if value not in known:
                raise ValueError(f"VarianceScaling got {field}={value!r}; expected one of {', '.join(known)}")

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32, fans: Fans | None = None
    ) -> jax.Array:
        fan_in, fan_out = compute_fans(shape) if fans is None else fans
        n = {
            "fan_in": fan_in,
            "fan_out": fan_out,
            "fan_avg": (fan_in + fan_out) / 2,
            "fan_geo_avg": math.sqrt(fan_in * fan_out),
        }[self.mode]
        std = math.sqrt(self.scale / max(n, 1))  # an empty weight has no fans to divide by
        if self.distribution == "normal":
            return Normal(std)(key, shape, dtype)
        if self.distribution == "truncated_normal":
            return TruncatedNormal(std)(key, shape, dtype)
        return Uniform(-math.sqrt(3) * std, math.sqrt(3) * std)(key, shape, dtype)


def _not_negative(of: Initializer, name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{type(of).__name__} wants {name} >= 0, got {value}")
