"""Lanczos, densities, traces, diagonals: beside numpy's eigh of the dense matrix, on three networks and on paper."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dlkit import curvature, data, losses, models, nn, train

RNG = np.random.default_rng(0)
BASIS = np.linalg.qr(RNG.standard_normal((40, 40)))[0]
VALUES = np.concatenate([[-3.0, 0.0, 0.0], np.linspace(0.1, 2.0, 34), [8.0, 8.0, 20.0]])
MATRIX = BASIS @ np.diag(VALUES) @ BASIS.T
MATRIX = (MATRIX + MATRIX.T) / 2


def problem(kind):
    digits = data.digits()
    x, y = digits["x"][:60], digits["y"][:60]
    if kind == "mlp":
        model = nn.Chain(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 10))
    elif kind == "cnn":
        body = nn.Chain(nn.Conv(1, 4, 3), nn.Gelu(), nn.AvgPool(4), nn.Flatten())
        model = nn.Chain(body, nn.Linear(16, 10))
    else:
        model = models.gpt(vocab=10, length=6, d=4, heads=2, depth=1)
        y = np.stack([y[i : i + 7] for i in range(40)])
        x, y = y[:, :-1], y[:, 1:]
    return curvature.Objective(
        train.Task(model, losses.cross_entropy), data.Arrays(x=x, y=y), batch_size=64 if kind == "transformer" else 32
    ), model


@functools.cache
def solved(kind):
    """An operator, and the truth: all eigenvalues of the matrix that JAX's own Hessian gives."""
    objective, model = problem(kind)
    params = model.init(jax.random.key(0))
    operator = curvature.hessian_product(objective, params, width=1 if kind == "transformer" else 8)
    if (
        kind == "transformer"
    ):  # a second program for the dense matrix would take 4 s to compile: differences of gradients
        v = RNG.standard_normal(operator.size)
        v /= np.linalg.norm(v)
        up, down = (
            objective.value_and_grad(jax.tree.map(lambda p, d, h=h: p + h * d, params, operator.tree(v)))[1]
            for h in (1e-3, -1e-3)
        )
        slope = (operator.vector(up) - operator.vector(down)) / 2e-3
        np.testing.assert_allclose(operator.apply(v), slope, atol=2e-3 * np.linalg.norm(slope))
        return operator, operator.matrix()
    (batch,) = data.Loader(objective.data, len(objective.data), shuffle=False).epoch(0)
    flat, back = jax.flatten_util.ravel_pytree(params)

    @jax.jit
    def hessian(x, batch):
        product = jax.linearize(jax.grad(lambda x: objective.loss.loss_fn(back(x), None, batch, nn.EVAL)[0]), x)[1]
        return jax.lax.map(product, jnp.eye(x.size))

    dense = np.asarray(hessian(flat, batch), np.float64)
    return operator, (dense + dense.T) / 2


@pytest.mark.parametrize("kind", ["mlp", "cnn", "transformer"])
def test_estimates_beside_the_dense_matrix(kind):
    """Extremes to 1 %, trace and diagonal within their intervals, the density's moments; one trace a shape."""
    operator, dense = solved(kind)
    before = operator.traces
    truth = np.linalg.eigvalsh(dense)
    top = curvature.top_eigenpairs(operator, 2, tol=5e-3)
    assert top.converged
    np.testing.assert_allclose(top.values, truth[::-1][:2], rtol=1e-2)
    low = curvature.top_eigenpairs(operator, which="smallest", tol=5e-3)
    np.testing.assert_allclose(low.values, truth[:1], rtol=1e-2)
    assert (np.abs(truth[:, None] - top.values).min(axis=0) <= top.residuals).all()
    assert operator.traces - before <= 1
    # 99 %: the seed is fixed, so the test either holds or does not, ever.
    found = curvature.trace(operator, probes=24, confidence=0.99)
    assert found.low <= np.trace(dense) <= found.high
    # Three standard errors of 24 probes: of normal samples 0.3 % would be outside, of these few more.
    diag = curvature.diagonal(operator, probes=24)
    error = np.abs(operator.vector(diag.value) - np.diag(dense))
    assert np.mean(error <= 3 * operator.vector(diag.standard_error) + 1e-6) > 0.97
    density = curvature.spectral_density(operator, probes=6, steps=15)
    assert np.sum(density.density[1:] * np.diff(density.grid)) == pytest.approx(1, abs=1e-6)
    n = operator.size
    spread = np.sqrt(2 / n / 6 * np.mean(truth**4) / np.mean(truth**2) ** 2)
    assert density.mean(np.square) == pytest.approx(np.mean(truth**2), rel=4 * spread)


def test_lanczos_on_a_known_spectrum():
    """Multiple eigenvalues, zeros and both ends; residuals bound the errors and are those of the pairs."""
    pairs = curvature.top_eigenpairs(MATRIX, 3, tol=1e-6)
    np.testing.assert_allclose(pairs.values, [20, 8, 8], rtol=1e-6)
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(3), atol=1e-12)
    residuals = np.linalg.norm(pairs.vectors @ MATRIX - pairs.values[:, None] * pairs.vectors, axis=1)
    assert (residuals <= pairs.residuals + 1e-12).all()
    np.testing.assert_allclose(curvature.top_eigenpairs(MATRIX, which="smallest").values, [-3], rtol=1e-5)
    ends = curvature.top_eigenpairs(MATRIX, 4, which="magnitude", tol=1e-5).values
    np.testing.assert_allclose(ends, [20, 8, 8, -3], rtol=1e-5)
    every = curvature.lanczos(MATRIX, steps=100)
    assert every.products == 40
    np.testing.assert_allclose(every.values, VALUES, atol=1e-8)
    few = curvature.lanczos(MATRIX, steps=12)
    assert (np.abs(VALUES[:, None] - few.values).min(axis=0) <= few.residuals).all()
    short = curvature.top_eigenpairs(MATRIX, 1, tol=1e-9, max_steps=3)
    assert not short.converged
    assert short.residuals[0] > 1e-3
    np.testing.assert_allclose(curvature.spectrum(MATRIX).values, VALUES, atol=1e-10)
    np.testing.assert_allclose(curvature.spectrum(MATRIX, dense=10, steps=30).values[[0, -1]], [-3, 20], rtol=1e-6)


def test_stability_limit_of_gradient_descent():
    """1.99 / lambda converges and 2.01 / lambda diverges; with momentum 0.9 the limit is 1.9 times as large."""
    matrix = jnp.asarray(MATRIX @ MATRIX / 20 + 0.05 * np.eye(40), jnp.float32)

    @jax.jit
    def descend(lr, momentum):
        def step(carry, _):
            x, v = carry
            v = momentum * v - lr * (matrix @ x)
            return (x + v, v), None

        start = jnp.ones(40), jnp.zeros(40)
        return jnp.linalg.norm(jax.lax.scan(step, start, None, 4000)[0][0])

    for momentum in (0.0, 0.9):
        limit = curvature.max_stable_lr(matrix, momentum=momentum, tol=1e-5)
        assert limit == pytest.approx(2 * (1 + momentum) / 20.05, rel=1e-5)
        assert descend(0.995 * limit, momentum) < 1e-3
        assert not descend(1.005 * limit, momentum) < 1e3  # it may be NaN by then
    assert curvature.max_stable_lr(-np.eye(2)) == np.inf


def test_traces_and_diagonals():
    truth = VALUES.sum()
    for method in ("hutchinson", "hutch++"):  # 200 intervals of 95 %: a deviation of 0.015
        many = [curvature.trace(MATRIX, probes=30, method=method, seed=seed) for seed in range(200)]
        assert np.mean([found.low <= truth <= found.high for found in many]) > 0.9
        assert np.mean([found.value for found in many]) == pytest.approx(truth, rel=0.01)
    # Var z' A z = 2 (|A|^2 - |diag A|^2) for random signs.
    plain = curvature.trace(MATRIX, probes=4000)
    expected = np.sqrt(2 * (np.sum(MATRIX**2) - np.sum(np.diag(MATRIX) ** 2)) / 4000)
    assert (plain.high - plain.low) / 2 == pytest.approx(1.96 * expected, rel=0.05)
    better = curvature.trace(MATRIX, probes=60, method="hutch++")
    assert better.low <= truth <= better.high
    assert better.high - better.low < 0.3 * (plain.high - plain.low) * np.sqrt(4000 / 60)
    low_rank = np.outer(BASIS[0], BASIS[0]) * 5
    exact = curvature.trace(low_rank, probes=6, method="hutch++")
    assert exact.value == pytest.approx(5, abs=1e-10)
    found = curvature.diagonal(MATRIX, probes=2000)
    off = np.sqrt((np.sum(MATRIX**2, axis=1) - np.diag(MATRIX) ** 2) / 2000)
    np.testing.assert_allclose(found.standard_error, off, rtol=0.1)
    assert (np.abs(found.value - np.diag(MATRIX)) < 4.5 * off).all()
    for p, dof in ((0.975, 1), (0.975, 7), (0.995, 31), (0.9, 400)):
        assert curvature.estimates.student_quantile(p, dof) == pytest.approx(scipy.stats.t.ppf(p, dof), rel=1e-6)


def test_densities():
    found = curvature.spectral_density(MATRIX, probes=60, steps=40, sigma=0.5)
    truth = np.mean(np.exp(-0.5 * ((found.grid[:, None] - VALUES) / 0.5) ** 2), axis=1) / (0.5 * np.sqrt(2 * np.pi))
    assert (np.abs(found.density - truth) <= 4 * found.standard_error + 1e-6).all()
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-12)
    # Probes of signs see every eigenvalue of a diagonal matrix alike, so nothing is random.
    diagonal = curvature.spectral_density(np.diag(VALUES), probes=2, steps=40)
    assert diagonal.mean(lambda x: x**3) == pytest.approx(np.mean(VALUES**3), rel=1e-9)
    assert diagonal.share_above(5.0) == pytest.approx(3 / 40, abs=1e-9)
    flat = curvature.spectral_density(np.eye(3), probes=2, steps=5)
    assert np.sum(flat.density[1:] * np.diff(flat.grid)) == pytest.approx(1, abs=1e-6)


def test_condition_numbers():
    """Features of scales 1e5 and 1: platelets beside height; standardized, the matrix is round."""
    platelets, height = 1e5 * (2.5 + 0.5 * RNG.standard_normal(200)), 1.7 + 0.1 * RNG.standard_normal(200)
    x = np.stack([platelets, height], axis=1)
    raw = x.T @ x / 200
    values = np.linalg.eigvalsh(raw)
    assert values[1] > 1e10
    assert curvature.condition_number(raw) == pytest.approx(values[1] / values[0], rel=1e-5)
    standard = (x - x.mean(0)) / x.std(0)
    assert curvature.condition_number(standard.T @ standard / 200) < 10
    definite = MATRIX + 4 * np.eye(40)
    assert curvature.condition_number(definite, dense=0, tol=1e-6) == pytest.approx(24, rel=1e-5)
    assert curvature.condition_number(MATRIX) == np.inf
    with pytest.raises(ValueError, match="both signs"):
        curvature.condition_number(MATRIX, dense=0)


def test_errors_say_what_to_do(unchecked):
    with pytest.raises(ValueError, match="symmetric"):
        curvature.lanczos(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"\(A \+ A.T\) / 2"):
        curvature.lanczos(np.triu(np.ones((3, 3))))
    with pytest.raises(ValueError, match=r"1 \.\. 40.*got 41"):
        curvature.top_eigenpairs(MATRIX, 41)
    with pytest.raises(ValueError, match="'middle'"):
        curvature.top_eigenpairs(MATRIX, which="middle")
    with pytest.raises(ValueError, match="at least 6, got 3"):
        curvature.trace(MATRIX, probes=3, method="hutch++")
    with pytest.raises(ValueError, match="not finite"):
        curvature.lanczos(curvature.hessian_product(lambda x: jnp.sum(jnp.sqrt(x)), jnp.zeros(2)))
    with pytest.raises(ValueError, match="momentum"):
        curvature.max_stable_lr(MATRIX, momentum=1.0)
