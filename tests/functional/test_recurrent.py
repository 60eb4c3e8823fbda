"""Recurrences: against plain loops, in value and in every derivative; lengths and padding; parallel linear ones.

float64 1e-12: a few roundings of sums of at most a hundred terms, against loops in the same precision.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import functional as F
from dlkit.functional.recurrence.recurrent_gradient import GruCell, LstmCell, RnnCell, recurrence

T, B, D = 3, 3, 3
LENGTHS = np.array([3, 2, 0])
CELLS = {"tanh": (RnnCell(), 1), "relu": (RnnCell(relu=True), 1), "gru": (GruCell(), 3), "lstm": (LstmCell(), 4)}


def one_step(name, carry, a, w, b):
    if name == "lstm":
        return F.lstm_step(*carry, a, w, b)
    if name == "gru":
        return (F.gru_step(carry[0], a, w, b),)
    return (F.rnn_step(carry[0], a, w, b, activation=jnp.tanh if name == "tanh" else F.relu),)


def problem(name):
    rng = np.random.default_rng(5)
    gates = CELLS[name][1]

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape))

    carry = tuple(draw(B, D) for _ in range(2 if name == "lstm" else 1))
    at = {"a": draw(T, B, gates * D), "w": draw(D, gates * D), "b_a": draw(gates * D), "b_s": draw(gates * D)}
    at |= {"carry": carry}
    return at, jax.tree.map(lambda leaf: draw(*leaf.shape), at), draw(T, B, D)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_derivatives_are_those_of_the_loop(name, reverse, x64):
    """Value, gradient and tangent, with rows of several lengths; forward in time, both second derivatives too."""
    at, direction, c = problem(name)
    valid = np.arange(T)[:, None] < LENGTHS[None]

    def fast(at):
        h, carry = recurrence(
            CELLS[name][0], reverse, at["a"], at["w"], (at["b_a"], at["b_s"]), at["carry"], jnp.asarray(valid)
        )
        return jnp.sum(c * jnp.where(valid[..., None], h, 0.0)) + sum(jnp.sin(one).sum() for one in carry)

    def loop(at):
        total, carry = 0.0, at["carry"]
        for t in reversed(range(T)) if reverse else range(T):
            after = one_step(name, carry, at["a"][t] + at["b_a"][None], at["w"], at["b_s"])
            now = valid[t][:, None]
            carry = tuple(jnp.where(now, new, old) for new, old in zip(after, carry, strict=True))
            total = total + jnp.sum(c[t] * jnp.where(now, carry[0], 0.0))
        return total + sum(jnp.sin(one).sum() for one in carry)

    def derivatives(fn):
        def along(at):
            return jax.jvp(fn, (at,), (direction,))[1]

        def sloped(at):
            grad = jax.grad(fn)(at)
            return sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), grad, direction)))

        second = [] if reverse else [jax.grad(along), jax.grad(sloped)]
        return jax.jit(lambda at: [one(at) for one in (fn, jax.grad(fn), along, *second)])(at)

    got, want = (jax.tree.leaves(derivatives(fn)) for fn in (fast, loop))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, float(np.abs(b).max())))


def test_the_weight_gradient_is_one_product_after_the_scan():
    """In the compiled program no loop holds an array of the shape of the weight's gradient but the weight itself."""
    at, _, c = problem("lstm")
    at = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), at)

    def loss(w):
        h, _ = recurrence(LstmCell(), False, at["a"], w, (None, None), at["carry"], None)
        return jnp.sum(c.astype(jnp.float32) * h)

    scans = [e for e in jax.make_jaxpr(jax.grad(loss))(at["w"]).jaxpr.eqns if e.primitive.name == "scan"]
    assert scans
    for scan in scans:
        assert all(out.aval.shape != at["w"].shape for out in scan.outvars)


def test_scan_cell_is_its_loop():
    xs = {"x": np.random.default_rng(0).standard_normal((T, B, D)).astype(np.float32)}

    def step(carry, x):
        carry = 0.5 * carry + x["x"]
        return carry, {"y": 2 * carry}

    for reverse in (False, True):
        carry, ys = F.scan_cell(step, jnp.ones((B, D)), jax.tree.map(jnp.asarray, xs), reverse=reverse)
        held, want = np.ones((B, D), np.float32), np.zeros((T, B, D), np.float32)
        for t in reversed(range(T)) if reverse else range(T):
            held = np.float32(0.5) * held + xs["x"][t]
            want[t] = 2 * held
        np.testing.assert_allclose(ys["y"], want, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(carry, held, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="xs holds no array"):
        F.scan_cell(step, jnp.ones(B), {})


def test_what_stands_after_the_end_changes_nothing():
    """NaN there, in outputs, final carry and gradients; the final carry is that at the length."""
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((T, B, D), (D, D)))
    padding = np.arange(T)[:, None, None] >= LENGTHS[None, :, None]
    lengths = jnp.asarray(LENGTHS)

    def run(x, w, reverse):
        def step(h, x):
            h = jnp.tanh(x * x + h @ w)
            return h, h

        carry, y = F.scan_cell(step, jnp.zeros((B, D)), x, lengths, reverse=reverse)
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(carry)), (carry, y)

    grad = jax.jit(jax.value_and_grad(run, (0, 1), has_aux=True), static_argnums=2)
    for reverse in (False, True):
        (_, (carry, y)), (dx, dw) = grad(jnp.where(padding, jnp.nan, x), jnp.asarray(w), reverse)
        (_, (want, clean)), (dx0, dw0) = grad(jnp.asarray(x), jnp.asarray(w), reverse)
        for a, b in ((carry, want), (y, clean), (dx, dx0), (dw, dw0)):
            np.testing.assert_array_equal(a, b)
        assert np.all(np.asarray(y)[np.broadcast_to(padding, y.shape)] == 0)
        assert np.all(np.asarray(dx)[np.broadcast_to(padding, dx.shape)] == 0)
        last = y[0, :2] if reverse else jnp.stack([y[n - 1, row] for row, n in enumerate(LENGTHS[:2])])
        np.testing.assert_array_equal(carry[:2], last)
        np.testing.assert_array_equal(carry[2], np.zeros(D))


@pytest.mark.parametrize("rho", [0.9, 1.1])
def test_gradients_through_time_vanish_or_explode_with_the_spectral_radius(rho):
    """dh_t / dh_0 of a linear RNN is W^t, whose norm is rho^t where W is rho times an orthogonal matrix."""
    w = jnp.asarray(rho * np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0], jnp.float32)

    def final(h0):
        a = jnp.zeros((20, 1, 5))
        return F.scan_cell(lambda h, a: (F.rnn_step(h, a, w, activation=F.identity),) * 2, h0, a)[0]

    jacobian = jax.jacrev(final)(jnp.ones((1, 5))).reshape(5, 5)
    np.testing.assert_allclose(np.linalg.norm(jacobian, 2), rho**20, rtol=1e-4)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_linear_recurrence_is_the_loop(dtype, reverse, x64):
    rng = np.random.default_rng(2)

    def draw(*shape):
        re, im = rng.standard_normal((2, *shape))
        return jnp.asarray((re + 1j * im) if dtype is np.complex128 else re)

    at, c = {"a": 0.6 * draw(7, 2, 3), "b": draw(7, 2, 3), "h0": draw(2, 3)}, draw(7, 2, 3)
    direction = jax.tree.map(lambda leaf: draw(*leaf.shape), at)

    def loop(at):
        h, found = at["h0"], [None] * 7
        for t in reversed(range(7)) if reverse else range(7):
            h = at["a"][t] * h + at["b"][t]
            found[t] = h
        return jnp.stack(found)

    def fast(at):
        return F.linear_recurrence(at["a"], at["b"], at["h0"], reverse=reverse)

    def derivatives(fn):
        def loss(at):
            return jnp.sum((c * fn(at)).real)

        def along(at):
            return jax.jvp(loss, (at,), (direction,))[1]

        return jax.jit(lambda at: (fn(at), jax.grad(loss)(at), along(at), jax.grad(along)(at)))(at)

    for got, want in zip(*(jax.tree.leaves(derivatives(fn)) for fn in (fast, loop)), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * max(1.0, float(np.abs(want).max())))


def test_linear_recurrence_says_what_it_wants():
    with pytest.raises(ValueError, match="want one shape"):
        F.linear_recurrence(jnp.ones((3, 2)), jnp.ones((3, 1)))
    with pytest.raises(ValueError, match="one row of b"):
        F.linear_recurrence(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones(3))
    with pytest.raises(TypeError, match="complex64, float32"):
        F.linear_recurrence(jnp.ones((3, 2), jnp.complex64), jnp.ones((3, 2)))
