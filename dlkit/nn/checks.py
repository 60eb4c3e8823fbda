"""Errors before XLA sees anything: which layer, which parameter, what was expected and why, what was given."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.functional import Graph

__all__ = [
    "check_array",
    "check_axis",
    "check_float",
    "check_multiple",
    "check_params",
    "check_rank",
    "check_rate",
    "check_space",
    "check_state",
    "describe",
    "note_where",
]


def describe(layer: Any) -> str:
    """The layer's class and its own numbers, without its children and initializers."""
    shown = []
    for field in dataclasses.fields(layer) if dataclasses.is_dataclass(layer) else ():
        value = getattr(layer, field.name)
        plain = isinstance(value, int | float | str | bool) or (
            isinstance(value, tuple) and all(isinstance(v, int | float | tuple) for v in value)
        )
        if plain and value != field.default:
            shown.append(f"{field.name}={value!r}")
    return f"{type(layer).__name__}({', '.join(shown)})"


def shape_of(x: Any) -> str:
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype}[{','.join(str(n) for n in x.shape)}]"
    leaves = tree.flatten(x)
    if not leaves or "" in leaves:
        return "None" if x is None else type(x).__name__
    return ", ".join(f"{path}: {shape_of(leaf)}" for path, leaf in leaves.items())


def check_array(layer: Any, x: Any, *, name: str = "x") -> None:
    """Raise a TypeError where `x` is None, a list or a tree of arrays, such as a graph, in place of one array."""
    array = hasattr(x, "shape") and hasattr(x, "dtype")
    if array or hasattr(x, "__jax_array__") or isinstance(x, bool | int | float | complex):
        return
    fields = getattr(x, "_fields", None) or (x if isinstance(x, dict) else ())
    of = f" of {', '.join(map(str, fields))}" if fields else ""
    fix = "take one of its arrays"
    if isinstance(x, Graph):
        fix = "apply it to the nodes, nn.OnNodes(layer)"
    elif not isinstance(x, tuple | dict):
        fix = f"give it {name}" if x is None else "make one with jnp.asarray"
    raise TypeError(f"{describe(layer)} got {name} of type {type(x).__name__}{of}: expected an array; {fix}")


def check_axis(layer: Any, x: Any, axis: int, size: int, because: str, *, name: str = "x") -> None:
    """Raise a ValueError unless axis `axis` of `x` has `size` elements; `because` names the field, `d_in=4`."""
    check_array(layer, x, name=name)
    given = _size(x, axis)
    if given != size:
        raise ValueError(
            f"{describe(layer)} got {name} of shape {np.shape(x)}: expected {_axis(axis)} to have size {size} "
            f"because {because}, got {'no such axis' if given is None else given}"
        )


def check_multiple(layer: Any, x: Any, axis: int, divisor: int, because: str) -> None:
    """Raise a ValueError unless `divisor` divides the size of axis `axis` of `x`; 1 asks for the axis alone."""
    check_array(layer, x)
    given = _size(x, axis)
    if given is None or given % divisor:
        wanted = "" if divisor == 1 else f" to have a size that {divisor} divides"
        raise ValueError(
            f"{describe(layer)} got x of shape {np.shape(x)}: expected {_axis(axis)}{wanted} because {because}, "
            f"got {'no such axis' if given is None else given}"
        )


def check_rank(
    layer: Any, x: Any, axes: str, least: int, because: str, *, most: int | None = None, name: str = "x", fix: str = ""
) -> None:
    """Raise a ValueError unless `x` has `least` to `most` axes (None: any number); `axes` shows them, `[..., T, d]`."""
    check_array(layer, x, name=name)
    n = np.ndim(x)
    if n < least or (most is not None and n > most):
        raise ValueError(
            f"{describe(layer)} got {name} of shape {np.shape(x)}: expected {axes} because {because}, "
            f"got {n} {'axis' if n == 1 else 'axes'}{fix and f'; {fix}'}"
        )


def check_space(layer: Any, x: Any, field: str, *, fix: str = "") -> int:
    """The number of spatial axes in front of the channels: one a number of the layer's `field`, else its `dims`.

    Raises:
      ValueError: x has fewer axes than these and the channels.
    """
    sizes = getattr(layer, field)
    each = isinstance(sizes, tuple)
    n = len(sizes) if each else layer.dims
    axes = f"at least {n + 1} axes, [..., *spatial, C],"
    check_rank(layer, x, axes, n + 1, f"{field}={sizes!r}" if each else f"dims={n}", fix=fix)
    return n


def _size(x: Any, axis: int) -> int | None:
    shape = np.shape(x)
    return shape[axis] if -len(shape) <= axis < len(shape) else None


def _axis(axis: int) -> str:
    return "the last axis" if axis == -1 else f"axis {axis}"


def check_float(
    layer: Any, x: Any, like: Any = None, *, name: str = "x", because: str = "it is multiplied by weights"
) -> None:
    """Raise a TypeError unless `x` is floating point, and of the dtype of the weight `like` if one is given.

    Complex numbers are let through beside complex weights alone.
    """
    check_array(layer, x, name=name)
    dtype = jnp.result_type(x)
    if not jnp.issubdtype(dtype, jnp.floating if like is None else jnp.inexact):
        fix = f"write {name}.astype(jnp.float32), or put an nn.Rescale in front"
        if jnp.issubdtype(dtype, jnp.inexact):
            fix = "give it the real and the imaginary part as channels"
        raise TypeError(
            f"{describe(layer)} got {name} of dtype {dtype} and shape {np.shape(x)}: expected floating point "
            f"because {because}; {fix}"
        )
    if like is not None and jnp.result_type(like) != dtype:
        raise TypeError(
            f"{describe(layer)} got {name} of dtype {dtype} and weights of dtype {jnp.result_type(like)}: expected "
            f"one dtype because nothing is promoted silently; cast one of them"
        )


def check_rate(layer: Any) -> None:
    """Raise a ValueError unless the layer's `rate` is a probability."""
    if not 0 <= layer.rate <= 1:
        raise ValueError(
            f"{type(layer).__name__} wants a rate in [0, 1], the probability of dropping, got {layer.rate}"
        )


@functools.lru_cache(maxsize=512)
def _expected(layer: Any) -> tuple[Any, Any] | None:
    """Shapes of the layer's parameters and state, or None where its `init` cannot be traced."""
    try:
        key = jax.eval_shape(jax.random.key, 0)
        return jax.eval_shape(layer.init, key), jax.eval_shape(layer.init_state)
    except Exception:
        return None


@functools.lru_cache(maxsize=512)
def _expected_cache(layer: Any) -> tuple[Any, frozenset[str]]:
    """The tree of the layer's cache, and the paths of what has the caller's sizes."""
    one, two = (jax.eval_shape(lambda n=n: layer.init_cache(n, n)) for n in (1, 2))
    sizes, others = tree.flatten(one), tree.flatten(two)
    return one, frozenset(path for path, leaf in sizes.items() if leaf.shape != others[path].shape)


def _kind(leaf: Any) -> str:
    return "float" if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) else str(jnp.result_type(leaf))


def _in_manual_mesh() -> bool:
    """Whether this is the body of a `shard_map`, where arrays are shards and their shapes say nothing."""
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def _faults(layer: Any, expected: Any, given: Any, any_shape: frozenset[str] = frozenset()) -> list[str]:
    """What differs between two trees, one line a path, and why it was expected."""
    want, have = tree.flatten(expected), tree.flatten(given)
    lines = []
    for path in sorted(want.keys() | have.keys()):
        owner = f"because {_owner(layer, path)}"
        if path not in have:
            lines.append(f"  {path}: missing, expected {shape_of(want[path])} {owner}")
        elif path not in want:
            lines.append(f"  {path}: unexpected {shape_of(have[path])} {owner}, which has no such array")
        elif path not in any_shape and np.shape(have[path]) != want[path].shape:
            permuted = sorted(np.shape(have[path])) == sorted(want[path].shape)
            fix = " (its axes are permuted: transpose it)" if permuted else ""
            lines.append(f"  {path}: expected {shape_of(want[path])} {owner}, got {shape_of(have[path])}{fix}")
        elif _kind(have[path]) != _kind(want[path]):
            lines.append(f"  {path}: expected {shape_of(want[path])} {owner}, got {shape_of(have[path])}")
    return lines if len(lines) <= 8 else [*lines[:8], f"  ... and {len(lines) - 8} more"]


def check_params(layer: Any, params: Any) -> None:
    """Raise a ValueError that lists, by path, which parameters are missing, unexpected, or of another shape.

    Raises:
      TypeError: the layer is not a value, so nothing can be remembered of it.
    """
    name = type(layer).__name__
    try:
        hash(layer)
    except TypeError as error:
        raise TypeError(
            f"{name} is not hashable ({error}): make it @dataclass(frozen=True), with tuples for lists"
        ) from None
    expected = _expected(layer)
    if expected is None or _in_manual_mesh():
        return
    if lines := _faults(layer, expected[0], params):
        raise ValueError(f"{name} got parameters that {name}.init does not make:\n" + "\n".join(lines))


def _owner(layer: Any, path: str, at: str = "") -> str:
    """The innermost layer that a parameter path leads to, and where it stands: `body/k is Linear(d_in=4, d_out=3)`."""
    for name, child in layer.children().items():
        if name == "":
            return _owner(child, path, at)
        if path == name or path.startswith(f"{name}/"):
            return _owner(child, path[len(name) + 1 :], f"{at}/{name}" if at else name)
    return f"{at or 'it'} is {describe(layer)}"


def check_state(layer: Any, state: Any) -> None:
    """Raise a ValueError where a layer that remembers is given no state, or that of another layer.

    A layer that starts without a state may be given one: a cache, say, that its caller sizes.
    """
    expected = _expected(layer)
    if expected is None or expected[1] is None or _in_manual_mesh():
        return
    name = type(layer).__name__
    if state is None:
        raise ValueError(
            f"{name} remembers something between calls but got state None: "
            f"expected {shape_of(expected[1])}; start from {name}.init_state()"
        )
    if lines := _faults(layer, expected[1], state):
        cache, any_shape = _expected_cache(layer)
        if _faults(layer, cache, state, any_shape):
            raise ValueError(f"{name} got a state that {name}.init_state does not make:\n" + "\n".join(lines))


def note_where(error: Exception, path: str, layer: Any, x: Any) -> None:
    """Add to an exception where in the model it was raised and the shape that came in; once, at the innermost layer."""
    if not any(note.startswith("in layer ") for note in getattr(error, "__notes__", ())):
        where = path or type(layer).__name__
        error.add_note(f"in layer {where} = {describe(layer)}, input {shape_of(x)}")
