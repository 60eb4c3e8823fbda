"""The gradient check: correct functions pass, planted bugs are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import autodiff, nn


def ruled(fn, rule):
    """`fn` with a gradient of one's own, right or wrong."""

    @jax.custom_vjp
    def wrapped(*args):
        return fn(*args)

    def backward(args, cotangent):
        found = rule(*args)
        found = found if isinstance(found, tuple) else (found,)
        return jax.tree.map(lambda g: cotangent * g, found)

    wrapped.defvjp(lambda *args: (fn(*args), args), backward)
    return wrapped


X = jnp.array([0.5, -1.2, 2.0])
A = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 10.0]])


def sines(x):
    return jnp.sum(jnp.sin(x))


# What is planted, where it is looked at, the cause that must be named, and a word of the explanation.
BUGS = {
    "sign": (ruled(sines, lambda x: -jnp.cos(x)), (X,), "sign", "minus the right one"),
    "half": (ruled(lambda x: jnp.sum(x**2), lambda x: x), (X,), "factor", "1/2 times the right one: the 2 of a square"),
    "sum for mean": (ruled(lambda x: jnp.mean(jnp.sin(x)), jnp.cos), (X,), "factor", "a mean over 3"),
    "product rule": (ruled(lambda x: x * jnp.sin(x), jnp.sin), (1.3,), "missing term", "one side of a product"),
    "penalty": (ruled(lambda x: sines(x) + jnp.sum(x**2) / 2, jnp.cos), (X,), "missing term", "1 times the argument"),
    "chain rule": (ruled(lambda x: sines(x**2), lambda x: jnp.cos(x**2)), (X,), "missing factor", "2 times"),
    "transposed": (ruled(lambda w: jnp.sum(A * w**2), lambda w: 2 * (A * w).T), (A / 10,), "transposed", ".T"),
    "reversed": (ruled(sines, lambda x: jnp.cos(x)[::-1]), (X,), "reordered", "reversed along axis 0"),
    "exchanged": (ruled(lambda a, b: jnp.sum(a * b**2), lambda a, b: (2 * a * b, b**2)), (X, X + 1), "exchanged", "1"),
    "one element": (ruled(sines, lambda x: jnp.cos(x).at[1].set(0.0)), (X,), "elements", "[1]"),
    "stopped": (lambda x: jnp.sum(jax.lax.stop_gradient(x) ** 2), (X,), "lost", "stop_gradient"),
    "where": (lambda x: jnp.where(x == 0, 1.0, jnp.sin(x) / x), (jnp.array([0.0, 1.0]),), "not finite", "where"),
    "kink": (lambda x: jnp.sum(jax.nn.relu(x)), (jnp.array([1.0, 0.0]),), "non-smooth", "left and 1 on"),
    "jump": (lambda x: jnp.sum(jnp.round(x)), (jnp.array([1.5, 2.0]),), "jump", "no derivative"),
}  # fmt: skip


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_named(name):
    fn, args, cause, word = BUGS[name]
    report = autodiff.check_grads(fn, *args, raises=False, directions=1)
    assert not report.ok
    assert {f.cause for f in report.findings} == {cause}
    assert word in report.findings[0].why
    finding = report.findings[0]
    if cause in ("elements", "non-smooth"):
        assert finding.element == (1,)
    if cause in ("not finite", "jump"):
        assert finding.element == (0,)
    assert finding.leaf in str(report)


def test_second_derivatives_are_checked_by_themselves():
    """A rule whose value is right and whose own derivative is not: order 1 passes, order 2 names the loss."""

    @jax.custom_jvp
    def sine(x):
        return jnp.sin(x)

    sine.defjvp(lambda p, t: (jnp.sin(p[0]), jax.lax.stop_gradient(jnp.cos(p[0])) * t[0]))
    with pytest.raises(
        AssertionError, match=r"the second derivative by forward mode is -?0, by(.|\n)*likely cause: lost"
    ):
        autodiff.check_grads(lambda x: jnp.sum(sine(x)), X, order=2)
    report = autodiff.check_grads(lambda x: jnp.sum(sine(x)), X)
    assert report.ok
    assert report.errors.column("mode") == ("forward", "reverse")


def test_the_worst_leaf_and_element_are_named():
    def fn(p):
        return jnp.sum(jnp.tanh(p["x"] @ p["w"]))

    def rule(p):
        grad = jax.grad(fn)(p)
        return {"x": grad["x"], "w": grad["w"].at[2, 1].add(0.5)}

    with pytest.raises(AssertionError, match=r"argument 0 w, element \[2, 1\]: the first derivative by reverse mode"):
        autodiff.check_grads(ruled(fn, rule), {"x": X, "w": A / 10})


def test_correct_functions_pass_in_float32_and_float64():
    model = nn.Linear(3, 2)

    def loss(params, x, labels):
        logits = model.apply(params, None, x, nn.EVAL)[0]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(2), labels])

    params, x, labels = model.init(jax.random.key(0)), jnp.stack([X, -X]), jnp.array([0, 1])
    report = autodiff.check_grads(loss, params, x, labels, every=True)
    assert report.ok
    assert len(report.errors) == 2 * 3  # both modes; the integer labels are held fixed
    with jax.enable_x64(True):
        wide = jnp.asarray(X, "float64")
        tight = autodiff.check_grads(lambda x: {"a": jnp.tanh(x), "b": jnp.prod(x)}, wide, order=2, directions=1)
    assert tight.errors.column("order") == ("1", "1", "2", "2")
    assert max(float(e) for e in tight.errors.column("error")) < 1e-8


def test_an_error_of_a_thousandth_is_seen_in_float64(x64):
    x = jnp.array([0.5, -1.2, 2.0])
    nearly = ruled(sines, lambda x: 1.001 * jnp.cos(x))
    report = autodiff.check_grads(nearly, x, raises=False)
    assert [f.cause for f in report.findings] == ["factor"]
    assert "1.001 times" in report.findings[0].why


def test_manual_is_checked_before_it_is_believed():
    square = autodiff.manual(lambda x: x * x, lambda x: 2.0 * x, check_at=(3.0,))
    assert float(jax.grad(square)(5.0)) == 10.0
    with pytest.raises(AssertionError, match="likely cause: factor"):
        autodiff.manual(lambda x: x * x, lambda x: x, check_at=(3.0,))
    with pytest.raises(ValueError, match=r"expected float32\[3\], got float32\[\]"):
        jax.grad(autodiff.manual(jnp.sum, lambda x: jnp.zeros(())))(X)
    with pytest.raises(ValueError, match=r"wants a scalar function, this one gives shape \[3\]"):
        autodiff.manual(jnp.sin, jnp.cos)(X)


def test_what_cannot_be_checked_is_said(unchecked):
    with pytest.raises(TypeError, match=r"wanted floating point: pass 2\.0 in place of 2"):
        autodiff.check_grads(lambda n: n * 2, 2)
    with pytest.raises(TypeError, match="gives no floating-point numbers"):
        autodiff.check_grads(lambda x: jnp.argmax(x), X)
    with pytest.raises(TypeError, match="no forward mode"):
        autodiff.check_grads(BUGS["sign"][0], X, modes=("forward",))
    with pytest.raises(ValueError, match="order is 3, wanted 1 or 2"):
        autodiff.check_grads(sines, X, order=3)
    with pytest.raises(ValueError, match="mode is 'backward'"):
        autodiff.check_grads(sines, X, modes=("backward",))


def test_large_leaves_are_sampled():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=5000), jnp.float32)
    report = autodiff.check_grads(ruled(sines, lambda x: -jnp.cos(x)), x, raises=False, most=20)
    assert report.findings[0].cause == "sign"
