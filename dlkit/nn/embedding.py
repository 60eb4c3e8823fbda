"""The embedding layer: integers become vectors."""

from dataclasses import dataclass
from typing import Any, TypedDict

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_axis, check_float, describe
from dlkit.nn.initializers import Initializer, VarianceScaling
from dlkit.nn.layer import Pure
from dlkit.nn.mode import fold_name
from dlkit.nn.scope import in_scope

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
    >>> y = layer(params, jnp.array([[3, 14], [15, 92]]))
    >>> y.shape, layer.attend(params, y).shape
    ((2, 2, 16), (2, 2, 100))

    `attend` uses the same table as the output layer: a language model with one `Embedding`, looked up at the start and
    attended to at the end, has tied weights. The matrix is once in the parameters, and its gradient is the sum of both
    uses (Press and Wolf, Using the output embedding to improve language models, 2017, arXiv:1608.05859).

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

    @in_scope
    def attend(self, params: EmbeddingParams, x: Array) -> Float[Array, "*lead {self.vocab}"]:
        """`y = x table^T`: how well `[..., d]` fits each row of the table, logits `[..., vocab]`; flax has this name.

        Raises:
          ValueError: the last axis of x is not `d`.
          TypeError: x is not floating point, or not of the table's dtype.
        """
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, params["table"])
        return functional.linear(x, params["table"].T)
