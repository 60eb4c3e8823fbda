"""Graphs of functions with every kind of control flow: values and adjoints against the function and `jax.grad`."""

import graphlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dlkit import autodiff, nn

pytestmark = pytest.mark.usefixtures("x64")


@jax.custom_vjp
def clipped(x):
    """The identity with its gradient halved: a rule that its body does not have."""
    return 1.0 * x


clipped.defvjp(lambda x: (1.0 * x, None), lambda _, g: (0.5 * g,))


def everything(params, x):
    h = jax.jit(jnp.tanh)(params["w"] @ x)
    h = lax.cond(h[0] > 0, lambda v: jnp.sin(v), lambda v: v**3, h)
    h = lax.scan(lambda c, a: (c * a + h, c), h, params["a"])[0]
    h = jax.checkpoint(lambda v: jnp.exp(-(v**2)))(h)
    return jnp.sum(jax.nn.relu(clipped(h)) + jax.nn.softplus(h)) + jnp.where(x[1] > 5, x[0], x[1])


PARAMS = {"w": jnp.array([[0.5, -1.0], [2.0, 0.3]]), "a": jnp.array([1.5, -0.5, 0.7])}
X = jnp.array([0.8, -0.4])


@pytest.mark.parametrize("unroll", [0, 4])
def test_values_and_adjoints_of_a_function_with_everything_in_it(unroll):
    params, x = jax.tree.map(lambda a: a.astype("float64"), (PARAMS, X))
    graph = autodiff.trace_graph(everything, params, x, unroll=unroll)
    names = [op.name for op in graph.operations]
    assert {"clipped", "relu", "logaddexp", "tanh"} <= set(names)
    assert ("scan" in names) == (unroll == 0)
    assert "cond" not in names  # these values choose a branch
    value, grads = jax.jit(jax.value_and_grad(everything, argnums=(0, 1)))(params, x)
    values, adjoints = autodiff.evaluate_graph(graph), autodiff.evaluate_adjoints(graph)
    np.testing.assert_allclose(values["y"], value, rtol=1e-13)
    for name, grad in (("params/w", grads[0]["w"]), ("params/a", grads[0]["a"]), ("x", grads[1])):
        np.testing.assert_allclose(adjoints[name], grad, rtol=1e-12)
    # The step-by-step table adds up to the same numbers.
    table = autodiff.trace_adjoints(graph)
    last = {row[0].split(" += ")[0]: row[-1] for row in table}
    np.testing.assert_allclose(np.fromstring(last["dy/dx"].strip("[]"), sep=","), grads[1], rtol=2e-3)


def test_while_loops_unroll_and_then_have_adjoints():
    def f(x):
        return lax.while_loop(lambda c: c[1] < 3, lambda c: (jnp.sin(c[0]), c[1] + 1), (x, 0))[0]

    whole = autodiff.trace_graph(f, 0.7)
    assert [op.name for op in whole.operations] == ["while"]
    steps = autodiff.trace_graph(f, 0.7, unroll=5)
    assert [op.name for op in steps.operations] == ["sin"] * 3
    exact = jax.grad(lambda x: jnp.sin(jnp.sin(jnp.sin(x))))(0.7)
    np.testing.assert_allclose(autodiff.evaluate_adjoints(steps)["x"], exact, rtol=1e-14)
    assert [op.name for op in autodiff.trace_graph(f, 0.7, unroll=2).operations] == ["while"]


def test_tangents_are_those_of_jvp():
    def f(x, n):
        return jnp.cumsum(x * n) @ x

    x, v = jnp.array([0.3, 1.2, -0.7]), jnp.array([1.0, 0.5, 2.0])
    found = autodiff.evaluate_tangents(f, x, jnp.array([1.0, 2.0, 3.0]), tangents_in=(v, jnp.zeros(3)))
    exact = jax.jvp(lambda x: f(x, jnp.array([1.0, 2.0, 3.0])), (x,), (v,))[1]
    np.testing.assert_allclose(found["y"], exact, rtol=1e-13)


def test_shapes_alone_make_a_graph():
    x = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    graph = autodiff.trace_graph(lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x @ x), x)
    assert "cond" in [op.name for op in graph.operations]
    assert graph.variables[graph.outputs[0]].shape == (1000, 1000)
    assert "float32[1000, 1000]" in autodiff.draw_graph(graph).svg
    with pytest.raises(ValueError, match="traced from shapes"):
        autodiff.evaluate_graph(graph)


def test_layers_fold_by_their_scopes_and_compute_the_same():
    model = nn.Chain(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    params = jax.tree.map(lambda a: a.astype("float64"), model.init(jax.random.key(0)))
    x = jnp.array([[0.5, -1.0, 2.0]])

    def f(params, x):
        return jnp.sum(model.apply(params, None, x, nn.EVAL)[0] ** 2)

    graph = autodiff.trace_graph(f, params, x)
    folded = graph.fold(2)
    assert [op.name for op in folded.operations][:3] == ["Chain/linear1", "Chain/tanh1", "Chain/linear2"]
    assert [op.params["label"] for op in folded.operations[:3]] == ["linear1", "tanh1", "linear2"]
    assert graph.fold(1).operations[0].name == "Chain"
    exact = jax.grad(f)(params, x)
    for found in (autodiff.evaluate_adjoints(folded), autodiff.evaluate_adjoints(graph)):
        np.testing.assert_allclose(found["params/linear1/w"], exact["linear1"]["w"], rtol=1e-12)


def test_a_scope_entered_twice_makes_no_cycle():
    def f(x):
        with jax.named_scope("inside"):
            a = jnp.sin(x)
        b = a * 2
        with jax.named_scope("inside"):
            return jnp.cos(a + b)

    folded = autodiff.trace_graph(f, 0.5).fold()
    assert [op.name for op in folded.operations] == ["inside", "mul", "inside"]
    assert len(autodiff.toposort(folded)) == 4


def test_topological_order_is_valid_on_random_graphs_and_cycles_are_named():
    rng = np.random.default_rng(0)
    for _ in range(20):
        nodes = [f"v{i}" for i in rng.permutation(12)]
        parents = {n: [m for m in nodes[:k] if rng.random() < 0.3] for k, n in enumerate(nodes)}
        shuffled = dict(sorted(parents.items()))
        order = autodiff.toposort(shuffled)
        assert sorted(order) == sorted(nodes)
        assert all(order.index(p) < order.index(n) for n in nodes for p in parents[n])
    loop = {"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter(loop).static_order())
    with pytest.raises(ValueError, match="the cycle a <- b <- c <- a"):
        autodiff.toposort(loop)


def test_sum_over_paths_is_the_derivative_between_any_two_variables():
    def f(x):
        a = jnp.tanh(x)
        b = a * x[0]
        return jnp.sum(a * b) + a[1] * jnp.sin(b[0])

    x = jnp.array([0.4, -0.9])
    found = autodiff.sum_over_paths(f, x)
    assert len(found.paths) > 5
    np.testing.assert_allclose(found.total, jax.grad(f)(x), rtol=1e-13)
    graph = autodiff.trace_graph(f, x)
    middle = autodiff.sum_over_paths(graph, source="w1")
    np.testing.assert_allclose(middle.total, autodiff.evaluate_adjoints(graph)["w1"], rtol=1e-13)
    with pytest.raises(ValueError, match="paths lead from x to y: raise most=3"):
        autodiff.sum_over_paths(graph, most=3)
    with pytest.raises(KeyError, match="no variable 'q'"):
        autodiff.sum_over_paths(graph, source="q")


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match=r"adjoints want one real scalar output, got float64\[2\]"):
        autodiff.evaluate_adjoints(jnp.sin, jnp.zeros(2))
    graph = autodiff.trace_graph(jnp.sin, jnp.zeros(2))
    np.testing.assert_array_equal(autodiff.evaluate_adjoints(graph, cotangents=jnp.array([1.0, 2.0]))["x"], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"cotangents of y have shape \[3\], wanted \[2\]"):
        autodiff.evaluate_adjoints(graph, cotangents=jnp.zeros(3))
    with pytest.raises(ValueError, match="2 tangents for 1 leaves"):
        autodiff.evaluate_tangents(graph, tangents_in=(jnp.zeros(2), jnp.zeros(2)))
    with pytest.raises(ValueError, match="3 names for 1 computed"):
        autodiff.trace_graph(jnp.sin, 0.0, names=("a", "b", "c"))
    with pytest.raises(ValueError, match="two variables are called x"):
        autodiff.trace_graph(lambda x: jnp.sin(jnp.cos(x)), 0.0, names=("x",))
    with pytest.raises(TypeError, match="holds its arguments"):
        autodiff.trace_values(graph, 1.0)
