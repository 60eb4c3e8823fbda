"""The embedding layer: integers become vectors."""

from dataclasses import dataclass
from typing import Any, TypedDict

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import describe
from dlkit.nn.initializers import Initializer, VarianceScaling
from dlkit.nn.layer import Pure
from dlkit.nn.mode import fold_name

__all__ = ["Embedding", "EmbeddingParams"]


class EmbeddingParams(TypedDict):
    table: Float[Array, "vocab d"]


@dataclass(frozen=True)
class Embedding(Pure[EmbeddingParams]):
    """`y = table[x]`: integers x `[...]` in `0 .. vocab - 1`, y `[..., d]`.

    An id outside that range, a negative one too, gives a row of NaN and no gradient, so that it is seen in the loss;
    torch raises, which compiled code cannot.

    Parameter: `table` `[vocab, d]`. It starts as N(0, 1/d), as in flax: rows of length 1, and logits of variance 1
    where the table also serves as the output layer, `x table^T`. So the fans given to `table_init` are those of that
    layer, fan_in = d and fan_out = vocab. torch starts from N(0, 1) (`init_preset`), Keras from U(-0.05, 0.05).

    >>> layer = Embedding(100, 16)
    >>> params = layer.init(jax.random.key(0))
    >>> layer(params, jnp.array([[3, 14], [15, 92]])).shape
    (2, 2, 16)

    Raises:
      TypeError: x is not of an integer dtype.
    """

    vocab: int
    d: int
    table_init: Initializer = VarianceScaling(1.0, "fan_in", "normal")

    def init(self, key: Any) -> EmbeddingParams:
        fans = (self.d, self.vocab)
        return {"table": self.table_init(fold_name(key, "table"), (self.vocab, self.d), fans=fans)}

    def __call__(self, params: EmbeddingParams, x: Array) -> Float[Array, "*lead {self.d}"]:
        dtype = jnp.result_type(x)
        if not jnp.issubdtype(dtype, jnp.integer):
            raise TypeError(
                f"{describe(self)} got x of dtype {dtype} and shape {jnp.shape(x)}: expected integers because they "
                f"are row numbers of the table; write x.astype(jnp.int32)"
            )
        return functional.embedding(params["table"], x)
