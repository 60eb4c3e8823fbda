"""Which token comes next: the rules that reshape the distribution, and the draw."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = ["GREEDY", "Sampler"]


@dataclass(frozen=True)
class Sampler:
    """How the next token is drawn from logits, applied in this order, that of transformers:

    - `temperature` T divides the logits; 0 takes the most likely token;
    - `top_k` keeps the k most likely tokens (ties with the last one too);
    - `top_p` keeps the fewest tokens, most likely first, whose probabilities sum to at least p;
    - `min_p` keeps the tokens of at least `min_p` times the highest probability.

    What is not kept gets -inf. At least one token is always kept.

    >>> jnp.exp(Sampler(top_k=2).filtered(jnp.log(jnp.array([0.5, 0.25, 0.125])))).round(3)
    Array([0.5 , 0.25, 0.  ], dtype=float32)

    Raises:
      ValueError: a negative temperature, top_k below 1, top_p outside (0, 1], min_p outside [0, 1].

    References: Fan et al., 2018, arXiv:1805.04833 (top-k); Holtzman et al., 2019, arXiv:1904.09751 (top-p); Nguyen et
    al., 2024, arXiv:2407.01082 (min-p).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"{self}: expected a temperature of 0 or more")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"{self}: expected top_k of 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"{self}: expected top_p in (0, 1]")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"{self}: expected min_p in [0, 1]")

    def filtered(self, logits: Float[Array, "*batch vocab"]) -> Float[Array, "*batch vocab"]:
        """The logits, in float32, divided by the temperature and with -inf where a token is not kept."""
        logits = logits.astype(jnp.float32)
        if self.temperature > 0:
            logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits = _keep(logits, logits >= jax.lax.top_k(logits, self.top_k)[0][..., -1:])
        if self.top_p is not None and self.top_p < 1:
            order = jnp.argsort(-logits, axis=-1)
            p = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1)
            before = jnp.cumsum(p, axis=-1) - p  # the first is always kept: nothing is before it
            kept = jnp.take_along_axis(before < self.top_p, jnp.argsort(order, axis=-1), axis=-1)
            logits = _keep(logits, kept)
        if self.min_p:
            p = jax.nn.softmax(logits, axis=-1)
            logits = _keep(logits, p >= self.min_p * p.max(axis=-1, keepdims=True))
        return logits

    def __call__(self, key: Any, logits: Float[Array, "*batch vocab"]) -> Int[Array, "*batch"]:
        """One token a row; with temperature 0 the key is not used, and may be None.

        Raises:
          ValueError: no key where one is needed.
        """
        if self.temperature == 0:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        if key is None:
            raise ValueError(f"{self} draws at random: give it a key, jax.random.key(0), or temperature=0")
        return jax.random.categorical(key, self.filtered(logits), axis=-1).astype(jnp.int32)


def _keep(logits: Array, kept: Array) -> Array:
    return jnp.where(kept, logits, -jnp.inf)


GREEDY = Sampler(temperature=0.0)
"""The most likely token, always."""
