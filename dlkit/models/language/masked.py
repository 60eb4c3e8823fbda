"""Masked language modelling: some tokens are hidden, and guessed from what stands around them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from dlkit import nn
from dlkit.nn import Mode

__all__ = ["MaskedLM", "MaskedOutputs", "choose_masked"]


class MaskedOutputs(NamedTuple):
    """What a `MaskedLM` gives: `logits` `[B, T, vocab]`, and which tokens were hidden, `masked` `[B, T]`."""

    logits: Array
    masked: Array


def choose_masked(key: Any, rows: int, length: int, share: float) -> Bool[Array, "rows length"]:
    """The same number of places in each row, `share` of the length (at least one), drawn without repetition.

    >>> choose_masked(jax.random.key(0), 3, 20, 0.15).sum(1)
    Array([3, 3, 3], dtype=int32)
    """
    count = max(1, round(share * length))
    noise = jax.random.uniform(key, (rows, length))
    return jnp.argsort(jnp.argsort(noise, axis=1), axis=1) < count


@dataclass(frozen=True)
class MaskedLM(nn.Layer[Any, Any]):
    """BERT's task: the pair (ids `[B, T]`, places `[B, T]`, booleans) to `MaskedOutputs`.

    In training the places are drawn anew at each step, `share` of the tokens; of them 80 % become `token`, 10 % a token
    at random, 10 % stay, as in the paper. In evaluation they are those that are given, and all become `token`, so that
    what is measured does not depend on a draw. `body` maps ids to logits; the parameters are its own.

    >>> from dlkit import models
    >>> model = MaskedLM(models.bert(vocab=12, length=8, d=16, heads=2, depth=1), token=11)
    >>> x = (jnp.arange(8)[None], jnp.arange(8)[None] == 3)
    >>> out = model.apply(model.init(jax.random.key(0)), None, x, nn.EVAL)[0]
    >>> out.logits.shape, int(out.masked.sum())
    ((1, 8, 12), 1)

    Reference: Devlin et al., BERT, 2018, arXiv:1810.04805.
    """

    body: nn.Layer
    token: int
    share: float = 0.15

    def children(self) -> dict[str, nn.Layer]:
        return {"": self.body}

    def init(self, key: Any) -> Any:
        return self.body.init(key)

    def init_state(self) -> Any:
        return self.body.init_state()

    def apply(self, params: Any, state: Any, x: Any, mode: Mode) -> tuple[MaskedOutputs, Any]:
        ids, masked = x
        hidden = jnp.where(masked, jnp.asarray(self.token, ids.dtype), ids)
        if mode.train:
            places, kinds, others = jax.random.split(mode.rng("masked"), 3)
            masked = choose_masked(places, ids.shape[0], ids.shape[1], self.share)
            kind = jax.random.uniform(kinds, ids.shape)
            other = jax.random.randint(others, ids.shape, 0, self.token, ids.dtype)
            shown = jnp.where(kind < 0.8, jnp.asarray(self.token, ids.dtype), jnp.where(kind < 0.9, other, ids))
            hidden = jnp.where(masked, shown, ids)
        logits, state = self.body.apply(params, state, hidden, mode)
        return MaskedOutputs(logits, masked), state
