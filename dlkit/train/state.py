"""The state of a training run: everything that the next step depends on, in one pytree."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.nn import Layer, fold_name
from dlkit.train.freezing import trainable

__all__ = ["TrainState", "create_state", "own"]


class TrainState(NamedTuple):
    """What a step takes and returns."""

    step: Int[Array, ""]  # int32: updates done so far
    params: Any  # learned
    state: Any  # what the model remembers
    opt_state: Any  # what the optimizer remembers
    key: Any  # of the run; the key of step t is fold_in(key, t)


def create_state(model: Layer[Any, Any], optimizer: Any, key: Array, *, freeze: str | Sequence[str] = ()) -> TrainState:
    """The state before the first step.

    The parameters are `model.init(fold_name(key, "init"))` and the run's key is `fold_name(key, "run")`, so the draws
    of a step never depend on how many draws the initialization made. Every leaf is a buffer of its own and has a
    strong type, so the state can be donated, and the step is traced once.

    With `freeze`, globs over the paths of the parameters, the optimizer has no slots for what they match.

    Raises:
      ValueError: a glob of `freeze` matches nothing.

    >>> from dlkit import nn, optim
    >>> state = create_state(nn.Linear(3, 2), optim.adam(1e-3), jax.random.key(0))
    >>> state.step, state.params["w"].shape
    (Array(0, dtype=int32), (3, 2))
    """
    params = model.init(fold_name(key, "init"))
    held = model.init_state()
    slots = optimizer.init(trainable(params, held, (freeze,) if isinstance(freeze, str) else tuple(freeze)))
    return own(TrainState(jnp.zeros((), jnp.int32), params, held, slots, fold_name(key, "run")))


def own(tree: Any, *, copy: bool = False) -> Any:
    """The same tree, each leaf a strongly typed array with a buffer of its own (all of them new with `copy=True`).

    An average that starts from the parameters shares their buffers, and a buffer can be donated only once.
    """
    seen: set[int] = set()

    def one(leaf: Any) -> Any:
        array = jnp.asarray(leaf)
        if not jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.lax.convert_element_type(array, array.dtype)  # strips a weak type
        where = _buffer(array)
        if copy or where in seen or (isinstance(leaf, jax.Array) and array is not leaf):
            array = jnp.copy(array)
            where = _buffer(array)
        elif not isinstance(leaf, jax.Array):
            array = jnp.array(leaf, copy=True)  # a numpy array may lend its memory, which is not ours to donate
            where = _buffer(array)
        seen.add(where)
        return array

    return jax.tree.map(one, tree)


def _buffer(array: Any) -> int:
    """Where the array's data is (that of its first shard); its identity where that is not said."""
    try:
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        return array.addressable_shards[0].data.unsafe_buffer_pointer()
    except Exception:  # tracers, and backends that have no pointers
        return id(array)
