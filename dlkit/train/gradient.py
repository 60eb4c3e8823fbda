"""The gradient of a task on one batch: at once, or micro-batch by micro-batch with the same result."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlkit import tree
from dlkit.metrics import Metric
from dlkit.nn import Mode
from dlkit.optim.leaves import widest
from dlkit.train.freezing import join
from dlkit.train.sums import merge_many
from dlkit.train.task import Task

__all__ = ["Measured", "gradient"]


class Measured(NamedTuple):
    """What one batch gave."""

    grads: Any  # as the trained parameters
    state: Any  # what the model remembers
    sums: dict[str, Any]
    loss: Any  # the mean loss that was differentiated, without its scale


def gradient(
    task: Task,
    trained: Any,
    params: Any,
    state: Any,
    batch: Mapping[str, Any],
    mode: Mode,
    *,
    accumulate: int = 1,
    scale: Any = None,
    differentiate: bool = True,
) -> Measured:
    """The gradient of the mean loss (times `scale`) with respect to the leaves of `trained`, zeros if not wanted.

    With `accumulate=k` the batch is cut into k micro-batches, one in memory at a time: micro-batch i has the rows i,
    i + k, i + 2 k, ..., so that each has its share of the padding and of every device's rows. Each gradient counts by
    the weight of its examples or tokens; the sum is kept in float32 (or wider) and divided once, so the result is that
    of the whole batch. What the model remembers goes through the micro-batches in turn.

    Raises:
      ValueError: the batch cannot be cut into k equal parts.
    """
    if accumulate == 1:
        return _whole(task, trained, params, state, batch, mode, scale, differentiate)
    rows = {path: jnp.shape(leaf)[0] for path, leaf in tree.flatten(dict(batch)).items()}
    for path, n in rows.items():
        if n % accumulate:
            raise ValueError(f"accumulate={accumulate} does not divide the {n} rows of {path}: take a divisor of them")
    plain = replace(task, regularizer=None)

    modes = None if mode.key is None else mode.split(accumulate)

    def body(carry: Any, each: Any) -> Any:
        (state, total, loss, weight), (i, own_mode) = carry, each
        part = jax.tree.map(lambda leaf: _rows(leaf, i, accumulate), dict(batch))
        one = _whole(plain, trained, params, state, part, own_mode or mode, scale, differentiate)
        own = one.sums["loss"]["weight"].high.astype(weight.dtype)
        total = jax.tree.map(lambda a, g: a + own.astype(a.real.dtype) * g.astype(a.dtype), total, one.grads)
        loss = loss + own * one.loss.astype(own.dtype)
        return (_same_types(state, one.state), total, loss, weight + own), one.sums

    zeros = jax.tree.map(lambda p: jnp.zeros_like(p, _wide(jnp.result_type(p))), trained)
    none = jnp.zeros((), jnp.result_type(float))
    start = (state, zeros, none, none)
    (state, total, loss, weight), pieces = jax.lax.scan(body, start, (jnp.arange(accumulate, dtype=jnp.int32), modes))
    counted = jnp.where(weight == 0, 1, weight)
    grads = jax.tree.map(lambda a, p: (a / counted.astype(a.real.dtype)).astype(jnp.result_type(p)), total, trained)
    sums = _merged(task.table(), pieces, accumulate)
    loss = loss / counted
    if task.regularizer is not None:  # once, not k times
        grads, sums["penalty"] = _penalized(task, trained, params, grads, scale)
        loss = loss + sums["penalty"].astype(loss.dtype)
    return Measured(grads, state, sums, loss)


def _whole(
    task: Task, trained: Any, params: Any, state: Any, batch: Any, mode: Mode, scale: Any, differentiate: bool
) -> Measured:
    def loss(leaves: Any) -> Any:
        value, aux = task.loss_and_sums(join(leaves, params), state, batch, mode)
        return (value if scale is None else value * scale.astype(value.dtype)), (value, aux)

    if differentiate:
        (_, (value, (state, _, sums))), grads = jax.value_and_grad(loss, has_aux=True)(trained)
    else:
        _, (value, (state, _, sums)) = loss(trained)
        grads = jax.tree.map(jnp.zeros_like, trained)
    return Measured(grads, state, sums, value)


def _penalized(task: Task, trained: Any, params: Any, grads: Any, scale: Any) -> tuple[Any, Any]:
    def penalty(leaves: Any) -> Any:
        value = jnp.asarray(task.regularizer(join(leaves, params)))  # pyright: ignore[reportOptionalCall]
        return (value if scale is None else value * scale.astype(value.dtype)), value

    more, value = jax.grad(penalty, has_aux=True)(trained)
    return jax.tree.map(jnp.add, grads, more), value


def _rows(leaf: Any, i: Any, k: int) -> Any:
    """Rows i, i + k, i + 2 k, ...: no copy of the whole batch is made."""
    leaf = jnp.asarray(leaf)
    cut = leaf.reshape(leaf.shape[0] // k, k, *leaf.shape[1:])
    return jax.lax.dynamic_index_in_dim(cut, i, 1, keepdims=False)


def _wide(dtype: Any) -> Any:
    return widest(dtype, jnp.dtype(jnp.float32))


def _same_types(old: Any, new: Any) -> Any:
    changed = tree.diff(*(jax.tree.map(_shape, t) for t in (old, new)))
    if changed:
        raise ValueError(f"a model must return a state like the one it got, but this one changed it:\n{changed}")
    return jax.tree.map(lambda o, n: jax.lax.convert_element_type(n, jnp.result_type(o)), old, new)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def _merged(table: Mapping[str, Metric], pieces: Mapping[str, Any], k: int) -> dict[str, Any]:
    """The sums of all micro-batches as those of one batch."""
    fixed = {name: pieces[name] for name, metric in table.items() if metric.fixed_size}
    growing = {name: metric for name, metric in table.items() if not metric.fixed_size}

    def add(sums: Any, more: Any) -> Any:
        merged = {name: table[name].merge(sums[name], more[name]) for name in sums}
        return jax.tree.map(lambda new, both: jnp.asarray(both, jnp.result_type(new)), more, merged), None

    first, rest = (jax.tree.map(lambda leaf, at=at: leaf[at], fixed) for at in (0, slice(1, None)))
    sums, _ = jax.lax.scan(add, first, rest)
    several = [{name: jax.tree.map(lambda leaf, i=i: leaf[i], pieces[name]) for name in growing} for i in range(k)]
    return {**sums, **(merge_many(growing, several) if growing else {})}
