"""Text from a causal model: the prompt in one pass, then token by token in one compiled loop, with a cache."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from dlkit.models.language.sampling import GREEDY, Sampler
from dlkit.nn import EVAL

__all__ = ["generate", "stream"]


class _Going(NamedTuple):
    """Where generation stands: after `at` new tokens."""

    at: Array
    cache: Any
    token: Array  # [B], the last one
    ended: Array  # [B]
    shift: Array | None  # [B], places of the cache in front of a short prompt


def generate(
    model: Any,
    params: Any,
    prompt: Int[Array, "B T"],
    steps: int,
    *,
    key: Any = None,
    sampler: Sampler = GREEDY,
    end: int | None = None,
    lengths: Int[Array, "B"] | None = None,
) -> Int[Array, "B {steps}"]:
    """`steps` new tokens after each prompt: ids `[B, T]` to ids `[B, steps]`, without the prompt.

    The whole is one compiled program: the prompt in one pass, then a `lax.while_loop` of one token a turn, which stops
    early where every row has ended. It is compiled once for each shape of the prompt, `steps` and `sampler`.

    Args:
      model: a causal model with `apply(params, state, ids, mode) -> logits, state` and `init_cache`: `models.gpt`,
        `models.llama`, a chain of `Embedding`, `LSTM` and `Linear`.
      key: what is drawn as new token i of all rows depends on `fold_in(key, i)`; not needed where `sampler` is greedy.
      end: the token that ends a row; what follows it is `end` too.
      lengths: of prompts of different lengths, padded at the end: what a row gives does not depend on the padding or
        on the others. Needs a model whose `apply` takes `mask` and `positions`, such as `Decoder`.

    >>> from dlkit import models
    >>> model = models.gpt(vocab=11, length=16, d=16, heads=2, depth=2)
    >>> params = model.init(jax.random.key(0))
    >>> generate(model, params, jnp.array([[1, 2, 3]]), 5, key=jax.random.key(1), sampler=Sampler(top_k=3)).shape
    (1, 5)

    Raises:
      ValueError: an empty prompt, steps below 1, no key where one is needed, lengths outside 1 .. T, more tokens than
        the model has positions for.
    """
    check_request(model, prompt, steps, key, sampler, lengths)
    return _generate(model, sampler, steps, end, params, prompt, key, lengths)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _generate(
    model: Any, sampler: Sampler, steps: int, end: int | None, params: Any, prompt: Array, key: Any, lengths: Any
) -> Array:
    room = prompt.shape[1] + steps
    going = _begin(model, sampler, room, end, params, prompt, key, lengths)
    tokens = jnp.full((prompt.shape[0], steps), 0 if end is None else end, jnp.int32)
    tokens = tokens.at[:, 0].set(going.token)

    def more(carry: tuple[_Going, Array]) -> Array:
        return (carry[0].at < steps) & ~carry[0].ended.all()

    def turn(carry: tuple[_Going, Array]) -> tuple[_Going, Array]:
        going, tokens = carry
        after = _next(model, sampler, room, end, params, going, key)
        return after, tokens.at[:, going.at].set(after.token)

    return lax.while_loop(more, turn, (going, tokens))[1]


def stream(
    model: Any,
    params: Any,
    prompt: Int[Array, "B T"],
    steps: int,
    *,
    key: Any = None,
    sampler: Sampler = GREEDY,
    end: int | None = None,
    lengths: Int[Array, "B"] | None = None,
) -> Iterator[Int[Array, "B"]]:
    """The tokens of `generate`, the same ones, as they are made: `[B]` at a time. Two programs are compiled.

    >>> from dlkit import models
    >>> model = models.gpt(vocab=11, length=16, d=16, heads=2, depth=2)
    >>> params, prompt = model.init(jax.random.key(0)), jnp.array([[1, 2, 3]])
    >>> [int(token[0]) for token in stream(model, params, prompt, 4)] == generate(model, params, prompt, 4)[0].tolist()
    True
    """
    check_request(model, prompt, steps, key, sampler, lengths)
    room = prompt.shape[1] + steps
    going = _begin_alone(model, sampler, room, end, params, prompt, key, lengths)
    yield going.token
    for _ in range(steps - 1):
        if end is not None and bool(going.ended.all()):
            return
        going = _next_alone(model, sampler, room, end, params, going.cache, going._replace(cache=None), key)
        yield going.token


def _begin(
    model: Any, sampler: Sampler, room: int, end: int | None, params: Any, prompt: Array, key: Any, lengths: Any
) -> _Going:
    batch, t = prompt.shape
    cache = model.init_cache(batch, room, cache_dtype(params))
    shift, given = None, {}
    if lengths is not None:
        # Short prompts are moved to the right, so that all rows end at one place and go on from there.
        shift = (t - lengths).astype(jnp.int32)
        places = jnp.arange(t, dtype=jnp.int32)[None] - shift[:, None]
        prompt = jnp.take_along_axis(prompt, jnp.maximum(places, 0), axis=1)
        given = {"mask": _seen(shift, room), "positions": jnp.maximum(places, 0)}
    logits, cache = model.apply(params, cache, prompt, EVAL, **given)
    token = sampler(None if key is None else jax.random.fold_in(key, 0), logits[:, -1])
    ended = jnp.zeros(batch, jnp.bool_) if end is None else token == end
    return _Going(jnp.ones((), jnp.int32), cache, token, ended, shift)


def _next(model: Any, sampler: Sampler, room: int, end: int | None, params: Any, going: _Going, key: Any) -> _Going:
    given = {}
    if going.shift is not None:
        seen = _length(going.cache)
        given = {"mask": _seen(going.shift, room), "positions": (seen - going.shift)[:, None]}
    logits, cache = model.apply(params, going.cache, going.token[:, None], EVAL, **given)
    token = sampler(None if key is None else jax.random.fold_in(key, going.at), logits[:, -1])
    ended = going.ended
    if end is not None:
        token = jnp.where(ended, jnp.asarray(end, jnp.int32), token)
        ended = ended | (token == end)
    return _Going(going.at + 1, cache, token, ended, going.shift)


_begin_alone = jax.jit(_begin, static_argnums=(0, 1, 2, 3))


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=5)  # the cache alone: the tokens are the caller's
def _next_alone(
    model: Any, sampler: Sampler, room: int, end: int | None, params: Any, cache: Any, going: _Going, key: Any
) -> _Going:
    return _next(model, sampler, room, end, params, going._replace(cache=cache), key)


def _seen(shift: Array, room: int) -> Array:
    return (jnp.arange(room, dtype=jnp.int32)[None] >= shift[:, None])[:, None, None]


def _length(cache: Any) -> Array:
    """How many tokens a cache holds."""
    found = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(cache)
        if getattr(path[-1], "name", getattr(path[-1], "key", "")) == "length"
    ]
    return found[0].ravel()[0]


def cache_dtype(params: Any) -> Any:
    return next((a.dtype for a in jax.tree.leaves(params) if jnp.issubdtype(a.dtype, jnp.floating)), jnp.float32)


def check_request(model: Any, prompt: Array, steps: int, key: Any, sampler: Sampler, lengths: Any) -> None:
    if prompt.ndim != 2 or prompt.shape[1] < 1 or steps < 1:
        raise ValueError(
            f"generate got a prompt of shape {prompt.shape} and steps={steps}: expected [B, T] with T of at least 1, "
            f"and at least one step"
        )
    if sampler.temperature > 0 and key is None:
        raise ValueError(f"{sampler} draws at random: give a key, key=jax.random.key(0), or temperature=0")
    limit = getattr(getattr(model, "positions", None), "length", None)
    if limit is not None and prompt.shape[1] + steps - 1 > limit:
        raise ValueError(
            f"generate got a prompt of {prompt.shape[1]} tokens and steps={steps}: the model has positions for {limit}"
        )
    if lengths is not None and (
        lengths.shape != prompt.shape[:1] or int(lengths.min()) < 1 or int(lengths.max()) > prompt.shape[1]
    ):
        raise ValueError(f"generate got lengths {lengths} for a prompt of shape {prompt.shape}: expected 1 .. T a row")
