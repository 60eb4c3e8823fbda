"""The properties that every gradient transform has, as one function that users run on their own.

>>> from dlkit import optim
>>> check_transform(optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(0.1, momentum=0.9)))
"""

import contextlib
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree

__all__ = ["check_transform"]


def check_transform(transform: Any, params: Any = None, **extra: Any) -> None:
    """Checks that `transform` keeps the contract of `dlkit.optim.Transform`.

    - it prints without memory addresses, pickles, and equals and hashes as its copy does;
    - `init` gives strongly typed arrays, and `update` a state of the same structure, shapes, dtypes and weak types;
      the updates have the structure and shapes of the gradients and are at least as wide, in float32, in bfloat16, with
      bfloat16 gradients of float32 parameters, and in float64; no dtype or rank is promoted implicitly;
    - jit gives what eager execution gives, from one trace for several calls and for equal definitions;
    - it works under `vmap` inside of `lax.scan`, with the results of a loop, and with its state and the parameters
      donated (`init` gives no array twice, and none that it was given);
    - calls with equal arguments give equal results, and arguments are left as they were (values are compared in
      float64);
    - zero gradients give finite updates and a finite state;
    - a None in the place of a parameter is left alone, and a parameter may be a scalar.

    Everything runs under `jax.numpy_dtype_promotion("strict")` and `jax.numpy_rank_promotion("raise")`.

    Args:
      transform: a transform; an optimizer is one.
      params: parameters to try it on, float32. By default a small dict with the leaf names of dlkit's layers; the
        check with a None and a scalar is made on these alone.
      extra: what `update` is given beside: `value=` (the loss) for `momo`, `obj_fn=` for `sophia`. Hashable, and a
        function must be one that pickles, and work in every dtype.

    Raises:
      AssertionError: a property does not hold; the message says which, and shows what differs, or what was raised.
    """
    name = type(transform).__name__
    default = params is None
    params = _default_params() if default else params
    grads = [_like(params, seed) for seed in (1, 2, 3)]
    _check_value(name, transform)
    if extra:
        transform = _Given(transform, tuple(extra.items()))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        _check_types(name, transform, params, grads[0])
        with jax.enable_x64(True):
            _check_values(name, transform, _cast(params, jnp.float64), _cast(grads, jnp.float64))
        if default:
            _check_places(name, transform, params, grads[0])


@dataclass(frozen=True)
class _Given:
    """A transform whose `update` is always given the same extra arguments."""

    transform: Any
    extra: tuple[tuple[str, Any], ...]

    def init(self, params: Any) -> Any:
        return self.transform.init(params)

    def update(self, grads: Any, state: Any, params: Any = None) -> Any:
        return self.transform.update(grads, state, params, **dict(self.extra))


def _plain(of: Any) -> Any:
    """JAX's typed keys as the integers they are made of."""
    return jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key) else x, of
    )


@contextlib.contextmanager
def _raised(name: str, what: str) -> Iterator[None]:
    """What the transform raises is a property that does not hold, too."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{name}: {what}: {type(error).__name__}: {error}") from error


def _default_params() -> Any:
    shapes = {
        "embed": {"table": (2, 3)},
        "block": {"w": (2, 3), "b": (3,), "norm": {"scale": (3,), "shift": (3,)}},
        "head": {"w": (2, 3), "b": (3,)},
    }  # few shapes: eager execution compiles every operation once a shape
    return _like(jax.tree.map(jnp.zeros, shapes, is_leaf=lambda node: isinstance(node, tuple)), seed=0)


def _like(params: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(jnp.shape(p)), jnp.result_type(p)), params)


def _cast(of: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), of)


def _check_value(name: str, transform: Any) -> None:
    shown = repr(transform)
    assert " at 0x" not in shown, f"{name} does not print as a value, but as {shown}"
    try:
        copy = pickle.loads(pickle.dumps(transform))  # noqa: S301  (our own bytes)
    except Exception as error:
        raise AssertionError(
            f"{name} does not pickle: {error}. Fields are numbers, strings, tuples, records"
        ) from error
    assert copy == transform, f"{name} is not equal to its pickled copy. Make it a @dataclass(frozen=True)"
    try:
        hashes = hash(transform), hash(copy)
    except TypeError as error:
        raise AssertionError(f"{name} does not hash: {error}. Make it frozen, and its fields hashable") from error
    assert hashes[0] == hashes[1], f"{name} and its equal copy have different hashes"


def _check_types(name: str, transform: Any, params: Any, grads: Any) -> None:
    wide, narrow = jnp.float32, jnp.bfloat16
    for of_params, of_grads in ((wide, wide), (narrow, narrow), (wide, narrow)):
        _check_types_in(name, transform, _cast(params, of_params), _cast(grads, of_grads))
    with jax.enable_x64(True):
        _check_types_in(name, transform, _cast(params, jnp.float64), _cast(grads, jnp.float64))
    concrete = transform.init(params)
    _assert_same(f"{name}.init gives other types under jit", jax.eval_shape(transform.init, params), _shapes(concrete))


def _check_types_in(name: str, transform: Any, params: Any, grads: Any) -> None:
    dtypes = [jax.tree.leaves(of)[0].dtype.name for of in (params, grads)]
    where = f"({dtypes[0]} parameters, {dtypes[1]} gradients)"
    with _raised(name, f"init or update raises {where}"):
        state = jax.eval_shape(transform.init, params)
        for path, leaf in tree.flatten(state).items():
            assert not leaf.weak_type, f"{name}.init: {path or 'the state'} is weakly typed: give it a dtype {where}"
        updates, after = jax.eval_shape(transform.update, grads, state, params)
    _assert_same(f"{name}.update changes the type of its state {where}", state, after)
    _check_same_places(f"{name}.update: the updates have another structure or shape than the gradients", grads, updates)
    got = tree.flatten(updates)
    for path, g in tree.flatten(_shapes(grads)).items():
        u, what = got[path], f"{name}.update: the update of {path or 'the gradient'}"
        assert not u.weak_type, f"{what} is weakly typed {where}"
        wide = jnp.issubdtype(u.dtype, jnp.floating) and jnp.finfo(u.dtype).nmant >= jnp.finfo(g.dtype).nmant
        assert wide, f"{what} is {u.dtype}, narrower than its gradient {where}"


def _check_same_places(problem: str, expected: Any, got: Any) -> None:
    of_one_type = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.float32), (expected, got))
    _assert_same(problem, *of_one_type)


def _shapes(of: Any) -> Any:
    avals = jax.tree.map(jax.typeof, of)
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=getattr(a, "weak_type", False)), avals
    )


def _assert_same(problem: str, expected: Any, got: Any) -> None:
    difference = tree.diff(expected, got)
    assert not difference, f"{problem}:\n{difference}"


def _check_values(name: str, transform: Any, params: Any, grads: list[Any]) -> None:
    """Values are compared in float64, where the roundings of two programs stay small whatever an update amplifies."""
    compiled = _Compiled()
    with _raised(name, "init or update raises"):
        _check_pure(name, transform, params, grads[0], compiled)
        _check_zero(name, transform, params, compiled)
    with _raised(name, "init or update raises under jit, scan or vmap"):
        _check_transformations(name, transform, params, grads, compiled)


class _Compiled:
    """`update`, compiled once for all that is asked of it; state and parameters are donated."""

    def __init__(self) -> None:
        self.traces = 0
        self.jitted = jax.jit(self._update, static_argnums=0, donate_argnums=(2, 3))

    def _update(self, tx: Any, g: Any, s: Any, p: Any) -> Any:
        self.traces += 1
        return tx.update(g, s, p)

    def updates(self, definitions: Sequence[Any], grads: Any, params: Any) -> tuple[list[Any], Any]:
        """What every update gives, and the last state: `init` gets the very arrays that are donated after it."""
        kept = jax.tree.map(np.array, params)
        fresh = jax.tree.map(jnp.array, kept)
        state, results = definitions[0].init(fresh), []
        for definition, g in zip(definitions, grads, strict=True):
            updates, state = self.jitted(definition, g, state, fresh)
            results.append(updates)
            fresh = jax.tree.map(jnp.array, kept)
        return results, state


def _check_pure(name: str, transform: Any, params: Any, grads: Any, compiled: _Compiled) -> None:
    """The two calls that are not compiled: compiled, what Python remembers between calls would not show."""
    state = transform.init(params)
    before = jax.tree.map(np.array, _plain((params, grads, state)))
    first = transform.update(grads, state, params)
    second = transform.update(grads, state, params)
    _assert_equal(f"{name}.update gives different results for equal arguments", first, second, exact=True)
    _assert_equal(f"{name}.update changes its arguments", before, _plain((params, grads, state)), exact=True)
    with _raised(name, "init or update raises under jit, with donated state and parameters"):
        (jitted,), after = compiled.updates([transform], [grads], params)
    _assert_equal(f"{name}.update: jit and eager execution differ", first, (jitted, after))


def _check_zero(name: str, transform: Any, params: Any, compiled: _Compiled) -> None:
    zeros = jax.tree.map(jnp.zeros_like, params)
    (_, updates), state = compiled.updates([transform] * 2, [zeros] * 2, params)
    for path, leaf in tree.flatten(_plain({"updates": updates, "state": state})).items():
        assert bool(np.all(np.isfinite(np.asarray(leaf)))), f"{name}: zero gradients give {leaf} at {path}"


def _check_places(name: str, transform: Any, params: Any, grads: Any) -> None:
    """A None is left alone, and a scalar is a parameter."""
    # jax.tree functions pass over None, so code that goes through them needs nothing for this.
    p, g = (
        {**of, "head": {**of["head"], "b": None}, "block": {**of["block"], "b": of["block"]["b"][0]}}
        for of in (params, grads)
    )
    with _raised(name, "init or update raises where a parameter is None or a scalar"):
        state = jax.eval_shape(transform.init, p)
        updates, after = jax.eval_shape(transform.update, g, state, p)
    _check_same_places(
        f"{name}: a None or a scalar among the parameters is not left alone", (g, state), (updates, after)
    )


def _check_transformations(name: str, transform: Any, params: Any, grads: list[Any], compiled: _Compiled) -> None:
    copy = pickle.loads(pickle.dumps(transform))  # noqa: S301
    definitions = [transform, transform, copy]
    looped = [compiled.updates(definitions, grads, params)]
    traces = compiled.traces
    assert traces == 1, f"{name}.update was traced {traces} times in 3 calls, one of them with an equal definition"
    looped.append(compiled.updates(definitions, grads[::-1], jax.tree.map(lambda p: 2 * p, params)))

    @jax.jit
    def together(params: Any, grads: Any) -> Any:
        update = jax.vmap(transform.update)
        return jax.lax.scan(lambda s, g: update(g, s, params)[::-1], jax.vmap(transform.init)(params), grads)

    both = jax.tree.map(lambda p: np.stack([p, 2 * p]), params)
    steps = [_stack(pair) for pair in zip(grads, grads[::-1], strict=True)]
    states, updates = jax.device_get(together(both, _stack(steps)))
    for i, (results, state) in enumerate(looped):
        member = jax.tree.map(lambda u, i=i: u[:, i], updates), jax.tree.map(lambda s, i=i: s[i], states)
        _assert_equal(f"{name}: vmap inside of lax.scan and a loop differ", (_stack(results), state), member)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _assert_equal(problem: str, expected: Any, got: Any, exact: bool = False) -> None:
    _assert_same(problem, _shapes(expected), _shapes(got))
    # Programs differ in what XLA fuses; 1e-5, because what an optimizer keeps in float32 or bfloat16 stays there.
    rtol, atol = (0.0, 0.0) if exact else (1e-5, 1e-6)
    wanted = tree.flatten(_plain(expected))
    for path, value in tree.flatten(_plain(got)).items():
        np.testing.assert_allclose(
            np.asarray(value), np.asarray(wanted[path]), rtol=rtol, atol=atol, err_msg=f"{problem}, at {path}"
        )
