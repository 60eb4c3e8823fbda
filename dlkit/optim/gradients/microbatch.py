"""A function of a batch, evaluated piece by piece: peak memory is that of a micro-batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import jax
import jax.numpy as jnp

from dlkit.optim.leaves import widest

__all__ = ["AccumulationType", "Accumulator", "micro_vmap", "microbatch", "reshape_batch_axis"]


class AccumulationType(Enum):
    """How results of micro-batches make the result of the batch: their mean, their sum, or one after the other."""

    MEAN = 1
    SUM = 2
    RUNNING_MEAN = 3
    CONCAT = 4


@dataclass(frozen=True)
class Accumulator:
    """How results of micro-batches are put together, as functions of your own, on arrays.

        carry = init(shape_and_dtype_of_one_result)
        for i in range(n): carry = update(carry, result, i)
        return finalize(carry)

    `aggregate` is used by `micro_vmap`: from the results of the examples in a micro-batch `[size, ...]` to what
    `update` is given.
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], Any]
    finalize: Callable[[Any], Any]
    aggregate: Callable[[Any], Any]


def reshape_batch_axis(tree: Any, microbatch_size: int, axis: int = 0) -> Any:
    """Every leaf with its batch axis as two: `[number, microbatch_size]`. Micro-batch i has the rows i, i + number, ...

    So each micro-batch has its share of every device's rows.

    >>> reshape_batch_axis(jnp.arange(6), 2)
    Array([[0, 3],
           [1, 4],
           [2, 5]], dtype=int32)

    Raises:
      ValueError: `microbatch_size` does not divide the axis.
    """

    def one(leaf: Any) -> Any:
        shape = jnp.shape(leaf)
        if shape[axis] % microbatch_size:
            raise ValueError(f"microbatch: size {microbatch_size} does not divide the {shape[axis]} rows of a batch")
        number = shape[axis] // microbatch_size
        cut = jnp.reshape(leaf, (*shape[:axis], microbatch_size, number, *shape[axis + 1 :]))
        return jnp.swapaxes(cut, axis, axis + 1)

    return jax.tree.map(one, tree)


def _mean_of(kind: AccumulationType, number: Any) -> Accumulator:
    def wide(like: Any) -> Any:
        return widest(like.dtype, jnp.dtype(jnp.float32)) if _narrow(like.dtype) else like.dtype

    def init(like: Any) -> Any:
        return jnp.zeros(like.shape, wide(like)), jnp.zeros((0,), like.dtype)

    def update(carry: Any, value: Any, i: Any) -> Any:
        total, like = carry
        value = value.astype(total.dtype)
        if kind is AccumulationType.RUNNING_MEAN:
            return total + (value - total) / jnp.asarray(i + 1, total.real.dtype), like
        return total + value, like

    def finalize(carry: Any) -> Any:
        total, like = carry
        mean = total / jnp.asarray(number, total.real.dtype) if kind is AccumulationType.MEAN else total
        return mean.astype(like.dtype) if jnp.issubdtype(like.dtype, jnp.inexact) else mean

    def aggregate(values: Any) -> Any:
        return jnp.sum(values, 0) if kind is AccumulationType.SUM else jnp.mean(values, 0).astype(values.dtype)

    return Accumulator(init, update, finalize, aggregate)


def _narrow(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact)


def _concat(number: int) -> Accumulator:
    def init(like: Any) -> Any:
        return jnp.zeros((like.shape[0], number, *like.shape[1:]), like.dtype)

    def update(carry: Any, value: Any, i: Any) -> Any:
        return jax.lax.dynamic_update_index_in_dim(carry, value, i, 1)

    def finalize(carry: Any) -> Any:
        return carry.reshape(-1, *carry.shape[2:])  # rows in the order in which they came

    return Accumulator(init, update, finalize, lambda values: values)


def _accumulator(kind: Any, number: int) -> Accumulator:
    if isinstance(kind, Accumulator):
        return kind
    if not isinstance(kind, AccumulationType):
        raise TypeError(f"microbatch: got accumulator {kind!r}, wanted an AccumulationType or an Accumulator")
    return _concat(number) if kind is AccumulationType.CONCAT else _mean_of(kind, number)


def microbatch(
    fun: Callable[..., Any],
    argnums: int | Sequence[int],
    microbatch_size: int | None,
    accumulator: Any = AccumulationType.SUM,
    *,
    argnames: str | Sequence[str] = (),
    in_axes: int | Sequence[int] = 0,
    num_real_microbatches: Any = None,
) -> Callable[..., Any]:
    """`fun` evaluated on one micro-batch after the other, in one `lax.fori_loop`, and the results put together.

    With `jax.value_and_grad` of a mean loss it is gradient accumulation; `train.fit(accumulate=)` does that with the
    weights of the examples.

    Args:
      fun: any function; what it returns for a micro-batch is a tree of arrays.
      argnums, argnames: the arguments that have a batch axis: trees of arrays.
      microbatch_size: rows at a time, a divisor of the batch; None for all at once.
      accumulator: an `AccumulationType`, an `Accumulator`, or a tree of them that is a prefix of the result. Floating
        sums and means are kept in float32 at least, and rounded once.
      in_axes: the batch axis of each of these arguments.
      num_real_microbatches: stop after so many (a number that may be traced): the others are padding. `RUNNING_MEAN`
        is the mean of these; `MEAN` still divides by the number of all, as in optax; concatenated rows of the others
        are 0.

    Differences. optax: equal; sums are kept in the dtype of the result there.

    >>> mean_loss = lambda w, x: jnp.mean((x @ w) ** 2)
    >>> x, w = jnp.arange(8.0).reshape(4, 2), jnp.ones(2)
    >>> in_parts = microbatch(jax.value_and_grad(mean_loss), 1, 2, AccumulationType.MEAN)
    >>> in_parts(w, x)
    (Array(69., dtype=float32), Array([62., 76.], dtype=float32))
    >>> jax.value_and_grad(mean_loss)(w, x)
    (Array(69., dtype=float32), Array([62., 76.], dtype=float32))

    Raises:
      ValueError: the size does not divide the batch, or the arguments have batches of different sizes.
      TypeError: `accumulator` is none.
    """
    if microbatch_size is None:
        return fun
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    names = (argnames,) if isinstance(argnames, str) else tuple(argnames)
    axes = (in_axes,) * (len(numbers) + len(names)) if isinstance(in_axes, int) else tuple(in_axes)

    def run(*args: Any, **kwargs: Any) -> Any:
        batched = [*(args[i] for i in numbers), *(kwargs[name] for name in names)]
        cut = [reshape_batch_axis(arg, microbatch_size, axis) for arg, axis in zip(batched, axes, strict=True)]
        sizes = {jnp.shape(x)[axis] for arg, axis in zip(cut, axes, strict=True) for x in jax.tree.leaves(arg)}
        if len(sizes) != 1:
            raise ValueError(f"microbatch: the batches have {sorted(sizes)} micro-batches, wanted one number for all")
        number = sizes.pop()
        executed = number if num_real_microbatches is None else num_real_microbatches

        def one(i: Any) -> Any:
            parts = [
                jax.tree.map(lambda x, axis=axis: jax.lax.dynamic_index_in_dim(x, i, axis, keepdims=False), arg)
                for arg, axis in zip(cut, axes, strict=True)
            ]
            own = list(args)
            for at, part in zip(numbers, parts, strict=False):
                own[at] = part
            return fun(*own, **(kwargs | dict(zip(names, parts[len(numbers) :], strict=True))))

        shapes = jax.eval_shape(one, jnp.zeros((), jnp.int32))
        kinds = jax.tree.map(
            lambda kind, below: jax.tree.map(lambda _: _accumulator(kind, number), below), accumulator, shapes
        )
        leaves, structure = jax.tree.flatten(shapes)
        each = jax.tree.leaves(kinds, is_leaf=lambda x: isinstance(x, Accumulator))

        def body(i: Any, carry: Any) -> Any:
            values = jax.tree.leaves(one(i))
            return [a.update(c, v, i) for a, c, v in zip(each, carry, values, strict=True)]

        start = [a.init(leaf) for a, leaf in zip(each, leaves, strict=True)]
        end = jax.lax.fori_loop(0, jnp.asarray(executed, jnp.int32), body, start) if leaves else start
        return jax.tree.unflatten(structure, [a.finalize(c) for a, c in zip(each, end, strict=True)])

    return run


def micro_vmap(
    fun: Callable[..., Any],
    in_axes: int | Sequence[int] = 0,
    out_axes: Any = 0,
    *,
    microbatch_size: int | None = None,
    vmap_fn: Callable[..., Any] = jax.vmap,
    accumulator: Any = AccumulationType.CONCAT,
    num_real_microbatches: Any = None,
) -> Callable[..., Any]:
    """`jax.vmap(fun)` with so many rows at a time, whose results are concatenated, or summed at once.

    Args:
      fun: a function of one example: all its arguments are mapped.
      in_axes: the axis of each argument. out_axes: only 0.
      microbatch_size: rows at a time; None for all.
      vmap_fn: what maps, called as `jax.vmap(fun, in_axes, out_axes)`.
      accumulator, num_real_microbatches: see `microbatch`.

    >>> micro_vmap(lambda x: x**2, microbatch_size=2)(jnp.arange(4))
    Array([0, 1, 4, 9], dtype=int32)
    >>> micro_vmap(lambda x: x**2, microbatch_size=2, accumulator=AccumulationType.SUM)(jnp.arange(4))
    Array(14, dtype=int32)

    Raises:
      ValueError: `out_axes` is not 0; or as `microbatch`.
    """
    if out_axes != 0:
        raise ValueError(f"micro_vmap: out_axes is {out_axes!r}, wanted 0")

    def run(*args: Any) -> Any:
        axes = in_axes if isinstance(in_axes, int) else tuple(in_axes)
        mapped = vmap_fn(fun, axes, 0)
        first = axes if isinstance(axes, int) else axes[0]
        rows = jnp.shape(jax.tree.leaves(args[0])[0])[first]

        def some(*parts: Any) -> Any:
            values = mapped(*parts)
            return jax.tree.map(
                lambda kind, below: jax.tree.map(_accumulator(kind, 1).aggregate, below), accumulator, values
            )

        size = rows if microbatch_size is None else microbatch_size
        numbers = tuple(range(len(args)))
        return microbatch(some, numbers, size, accumulator, in_axes=axes, num_real_microbatches=num_real_microbatches)(
            *args
        )

    return run
