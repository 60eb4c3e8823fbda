"""Multi-head attention: projections around `functional.attention`."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.functional import AttentionKind, ScoreMod
from dlkit.nn.checks import check_axis, check_float, check_rank, check_rate, describe
from dlkit.nn.initializers import Initializer, Zeros, lecun_normal
from dlkit.nn.layer import Layer
from dlkit.nn.linear import Linear
from dlkit.nn.mode import Mode
from dlkit.nn.normalization.norms import RMSNorm
from dlkit.nn.transformer.cache import KeyValues, KVCache
from dlkit.nn.transformer.positions import Alibi, RelativeBias, Rope

__all__ = ["MultiHeadAttention"]


@dataclass(frozen=True)
class MultiHeadAttention(Layer[Any, KVCache | None]):
    """`y = [head_1, .., head_H] w_out`, `head_h = attention(x w_q,h, m w_k,h, m w_v,h)`: x `[B, T, d]`, y `[B, T, d]`.

    m is x (self-attention) or, in a layer with `d_memory`, the keyword `memory` `[B, S, d_memory]` (cross-attention).
    Keywords of `apply`, all optional in self-attention:

    - `mask`: booleans, True = attend, `[T, S]` or `[B, H, T, S]`, any axis 1, beside `causal` and `window` (see
      `functional.attention`; a query that sees nothing gives `y = b_out`). Masks of torch's layer say True = ignore;
      Memory that no query sees, and queries that see nothing, may hold NaN;
    - `bias`: added to the scores, shaped likewise; `score_mod`: a function on them, as in `functional.attention`;
    - `positions`: `[T]` or `[B, T]` integers, for `position`: where x stands, by default 0 .. T-1 or on from the cache;
    - `memory`: an array, or what `layer.remember(params, memory)` made of it once, for many calls.

    `heads` heads of `head_dim` features (`d / heads` by default); `kv_heads` keys and values, each shared by
    `heads / kv_heads` queries (grouped-query attention). `position` is `Rope()`, `Alibi(heads)`, `RelativeBias(heads)`
    or None. `qk_norm` normalizes queries and keys of each head (RMS) before the rotation. In training, weights are
    dropped with probability `rate`, drawn from `mode.rng("dropout")`. `scale` multiplies the scores, by default
    `1 / sqrt(head_dim)`; T5 has 1.

    Parameters: `q/w` `[d, heads head_dim]`, `k/w` and `v/w` `[d or d_memory, kv_heads head_dim]`, `out/w` `[heads
    head_dim, d]`, their `b` unless `bias=False`, `q_norm/scale` and `k_norm/scale` `[head_dim]` with `qk_norm`, those
    of `position`. torch holds q, k and v in one `in_proj_weight`, transposed, and draws it with Glorot's bound for that
    matrix (`init_preset`); flax and Keras hold `[d, heads, head_dim]`.

    A causal layer continues a sequence given in pieces: with `state = init_cache(batch, length)` each call attends to
    all tokens so far and returns the longer cache, prompts and single tokens alike. Its `mask` and `bias` then cover
    all `length` places of the cache. Beyond `length`, y is NaN. Layers that are not causal or have a memory have none.

    >>> from dlkit.nn import EVAL
    >>> layer = MultiHeadAttention(16, heads=4, causal=True)
    >>> params = layer.init(jax.random.key(0))
    >>> x = jnp.ones((2, 5, 16))
    >>> y, _ = layer.apply(params, None, x, EVAL)
    >>> cache = layer.init_cache(2, 8)
    >>> first, cache = layer.apply(params, cache, x[:, :3], EVAL)
    >>> rest, cache = layer.apply(params, cache, x[:, 3:], EVAL)
    >>> bool(jnp.allclose(jnp.concatenate([first, rest], 1), y, atol=1e-6)), int(cache.length)
    (True, 5)

    Raises:
      ValueError: heads that do not divide `d` (without `head_dim`) or are no multiple of `kv_heads`; x, a memory, mask,
        bias or positions of a wrong shape; a memory without `d_memory`, or none with it; a cache without room, as far
        as it is known, or given to a layer that has none.
      TypeError: x or memory is not of the weights' dtype; a mask is not boolean.

    References: Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762; Ainslie et al., GQA, 2023,
    arXiv:2305.13245; Henry et al., Query-key normalization, 2020, arXiv:2010.04245.
    """

    d: int
    heads: int
    kv_heads: int | None = None
    head_dim: int | None = None
    d_memory: int | None = None
    causal: bool = False
    window: int | None = None
    position: Rope | Alibi | RelativeBias | None = None
    qk_norm: bool = False
    rate: float = 0.0
    bias: bool = True
    implementation: AttentionKind | None = None
    w_init: Initializer = lecun_normal()
    out_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()
    replaced: tuple[tuple[str, Layer], ...] = ()  # layers in place of the parts, by name: `nn.lora`
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.heads < 1 or (self.head_dim is None and self.d % self.heads):
            raise ValueError(f"{describe(self)}: expected heads that divide d={self.d}, or a head_dim")
        if self.kv_heads is not None and (self.kv_heads < 1 or self.heads % self.kv_heads):
            raise ValueError(f"{describe(self)}: expected kv_heads that divide heads={self.heads}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"{describe(self)}: expected a window of 1 or more, it counts the token itself")
        check_rate(self)
        if isinstance(self.position, Alibi | RelativeBias) and self.position.heads != self.heads:
            raise ValueError(
                f"{describe(self)}: position is {describe(self.position)}; expected one number for each of "
                f"heads={self.heads}"
            )
        if self.d_memory is not None and (self.causal or self.position is not None or self.window is not None):
            raise ValueError(
                f"{describe(self)}: it attends to another sequence, expected no causal, window or position"
            )

    @property
    def size(self) -> int:
        """The features of one head."""
        return self.d // self.heads if self.head_dim is None else self.head_dim

    def parts(self) -> dict[str, Any]:
        d_in = self.d if self.d_memory is None else self.d_memory
        inner, shared = self.heads * self.size, (self.kv_heads or self.heads) * self.size
        parts: dict[str, Any] = {
            "q": Linear(self.d, inner, self.bias, self.w_init, self.b_init),
            "k": Linear(d_in, shared, self.bias, self.w_init, self.b_init),
            "v": Linear(d_in, shared, self.bias, self.w_init, self.b_init),
            "out": Linear(inner, self.d, self.bias, self.out_init, self.b_init),
        }
        if self.qk_norm:
            parts |= {"q_norm": RMSNorm(self.size), "k_norm": RMSNorm(self.size)}
        if self.position is not None:
            parts["position"] = self.position
        return parts | dict(self.replaced)

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Any:
        """Room for the keys and values of `length` tokens: a `KVCache`; None for a layer that is not causal."""
        if not self.causal:
            return None
        shape = (batch, length, self.kv_heads or self.heads, self.size)
        return KVCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros((), jnp.int32))

    def remember(self, params: Any, memory: Array) -> KeyValues:
        """The keys and values of a memory `[B, S, d_memory]`: computed once, given as `memory` to many calls."""
        check_axis(self, memory, -1, self.parts()["k"].d_in, f"d_memory={self.d_memory}", name="memory")
        check_float(self, memory, params["k"]["w"], name="memory")
        k, v = (self._project(params, name, memory) for name in ("k", "v"))
        return KeyValues(self._normed(params, "k", k), v)

    def apply(
        self,
        params: Any,
        state: KVCache | None,
        x: Array,
        mode: Mode,
        *,
        mask: Array | None = None,
        bias: Array | None = None,
        score_mod: ScoreMod | None = None,
        memory: Array | KeyValues | None = None,
        positions: Array | None = None,
    ) -> tuple[Float[Array, "*batch T {self.d}"], KVCache | None]:
        self._check(params, state, x, memory)
        t = x.shape[-2]
        if positions is None:
            start = jnp.zeros((), jnp.int32) if state is None else state.length
            positions = start + jnp.arange(t, dtype=jnp.int32)
        hidden = mask if state is None else None  # with a cache the mask is about its places, not about those of x
        q = self._normed(params, "q", self._project(params, "q", _cleared(hidden, x, -1)))
        if isinstance(memory, KeyValues):
            k, v = memory
        else:
            k, v = self.remember(params, _cleared(hidden, x if memory is None else memory, -2))
        if isinstance(self.position, Rope):
            q, k = (self.position(params.get("position", {}), a, positions=positions) for a in (q, k))
        offset, keys = None, positions
        if state is not None:
            offset, state = state.length, state.append(k, v)
            k, v, keys = state.k, state.v, jnp.arange(state.k.shape[1], dtype=jnp.int32)
        if isinstance(self.position, Alibi | RelativeBias):
            bias = _with_position(self.position, params.get("position", {}), bias, positions, keys)
        y = functional.attention(
            q,
            k,
            v,
            mask=mask,
            bias=bias,
            causal=self.causal,
            window=self.window,
            offset=offset,
            scale=self.scale,
            score_mod=score_mod,
            rate=self.rate,
            key=mode.rng("dropout") if self.rate > 0 else None,
            implementation=self.implementation,
        )
        y = self.parts()["out"](params["out"], y.reshape(*x.shape[:-1], self.heads * self.size))
        if state is not None:
            y = jnp.where(state.overflowed, jnp.asarray(jnp.nan, y.dtype), y)
        return y, state

    def _project(self, params: Any, name: str, x: Array) -> Array:
        y = self.parts()[name](params[name], x)
        return y.reshape(*y.shape[:-1], -1, self.size)

    def _normed(self, params: Any, name: str, x: Array) -> Array:
        return self.parts()[f"{name}_norm"](params[f"{name}_norm"], x) if self.qk_norm else x

    def _check(self, params: Any, state: Any, x: Array, memory: Any) -> None:
        check_rank(self, x, f"[..., T, {self.d}]", 2, "places attend to each other")
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, params["q"]["w"])
        if (memory is None) != (self.d_memory is None):
            raise ValueError(
                f"{describe(self)} got {'no' if memory is None else 'a'} memory: "
                + ("expected memory=, because d_memory is set" if memory is None else "set d_memory to attend to one")
            )
        if state is not None and (not self.causal or x.ndim != 3):
            raise ValueError(
                f"{describe(self)} got a cache and x of shape {x.shape}: "
                + ("expected x [B, T, d]" if self.causal else "expected state None, it is not causal")
            )


def _cleared(mask: Array | None, x: Array, axis: int) -> Array:
    """`x` `[..., N, d]` with 0 at the keys (axis -2 of the mask) that no query sees, or the queries (-1) that see none.

    Whatever stands there, NaN too: the gradient of the weights has 0 times it.
    """
    if mask is None or mask.ndim not in (2, x.ndim + 1):
        return x
    seen = mask.any(axis) if mask.ndim == 2 else mask.any((-3, axis))
    want = x.shape[:-1]
    if any(n not in (1, w) for n, w in zip(seen.shape[::-1], want[::-1], strict=False)):
        return x  # `attention` says what is wrong with the mask
    return jnp.where(jnp.broadcast_to(seen, want)[..., None], x, jnp.zeros((), x.dtype))


def _with_position(layer: Alibi | RelativeBias, params: Any, bias: Array | None, queries: Array, keys: Array) -> Array:
    if queries.ndim > keys.ndim:  # positions `[B, T]` beside the places of a cache
        keys = jnp.broadcast_to(keys, (*queries.shape[:-1], keys.shape[-1]))
    of_position = layer(params, queries, keys=keys)
    if bias is None:
        return of_position
    bias = bias.reshape((1,) * (of_position.ndim - bias.ndim) + bias.shape)
    return bias.astype(of_position.dtype) + of_position
