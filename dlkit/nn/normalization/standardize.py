"""Inputs to mean 0 and standard deviation 1, by numbers that are fitted once, on training data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dlkit.functional.precision import wide_dtype
from dlkit.nn.checks import check_axis, check_float, describe
from dlkit.nn.layer import Layer
from dlkit.nn.mode import Mode

__all__ = ["Standardize", "StandardizeState"]


class StandardizeState(TypedDict):
    mean: Float[Array, "d"]
    std: Float[Array, "d"]


@dataclass(frozen=True)
class Standardize(Layer[Any, StandardizeState]):
    """`y = (x - mean) / std` on the last axis, x `[..., d]`, with the mean and deviation of the *training* data.

    The numbers are state, `mean` and `std` `[d]` (0 and 1 before they are fitted): checkpointed with the model, so that
    whoever loads it standardizes alike, and neither trained nor changed by any call. `fit` makes them from training
    data; nothing else does, so test data cannot leak in. Put it first in a model and its fitted state where
    `init_state` left the blank one:

    >>> from dlkit import nn
    >>> train_x = np.array([[1.0, 200.0], [3.0, 600.0]], np.float32)
    >>> model = nn.Chain(scale=Standardize(2), head=nn.Linear(2, 1))
    >>> state = {**model.init_state(), "scale": model["scale"].fit(train_x)}
    >>> y, _ = model["scale"].apply({}, state["scale"], jnp.asarray(train_x), nn.EVAL)
    >>> y.tolist()
    [[-1.0, -1.0], [1.0, 1.0]]

    sklearn: `StandardScaler`; Keras: `Normalization.adapt`, which divides by `max(std, 1e-7)`.

    Raises:
      ValueError: the last axis of x is not `d`.
      TypeError: x is not floating point.
    """

    d: int

    def init_state(self) -> StandardizeState:
        return {"mean": jnp.zeros(self.d, jnp.float32), "std": jnp.ones(self.d, jnp.float32)}

    def fit(self, data: Any) -> StandardizeState:
        """The state with the mean and the (biased) standard deviation of each column of the training data.

        `data` is an array `[..., d]`, or an iterable of arrays, such as batches of a set that does not fit in memory;
        batches of a loader, with `x` and `weight`, count their rows of weight 0 not at all. One pass, in float64,
        batches merged by the formula of Chan et al., so that the order and size of batches do not matter. A column
        that is constant gets std 1, and becomes 0, as in sklearn. The state is float32, or float64 for float64 data
        where JAX has it.

        >>> layer = Standardize(1)
        >>> whole = layer.fit(np.array([[1.0], [2.0], [6.0]], np.float32))
        >>> parts = layer.fit(np.array(part, np.float32) for part in ([[1.0]], [[2.0], [6.0]]))
        >>> float(whole["mean"][0]), bool(abs(whole["std"] - parts["std"]).max() < 1e-6)
        (3.0, True)

        Raises:
          ValueError: an array whose last axis is not `d`, a value that is not finite, or no data at all.

        Reference: Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances,
        1979.
        """
        count, mean, squares = 0.0, np.zeros(self.d), np.zeros(self.d)
        double = False
        for x, weight in self._rows(data):
            double = double or x.dtype == np.float64
            x = x.astype(np.float64)
            n = float(weight.sum())
            if n == 0:
                continue
            mean_x = weight @ x / n
            delta = mean_x - mean
            squares += weight @ np.square(x - mean_x) + np.square(delta) * (count * n / (count + n))
            mean += delta * (n / (count + n))
            count += n
        if count == 0:
            raise ValueError(f"{describe(self)}.fit got no data: expected at least one row of {self.d} values")
        var = squares / count
        # What is left of the variance of a constant column is rounding, at most this (Chan et al.).
        rounding = np.finfo(np.float64).eps
        constant = var <= count * rounding * var + np.square(count * mean * rounding)
        std = np.where(constant, 1.0, np.sqrt(var))
        dtype = jnp.asarray(0.0).dtype if double else jnp.float32
        return {"mean": jnp.asarray(mean, dtype), "std": jnp.asarray(std, dtype)}

    def _rows(self, data: Any) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Pairs of rows `[n, d]` and their weights `[n]`."""
        for part in [data] if hasattr(data, "shape") or isinstance(data, Mapping) else data:
            x = np.asarray(part["x"] if isinstance(part, Mapping) else part)
            check_axis(self, x, -1, self.d, f"d={self.d}")
            weight = np.ones(x.shape[:-1])
            if isinstance(part, Mapping) and part.get("weight") is not None:
                given = np.asarray(part["weight"], np.float64)
                weight = np.broadcast_to(given.reshape(given.shape + (1,) * (x.ndim - 1 - given.ndim)), x.shape[:-1])
            x, weight = x.reshape(-1, self.d), weight.reshape(-1)
            x, weight = x[weight > 0], weight[weight > 0]
            if not np.isfinite(x).all():
                raise ValueError(f"{describe(self)}.fit got data with NaN or infinity: remove such rows first")
            yield x, weight

    def apply(
        self, params: Any, state: StandardizeState, x: Array, mode: Mode
    ) -> tuple[Float[Array, "*lead {self.d}"], StandardizeState]:
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, because="a mean is subtracted from it")
        mean, std, wide = self._like(state, x)
        return ((wide - mean) / std).astype(x.dtype), state

    def invert(self, state: StandardizeState, y: Float[Array, "*lead {self.d}"]) -> Float[Array, "*lead {self.d}"]:
        """`x = y std + mean`: predictions of a standardized target back in its own units."""
        check_axis(self, y, -1, self.d, f"d={self.d}")
        mean, std, wide = self._like(state, y)
        return (wide * std + mean).astype(y.dtype)

    def _like(self, state: StandardizeState, x: Array) -> tuple[Array, Array, Array]:
        wide = x.astype(wide_dtype(x.dtype))
        shape = (1,) * (x.ndim - 1) + (self.d,)
        return state["mean"].astype(wide.dtype).reshape(shape), state["std"].astype(wide.dtype).reshape(shape), wide
