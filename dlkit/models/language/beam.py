"""Beam search: the most likely continuation, looked for along several paths."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from dlkit.models.language.generate import cache_dtype, check_request
from dlkit.models.language.sampling import GREEDY
from dlkit.nn import EVAL

__all__ = ["beam_search"]


def beam_search(
    model: Any,
    params: Any,
    prompt: Int[Array, "B T"],
    steps: int,
    *,
    beams: int = 4,
    end: int | None = None,
    length_penalty: float = 0.0,
) -> tuple[Int[Array, "B {beams} {steps}"], Float[Array, "B {beams}"]]:
    """The `beams` best continuations of each prompt and their scores, best first: ids `[B, K, steps]`, scores `[B, K]`.

    At each step every beam is continued by every token, and the K best of all are kept. A score is the sum of the
    log-probabilities of the new tokens, `end` included, divided by n^length_penalty where the beam has n of them; the
    search itself compares sums. A beam that has ended keeps its score and its place while it is among the best.
    One compiled program, a scan over the steps. Where the K beams can hold all continuations the result is exact.

    >>> from dlkit import models
    >>> model = models.gpt(vocab=11, length=16, d=16, heads=2, depth=2)
    >>> tokens, scores = beam_search(model, model.init(jax.random.key(0)), jnp.array([[1, 2, 3]]), 5, beams=3)
    >>> tokens.shape, bool((scores[0, :-1] >= scores[0, 1:]).all())
    ((1, 3, 5), True)

    Raises:
      ValueError: fewer than one beam; an empty prompt, steps below 1, more tokens than the model has positions for.
    """
    check_request(model, prompt, steps, None, GREEDY, None)
    if beams < 1:
        raise ValueError(f"beam_search got beams={beams}: expected at least one")
    return _search(model, steps, beams, end, float(length_penalty), params, prompt)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _search(
    model: Any, steps: int, beams: int, end: int | None, length_penalty: float, params: Any, prompt: Array
) -> tuple[Array, Array]:
    batch, t = prompt.shape
    room, dtype = t + steps, cache_dtype(params)
    axes = _batch_axes(model, room, dtype)
    logits, cache = model.apply(params, model.init_cache(batch, room, dtype), prompt, EVAL)
    cache = jax.tree.map(lambda a, axis: a if axis < 0 else jnp.repeat(a, beams, axis=axis), cache, axes)
    last = jnp.repeat(logits[:, -1], beams, axis=0)
    # All beams of a prompt begin alike: only the first may be continued.
    scores = jnp.full((batch, beams), -jnp.inf, jnp.float32).at[:, 0].set(0.0)
    tokens = jnp.full((batch, beams, steps), 0 if end is None else end, jnp.int32)
    ended = jnp.zeros((batch, beams), jnp.bool_)
    count = jnp.zeros((batch, beams), jnp.int32)
    first = (cache, last, scores, tokens, ended, count)

    def choose(carry: Any, i: Array) -> Any:
        cache, last, scores, tokens, ended, count = carry
        logp = jax.nn.log_softmax(last.astype(jnp.float32), axis=-1).reshape(batch, beams, -1)
        vocab = logp.shape[-1]
        if end is not None:  # one way to go on, at no cost
            stay = jnp.where(jnp.arange(vocab) == end, 0.0, -jnp.inf).reshape(1, 1, vocab)
            logp = jnp.where(ended[..., None], stay, logp)
        scores, best = lax.top_k((scores[..., None] + logp).reshape(batch, beams * vocab), beams)
        parent, token = best // vocab, (best % vocab).astype(jnp.int32)
        tokens, ended, count = (
            jnp.take_along_axis(a, parent.reshape(parent.shape + (1,) * (a.ndim - 2)), axis=1)
            for a in (tokens, ended, count)
        )
        tokens = tokens.at[:, :, i].set(token)
        count = count + jnp.where(ended, 0, 1).astype(jnp.int32)
        if end is not None:
            ended = ended | (token == end)
        rows = (jnp.arange(batch)[:, None] * beams + parent).ravel()
        cache = jax.tree.map(lambda a, axis: a if axis < 0 else jnp.take(a, rows, axis=axis), cache, axes)
        return cache, token.reshape(-1, 1), scores, tokens, ended, count

    def step(carry: Any, i: Array) -> tuple[Any, None]:
        cache, token, *rest = choose(carry, i)
        logits, cache = model.apply(params, cache, token, EVAL)
        return (cache, logits[:, -1], *rest), None

    carry, _ = lax.scan(step, first, jnp.arange(steps - 1, dtype=jnp.int32))
    _, _, scores, tokens, _, count = choose(carry, jnp.asarray(steps - 1, jnp.int32))
    scores = scores / jnp.maximum(count, 1).astype(jnp.float32) ** length_penalty
    order = jnp.argsort(-scores, axis=1)
    return jnp.take_along_axis(tokens, order[..., None], axis=1), jnp.take_along_axis(scores, order, axis=1)


def _batch_axes(model: Any, room: int, dtype: Any) -> Any:
    """The axis of each leaf of a cache that counts the rows, -1 where there is none."""
    one, two = (jax.eval_shape(lambda n=n: model.init_cache(n, room, dtype)) for n in (1, 2))

    def axis(a: Any, b: Any) -> int:
        return next((i for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if m != n), -1)

    return jax.tree.map(axis, one, two)
