"""Layers that say where a token stands: by what is added to embeddings or scores, or by rotating queries and keys."""

from dataclasses import dataclass
from typing import Any, Literal

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_axis, check_float, check_multiple, check_rank, describe
from dlkit.nn.embedding import EmbeddingParams
from dlkit.nn.initializers import Initializer, Normal
from dlkit.nn.layer import Layer, Pure
from dlkit.nn.mode import Mode, fold_name

__all__ = ["Alibi", "LearnedPositions", "RelativeBias", "Rope", "SinusoidalPositions"]


@dataclass(frozen=True)
class Rope(Pure[Any]):
    """Rotary position embedding of queries or keys: x `[B, T, H, D]`, y of the same shape. See `functional.rope`.

    `MultiHeadAttention(position=Rope())` turns its queries and keys with it. Pairs are features i and i + D/2 as in
    Hugging Face's Llama; `interleaved` pairs are 2i and 2i + 1, as in the paper. `fraction` of the features are turned,
    the first ones. `scaling` (`"linear"`, `"ntk"`, `"llama3"`) fits a model trained on `length` tokens to sequences
    `factor` times as long. No parameters. `positions` `[T]` or `[B, T]` are 0 .. T-1 if not given.

    >>> layer = Rope()
    >>> layer({}, jnp.ones((2, 5, 4, 8))).shape
    (2, 5, 4, 8)

    Raises:
      ValueError: an odd number of features to turn, an unknown scaling, a fraction outside (0, 1].
      TypeError: x is not floating point.

    Reference: Su et al., RoFormer, 2021, arXiv:2104.09864.
    """

    base: float = 10000.0
    interleaved: bool = False
    fraction: float = 1.0
    scaling: Literal["linear", "ntk", "llama3"] | None = None
    factor: float = 1.0
    length: int = 8192

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"{describe(self)}: expected a fraction in (0, 1]")
        if self.scaling not in (None, "linear", "ntk", "llama3"):
            raise ValueError(f"{describe(self)}: expected 'linear', 'ntk', 'llama3' or None for scaling")

    def __call__(self, params: Any, x: Array, *, positions: Array | None = None) -> Float[Array, "*shape"]:
        check_float(self, x, because="it is rotated")
        check_rank(self, x, "[..., T, H, D]", 3, "each head of a token is rotated by its place")
        if int(x.shape[-1] * self.fraction) % 2:
            raise ValueError(
                f"{describe(self)} got x of shape {x.shape}: expected an even number of features to turn because they "
                f"are rotated in pairs, got {int(x.shape[-1] * self.fraction)}"
            )
        frequencies = functional.rope_frequencies(
            int(x.shape[-1] * self.fraction), self.base, scaling=self.scaling, factor=self.factor, length=self.length
        )
        return functional.rope(x, positions, interleaved=self.interleaved, frequencies=frequencies)


@dataclass(frozen=True)
class Alibi(Pure[Any]):
    """Attention with linear biases: `-slope_h |i - j|` is added to the scores of head h. See `functional.alibi_bias`.

    x is the positions of the queries `[T]` or `[B, T]`, `keys` those of the keys `[S]` or `[B, S]`, by default x; y
    `[1 or B, H, T, S]`, a `bias` for attention. `MultiHeadAttention(position=Alibi(heads))` adds it. No parameters.

    >>> layer = Alibi(8)
    >>> layer({}, jnp.arange(5)).shape
    (1, 8, 5, 5)

    Reference: Press, Smith and Lewis, Train short, test long, 2021, arXiv:2108.12409.
    """

    heads: int

    def __call__(self, params: Any, x: Array, *, keys: Array | None = None) -> Float[Array, "B H T S"]:
        keys = x if keys is None else keys
        _check_places(self, x, keys)
        return functional.alibi_bias(self.heads, x, keys)


@dataclass(frozen=True)
class RelativeBias(Pure[EmbeddingParams]):
    """T5's bias: one learned number for each head and bucket of the distance, key minus query.

    x is the positions of the queries `[T]` or `[B, T]`, `keys` those of the keys, by default x; y `[1 or B, H, T, S]`,
    a `bias` for attention. Parameter: `table` `[buckets, heads]` from N(0, 0.1^2). `functional.relative_buckets` says
    which bucket; a decoder has `bidirectional=False`. In T5 one such layer serves all blocks: give its output to each
    as `bias=`; `MultiHeadAttention(position=RelativeBias(heads))` has one of its own.

    >>> layer = RelativeBias(8)
    >>> layer(layer.init(jax.random.key(0)), jnp.arange(5)).shape
    (1, 8, 5, 5)

    Raises:
      ValueError: fewer than 2 buckets a direction, or a `max_distance` that the exact buckets cover.

    Reference: Raffel et al., Exploring the limits of transfer learning (T5), 2020, arXiv:1910.10683.
    """

    heads: int
    buckets: int = 32
    max_distance: int = 128
    bidirectional: bool = True
    table_init: Initializer = Normal(0.1)

    def init(self, key: Any) -> EmbeddingParams:
        return {"table": self.table_init(fold_name(key, "table"), (self.buckets, self.heads))}

    def __call__(self, params: EmbeddingParams, x: Array, *, keys: Array | None = None) -> Float[Array, "B H T S"]:
        keys = x if keys is None else keys
        _check_places(self, x, keys)
        distance = keys[..., None, :] - x[..., :, None]
        distance = distance[None] if distance.ndim == 2 else distance
        bucket = functional.relative_buckets(
            distance, self.buckets, self.max_distance, bidirectional=self.bidirectional
        )
        return jnp.moveaxis(params["table"][bucket], -1, -3)


class _Added(Layer[Any, Any]):
    """What is added at positions that are counted on, call by call, where a state says how many there were."""

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Any:
        """The number of positions seen so far, `{"length": 0}`; the sizes do not matter."""
        return {"length": jnp.zeros((), jnp.int32)}

    def apply(
        self, params: Any, state: Any, x: Array, mode: Mode, *, positions: Array | None = None
    ) -> tuple[Float[Array, "*shape"], Any]:
        """The sum, and the count after x where one is given: positions then go on from it unless they are given."""
        if state is None:
            return self(params, x, positions=positions), None
        t = _positions(self, x, positions).shape[-1]
        if positions is None:
            positions = state["length"] + jnp.arange(t, dtype=jnp.int32)
        return self(params, x, positions=positions), {"length": state["length"] + jnp.asarray(t, jnp.int32)}

    def __call__(self, params: Any, x: Array, *, positions: Array | None = None) -> Float[Array, "*shape"]:
        raise TypeError(f"{type(self).__name__} does not say what it adds: give it a `__call__`")


@dataclass(frozen=True)
class SinusoidalPositions(_Added):
    """`y = x + s`, `s` the sines and cosines of the position: x `[..., T, d]`. See `functional.sinusoidal`.

    No parameters. `positions` `[T]`, or `[..., T]` as x, are 0 .. T-1 if not given; with a state, made by `init_cache`,
    they go on where the last call ended. The sum has the dtype of x.

    >>> SinusoidalPositions()({}, jnp.zeros((2, 5, 4)))[0, 1].round(4)
    Array([0.8415, 0.5403, 0.01  , 1.    ], dtype=float32)

    Raises:
      ValueError: `d` is odd, or positions of another length.
      TypeError: x is not floating point.

    Reference: Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """

    base: float = 10000.0

    def __call__(self, params: Any, x: Array, *, positions: Array | None = None) -> Float[Array, "*shape"]:
        check_float(self, x, because="waves are added to it")
        at = _positions(self, x, positions)
        check_multiple(self, x, -1, 2, "sines and cosines come in pairs")
        waves = functional.sinusoidal(at, x.shape[-1], base=self.base, dtype=x.dtype)
        return x + waves.reshape((1,) * (x.ndim - waves.ndim) + waves.shape)


@dataclass(frozen=True)
class LearnedPositions(_Added):
    """`y = x + table[positions]`: x `[..., T, d]`, a learned vector for each of `length` positions.

    Parameter: `table` `[length, d]` from N(0, 0.02^2), as in BERT, GPT-2 and ViT. `positions` `[T]`, or `[..., T]` as
    x, are 0 .. T-1 if not given; with a state, made by `init_cache`, they go on where the last call ended. One outside
    the table gives NaN, so that it is seen in the loss.

    >>> layer = LearnedPositions(16, 4)
    >>> layer(layer.init(jax.random.key(0)), jnp.zeros((2, 5, 4))).shape
    (2, 5, 4)

    Raises:
      ValueError: the last axis of x is not `d`, x is longer than the table, or positions of another length.
      TypeError: x is not floating point, or not of the table's dtype.
    """

    length: int
    d: int
    table_init: Initializer = Normal(0.02)

    def init(self, key: Any) -> EmbeddingParams:
        return {"table": self.table_init(fold_name(key, "table"), (self.length, self.d))}

    def __call__(self, params: EmbeddingParams, x: Array, *, positions: Array | None = None) -> Float[Array, "*shape"]:
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, params["table"], because="vectors of the table are added to it")
        at = _positions(self, x, positions)
        if positions is None and x.shape[-2] > self.length:
            raise ValueError(
                f"{describe(self)} got x of shape {x.shape}: expected at most {self.length} positions because "
                f"length={self.length}"
            )
        if positions is None:
            rows = params["table"][: x.shape[-2]]
        else:
            rows = functional.embedding(params["table"], at)
        return x + rows.reshape((1,) * (x.ndim - rows.ndim) + rows.shape)


def _check_places(layer: Any, x: Array, keys: Array) -> None:
    """Raise unless both are integers `[T]` or `[B, T]`."""
    for name, places in (("x", x), ("keys", keys)):
        if not jnp.issubdtype(jnp.result_type(places), jnp.integer):
            raise TypeError(
                f"{describe(layer)} got {name} of dtype {jnp.result_type(places)}: expected integers because they are "
                f"places of tokens, [T] or [B, T]"
            )
        check_rank(layer, places, "[T] or [B, T]", 1, "they are places of tokens", name=name)


def _positions(layer: Any, x: Array, positions: Array | None) -> Array:
    check_rank(layer, x, "[..., T, d]", 2, "a token is a vector")
    if positions is None:
        return jnp.arange(x.shape[-2], dtype=jnp.int32)
    if positions.shape not in (x.shape[-2:-1], x.shape[:-1]):
        raise ValueError(
            f"{describe(layer)} got x of shape {x.shape} and positions of shape {positions.shape}: expected "
            f"{x.shape[-2:-1]} or {x.shape[:-1]}"
        )
    return positions
