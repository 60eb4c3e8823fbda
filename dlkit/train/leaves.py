"""Trees as bytes and back: safetensors for the numbers, a small description of each leaf for what they were."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from dlkit import tree
from dlkit.train.files import CheckpointError

__all__ = ["decode", "encode", "into"]

_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "C64": "complex64",
}  # fmt: skip
_LIMIT = 10  # lines of a message


def is_key(leaf: Any) -> bool:
    """Whether a leaf, or the description of one, is a typed PRNG key."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def encode(of: Any) -> tuple[bytes, dict[str, dict[str, Any]]]:
    """The leaves of a tree as one safetensors file, and their descriptions by path.

    Arrays that are spread over devices are gathered: the file holds whole, unsharded values.

    Raises:
      CheckpointError: two leaves of one path, a leaf of a dtype that safetensors has not, or one that is no array.
    """
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, dict[str, Any]] = {}
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(of):
        path = tree.path_str(key_path)
        if path in arrays:
            raise CheckpointError(f"two leaves have the path {path!r}: a key that holds '/' looks like two")
        entry: dict[str, Any] = {}
        if is_key(leaf):
            entry["key"] = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        value = np.asarray(jax.device_get(leaf))
        if value.dtype.name not in _TYPES.values():
            raise CheckpointError(
                f"{path}: leaves of type {type(leaf).__name__} and dtype {value.dtype} cannot be saved"
            )
        value = np.ascontiguousarray(value).reshape(value.shape)  # ascontiguousarray makes [] into [1]
        arrays[path] = value.astype(value.dtype.newbyteorder("<"), copy=False)
        about[path] = {"dtype": value.dtype.name, "shape": list(value.shape), **entry}
    return safetensors.numpy.save(arrays), about


def decode(content: bytes, about: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by path, as their descriptions say.

    Raises:
      CheckpointError: file and descriptions do not belong together.
    """
    try:
        parts = {name: part for name, part in safetensors.deserialize(content)}  # noqa: C416
    except (safetensors.SafetensorError, UnicodeDecodeError) as error:
        raise CheckpointError(f"the tensors cannot be read: {error}") from None
    if parts.keys() != about.keys():
        raise CheckpointError("the tensors are others than the manifest says")
    arrays = {}
    for path, entry in about.items():
        dtype, shape = _TYPES.get(parts[path]["dtype"]), list(parts[path]["shape"])
        if dtype != entry["dtype"] or shape != entry["shape"]:
            raise CheckpointError(f"{path} is {dtype}{shape}, but the manifest says {entry['dtype']}{entry['shape']}")
        arrays[path] = np.frombuffer(parts[path]["data"], jnp.dtype(dtype)).reshape(shape)
    return arrays


def into(
    template: Any,
    arrays: Mapping[str, np.ndarray],
    about: Mapping[str, Mapping[str, Any]],
    *,
    ignore: Sequence[str] = (),
    any_shape: Sequence[str] = (),
    where: str = "the checkpoint",
) -> Any:
    """A tree like `template`, with the values of `arrays`: its containers, dtypes, weak types and shardings.

    Args:
      template: arrays, or descriptions of them (`jax.ShapeDtypeStruct`).
      ignore: globs of saved paths that the template may lack.
      any_shape: globs of the template's paths that take the shape that was saved.

    Raises:
      CheckpointError: a leaf is missing, unexpected, or of another shape or dtype; at most 15 lines.
    """
    free = tree.flatten(tree.match(template, any_shape, required=False))
    dropped = tree.match(dict.fromkeys(about, 0), ignore, required=False)
    want: dict[str, Any] = {}
    have: dict[str, Any] = {}
    leaves = jax.tree_util.tree_leaves_with_path(template)
    for key_path, leaf in leaves:
        path = tree.path_str(key_path)
        shape = tuple(about[path]["shape"]) if free[path] and path in about else _plain(leaf).shape
        want[path] = jax.ShapeDtypeStruct(shape, _plain(leaf).dtype)
    for path, entry in about.items():
        if path in want or not dropped[path]:
            have[path] = jax.ShapeDtypeStruct(tuple(entry["shape"]), jnp.dtype(entry["dtype"]))
    different = tree.diff(want, have, limit=_LIMIT)
    keys = [
        tree.path_str(p)
        for p, leaf in leaves
        if tree.path_str(p) in about and is_key(leaf) != ("key" in about[tree.path_str(p)])
    ]
    if different or keys:
        lines = different or f"{keys[0]}: a typed PRNG key on one side, plain numbers on the other"
        raise CheckpointError(
            f"{where} does not fit the template (expected: the template's, got: what was saved):\n{lines}\n"
            f"Restore it with the definition it was saved with, or start a new run"
        )
    made = [_leaf(leaf, arrays[tree.path_str(p)], about[tree.path_str(p)]) for p, leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(template), made)


def _plain(leaf: Any) -> Any:
    """Shape and dtype of a leaf as saved: a key is its numbers."""
    if is_key(leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.eval_shape(jax.random.key_data, leaf)
        leaf = jax.random.key_data(leaf)
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return leaf
    return np.asarray(leaf)


def _leaf(like: Any, value: np.ndarray, entry: Mapping[str, Any]) -> Any:
    if isinstance(like, bool | int | float | complex):
        return type(like)(value.item())
    if isinstance(like, np.ndarray | np.generic):
        return np.array(value) if isinstance(like, np.ndarray) else value[()]
    sharding = getattr(like, "sharding", None)
    committed = isinstance(like, jax.ShapeDtypeStruct) or getattr(like, "committed", False)
    if "key" in entry:
        made: Any = jax.random.wrap_key_data(jnp.array(value, copy=True), impl=entry["key"])
    elif getattr(like, "weak_type", False) and value.ndim == 0:
        made = jnp.asarray(value.item())  # of an array with axes the public functions make no weak type
    else:
        made = jnp.array(value, copy=True)  # the file's bytes are not ours to donate
    return jax.device_put(made, sharding) if sharding is not None and committed else made
