"""Properties of a layer as a function: how it is run, differentiated and stored must not matter."""

import pickle
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.nn import EVAL, Mode
from dlkit.testing.case import Case, assert_close, is_float, program

__all__: list[str] = []


# --- definitions and parameters ------------------------------------------------------------------------------------


def is_a_value(case: Case) -> None:
    layer = case.layer
    for field in fields(layer):  # pyright: ignore[reportArgumentType]
        try:
            hash(getattr(layer, field.name))
        except TypeError:
            raise AssertionError(f"field {field.name} = {getattr(layer, field.name)!r} is not hashable") from None
    twin = pickle.loads(pickle.dumps(layer))  # noqa: S301  (our own bytes)
    assert twin == layer, "the layer does not equal its pickled copy: compare=False fields, or eq=False?"
    assert hash(twin) == hash(layer), "equal layers hash differently"
    assert type(layer).__name__ in repr(layer), f"repr does not name the class: {layer!r}"


def init_is_deterministic(case: Case) -> None:
    """The program of init is one, whatever Python did between two traces of it."""
    first, again = (jax.make_jaxpr(case.layer.init)(jax.random.key(1)) for _ in range(2))
    assert not (lines := tree.diff(first.out_avals, again.out_avals)), f"init gives another tree each time:\n{lines}"
    same = program(first) == program(again) and all(map(np.array_equal, first.consts, again.consts))
    assert same, "init gives other numbers under one key: draw them from the key"
    abstract = jax.eval_shape(case.layer.init, jax.random.key(1))
    assert not (lines := tree.diff(abstract, case.params)), f"eval_shape(init) differs from init:\n{lines}"


def strongly_typed(case: Case) -> None:
    for what, held in (("parameter", case.params), ("state", case.state)):
        for path, leaf in tree.flatten(held).items():
            typed = hasattr(leaf, "dtype")
            assert typed, (
                f"{what} {path} is the Python number {leaf!r}, an array after one step: jnp.asarray with a dtype"
            )
            assert not getattr(leaf, "weak_type", False), f"{what} {path} is weakly typed: give jnp.zeros a dtype"


def fresh_scale(case: Case) -> None:
    leaves = filter(is_float, jax.tree.leaves(case.evaluate("evaluation")[0]))
    y = np.concatenate([np.asarray(leaf, np.float32).ravel() for leaf in leaves])
    rms = float(np.sqrt(np.mean(np.square(y))))
    low, high = case.scale
    assert low <= rms <= high, f"fresh weights give an output of RMS {rms:.3g}, outside [{low:g}, {high:g}]"


# --- one function, however it is run ---------------------------------------------------------------------------------


def jit_equals_eager(case: Case) -> None:
    for mode in case.ways:
        jitted = case.jitted(case.params, case.state, case.x, case.ways[mode])
        assert_close(jitted, case.evaluate(mode), f"jit and eager differ in {mode}")


def vmap_equals_loop(case: Case) -> None:
    rolled = case.varied(lambda a: jnp.roll(a, 1, axis=0) if np.ndim(a) else a)
    pair = [jax.tree.map(jnp.asarray, case.x), rolled]
    xs = jax.tree.map(lambda *a: jnp.stack(a), *pair)
    for mode in case.ways.values():
        many = jax.jit(jax.vmap(lambda x, mode=mode: case.run(case.params, case.state, x, mode)))(xs)
        each = [case.jitted(case.params, case.state, x, mode) for x in pair]
        assert_close(many, jax.tree.map(lambda *a: jnp.stack(a), *each), "vmap and a loop differ")


def state_keeps_its_type(case: Case) -> None:
    for mode in case.modes:
        after = jax.eval_shape(case.run, case.params, case.state, case.x, case.modes[mode])[1]
        assert not (lines := tree.diff(jax.eval_shape(lambda: case.state), after)), f"in {mode}:\n{lines}"
        assert jax.tree.structure(after) == jax.tree.structure(case.state), f"in {mode}: another container"


def scans_over_steps(case: Case) -> None:
    if case.state is None and len(case.ways) == 1:
        return  # nothing goes from step to step, and steps do not differ
    mode = case.modes["training"]

    def step(state: Any, one: Mode) -> tuple[Any, Any]:
        y, state = case.run(case.params, state, case.x, one)
        return state, y

    state, ys = jax.lax.scan(step, case.state, mode.split(2), length=2)
    want, outputs = case.state, []
    for i in range(2):
        y, want = case.jitted(case.params, want, case.x, mode.at(i))
        outputs.append(y)
    assert_close(
        (state, ys), (want, jax.tree.map(lambda *a: jnp.stack(a), *outputs)), "scan over two steps and a loop differ"
    )


def traced_once(case: Case) -> None:
    for name, mode in case.ways.items():
        state = case.state
        for i in range(3):
            _, state = case.jitted(case.params, state, case.x, mode.at(i))
        traces = case.traces[mode.train]
        assert traces == 1, f"three calls in {name} trace {traces} times: the state changes its type"


def keeps_dtype(case: Case) -> None:
    if not case.differentiable and not jax.tree.leaves(case.params):
        return  # integers in, and no parameter to say which float comes out
    for dtype in (jnp.float32, jnp.bfloat16):

        def cast(a: Any, dtype: Any = dtype) -> Any:
            return jnp.asarray(a).astype(dtype) if is_float(a) else a

        params, x, inputs = (jax.tree.map(cast, held) for held in (case.params, case.x, dict(case.inputs)))
        for name, mode in case.modes.items():
            y, after = jax.eval_shape(case.layer.apply, params, case.state, x, mode, **inputs)
            for path, leaf in tree.flatten(y).items():
                if jnp.issubdtype(leaf.dtype, jnp.inexact):
                    where = f"{path or 'the output'} in {name}"
                    assert leaf.dtype == dtype, f"{dtype.__name__} in gives {leaf.dtype} out for {where}"
            assert not (lines := tree.diff(jax.eval_shape(lambda: case.state), after)), f"the state changes:\n{lines}"


# --- gradients -------------------------------------------------------------------------------------------------------


def gradient(case: Case) -> None:
    """Derivative along a random direction, against central differences in float64: error O(h^2), h = 1e-6."""
    for name, (value, exact, numeric) in case.slopes.items():
        bound = 1e-6 * max(1.0, abs(exact), abs(value))
        assert abs(numeric - exact) <= bound, f"in {name}: gradient {exact:.9g}, finite differences {numeric:.9g}"


def gradient_reaches_every_parameter(case: Case) -> None:
    if not jax.tree.leaves(case.params):
        return
    grads, _ = case.gradients
    excused = tree.flatten(tree.match(grads, case.unused)) if case.unused else {}
    for path, grad in tree.flatten(grads).items():
        assert np.all(np.isfinite(grad)), f"the gradient of {path} is not finite"
        assert excused.get(path) or np.any(np.asarray(grad) != 0), f"no gradient reaches {path}"


def remat_keeps_gradients(case: Case) -> None:
    """Beside the gradient without it; where nothing may be drawn, along the direction of `gradient` in float64."""
    if len(case.ways) > 1:
        plain = jax.jit(jax.grad(case.loss, (0, 1)))(case.params, case.floats)
        assert_close(case.gradients, plain, "jax.checkpoint changes the gradient")
        return
    in_params, in_x = case.direction
    pairs = zip(*map(jax.tree.leaves, (in_x, case.x)), strict=True)
    along = [*jax.tree.leaves(in_params), *(d for d, a in pairs if is_float(a))]
    terms = [np.asarray(g, np.float64) * d for g, d in zip(jax.tree.leaves(case.gradients), along, strict=True)]
    got, size = (sum(float(np.sum(of(term))) for term in terms) for of in (np.asarray, np.abs))
    want = case.slopes["evaluation"][1]
    # A sum of signed terms in float32 against float64.
    assert abs(got - want) <= 1e-4 * (1 + size), f"jax.checkpoint changes the derivative from {want:.6g} to {got:.6g}"


def examples_are_independent(case: Case) -> None:
    if not case.batched or any(np.ndim(a) == 0 or np.shape(a)[0] < 2 for a in jax.tree.leaves(case.x)):
        return

    def others(a: Any) -> Any:
        a = np.array(a)
        a[1:] = np.roll(a[1:] * a.dtype.type(2) if case.differentiable else a[1:], 1, axis=-1)
        return jnp.asarray(a)

    changed, plain = (case.jitted(case.params, case.state, x, EVAL)[0] for x in (case.varied(others), case.x))
    for a, b in zip(jax.tree.leaves(changed), jax.tree.leaves(plain), strict=True):
        worst = float(np.max(np.abs(np.asarray(a[0], np.float64) - np.asarray(b[0], np.float64)), initial=0.0))
        assert worst <= 1e-5, f"example 0 changes by {worst:.3g} when the others do: a reduction over the wrong axis?"
