"""Least squares, shrinkage, decompositions and complexities: beside numpy, scikit-learn and closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import generalization as g
from dlkit import optim
from dlkit.inspect import descend

KEYS = jax.random.split(jax.random.key(0), 3)


def problem(n, p, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, p)) * np.linspace(0.3, 2, p), rng.standard_normal(n)


@pytest.mark.parametrize(("n", "p"), [(12, 5), (5, 12)])
def test_ridge_is_lstsq_and_sklearns(n, p, x64):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = problem(n, p)
    np.testing.assert_allclose(g.ridge(x, y), np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-12)
    both = np.stack([y, -2 * y], axis=1)
    theirs = linear_model.Ridge(alpha=0.3 * n, fit_intercept=False, solver="svd").fit(x, both)
    np.testing.assert_allclose(g.ridge(x, both, 0.3), theirs.coef_.T, atol=1e-12)
    # Columns and rows of zeros change nothing but the number of rows that the strength is for.
    wide, more = np.pad(x, ((0, n), (0, 3))), np.pad(y, (0, n))
    np.testing.assert_allclose(g.ridge(wide, more, 0.15)[:p], g.ridge(x, y, 0.3), atol=1e-12)


@pytest.mark.parametrize(("n", "p"), [(12, 5), (5, 12)])
def test_the_path_of_gradient_descent(n, p, x64):
    """Every step, beside the steps themselves; its end is the least-norm solution."""
    x, y = problem(n, p)
    rate = 1.5 / np.linalg.eigvalsh(x.T @ x / n)[-1]
    points, _ = descend(lambda w: jnp.mean((x @ w - y) ** 2) / 2, jnp.zeros(p), optim.sgd(rate), 30)
    path = g.descent_path(x, y, rate, jnp.arange(31))
    np.testing.assert_allclose(path, points, atol=1e-10)  # the tolerance that the lectures ask for
    np.testing.assert_allclose(g.descent_path(x, y, rate, 10**6), np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-8)


def test_shrinkage_by_eigen_direction(x64):
    """What stopping and decay keep of the minimum, direction by direction, is what the factors say."""
    x, y = problem(40, 6)
    values, directions = np.linalg.eigh(x.T @ x / 40)
    exact = directions.T @ np.linalg.lstsq(x, y, rcond=None)[0]
    decayed = np.stack([directions.T @ np.asarray(g.ridge(x, y, s)) for s in (0.01, 1.0)])
    np.testing.assert_allclose(decayed / exact[None], g.decay_factors(values, jnp.array([0.01, 1.0])), atol=1e-10)
    stopped = np.asarray(g.descent_path(x, y, 0.1, jnp.array([3, 50]))) @ directions
    np.testing.assert_allclose(stopped / exact[None], g.stopping_factors(values, 0.1, jnp.array([3, 50])), atol=1e-10)
    assert g.decay_factors(jnp.array([0.0, 1.0]), 0.0).tolist() == [0, 1]
    # A rate above 1 over an eigenvalue swings about the minimum: to a share of 1.5, then 0.75.
    assert g.stopping_factors(jnp.array([3.0]), 0.5, jnp.array([1, 2])).tolist() == [[1.5], [0.75]]


def test_stopping_and_decay_differ_by_at_most_a_fifth(x64):
    optimize = pytest.importorskip("scipy.optimize")
    gap, where = g.stopping_decay_gap()
    found = optimize.minimize_scalar(lambda s: -(1 - np.exp(-s) - s / (1 + s)), bounds=(0.1, 20), method="bounded")
    assert (gap, where) == (pytest.approx(-found.fun, abs=1e-9), pytest.approx(found.x, abs=1e-4))
    assert gap == pytest.approx(0.2036, abs=5e-5)
    values, rate, steps = jnp.logspace(-4, 0, 400), 1e-3, 100_000
    shares = g.stopping_factors(values, rate, steps) - g.decay_factors(values, 1 / (rate * steps))
    assert float(jnp.abs(shares).max()) == pytest.approx(gap, abs=1e-3)  # 400 values see the top to 1e-4


def test_risk_is_the_mean_over_samples(x64):
    """Bias and variance of stopping, beside 4000 draws of the noise (standard error 1.5 % of the variance)."""
    x, _ = problem(20, 4)
    values, directions = np.linalg.eigh(x.T @ x / 20)
    truth = np.array([1.0, -1.0, 0.5, 2.0])
    draws = x @ truth + np.sqrt(0.5) * np.random.default_rng(1).standard_normal((4000, 20))
    ws = np.asarray(jax.vmap(lambda y: g.descent_path(x, y, 0.2, 12))(draws))
    found = g.bias_variance(jnp.asarray(ws @ x.T), jnp.asarray(x @ truth)).mean()
    factors = g.stopping_factors(values, 0.2, 12)
    risk = g.fixed_design_risk(factors, values, directions.T @ truth, noise=0.5, samples=20)
    np.testing.assert_allclose(float(found.variance), float(risk.variance), rtol=0.05)
    np.testing.assert_allclose(float(found.error), float(risk.total), rtol=0.05)
    flat = g.fixed_design_risk(jnp.ones((3, 2)), jnp.array([1.0, 0.0]), jnp.ones(2), 1.0, 10)
    assert flat.variance.tolist() == [0.1, 0.1, 0.1]  # nothing is learned along an eigenvalue of 0


def test_bias_and_variance_add_up(x64):
    rng = np.random.default_rng(0)
    f, y = rng.standard_normal((7, 5, 3)), rng.standard_normal((5, 3))
    found = g.bias_variance(jnp.asarray(f), jnp.asarray(y))
    np.testing.assert_allclose(found.error, ((f - y) ** 2).sum(-1).mean(0), atol=1e-12)
    np.testing.assert_allclose(found.variance, f.var(0).sum(-1), atol=1e-12)
    np.testing.assert_allclose(found.bias + found.variance, found.error, atol=1e-12)

    stats = pytest.importorskip("scipy.stats")
    logits, labels = rng.standard_normal((7, 5, 3)), np.eye(3)[[0, 2, 1, 1, 0]]
    found = g.bias_variance(jnp.asarray(logits), jnp.asarray(labels), kind="kl")
    probabilities = np.exp(np.asarray(jax.nn.log_softmax(jnp.asarray(logits))))
    each = [[stats.entropy(labels[i], probabilities[k, i]) for i in range(5)] for k in range(7)]
    np.testing.assert_allclose(found.error, np.mean(each, axis=0), atol=1e-12)  # the mean cross-entropy
    np.testing.assert_allclose(found.bias + found.variance, found.error, atol=1e-12)
    assert np.all(np.asarray(found.variance) > 0)


def test_complexity_of_linear_functions(x64):
    """Beside all 2^8 signs, and under the bound in closed form."""
    x, _ = problem(8, 3)
    exact = np.mean([np.linalg.norm(np.array(s) @ x) for s in itertools.product((-1.0, 1.0), repeat=8)]) * 2.0 / 8
    found = g.rademacher_linear(jax.random.key(0), jnp.asarray(x), 2.0, draws=20_000)
    assert found == pytest.approx(exact, rel=0.01)  # the standard error is 0.3 %
    assert found < 2.0 / 8 * np.sqrt((x**2).sum())
    bound = g.margin_bound([-1.0, 0.5, 2.0, 3.0], 0.1, margin=1.0, delta=0.1)
    assert bound == pytest.approx(0.5 + 0.2 + 3 * np.sqrt(np.log(20) / 8))


def test_effective_ranks():
    values = np.array([5.0, 2.0, 1.0, 0.5])
    found = g.effective_ranks(values[[2, 0, 3, 1]])
    for k in range(4):
        tail = values[k:]
        assert found.r[k] == pytest.approx(tail.sum() / tail[0])
        assert found.R[k] == pytest.approx(tail.sum() ** 2 / (tail**2).sum())


def test_features_and_their_fits(x64):
    """Every width and number of samples in the one program, beside numpy on the same features and rows."""
    rng = np.random.default_rng(0)
    x, new = rng.standard_normal((12, 3)), rng.standard_normal((9, 3))
    y, target = x[:, 0], new[:, 0]
    widths, samples = [4, 8, 30, 8], [12, 12, 12, 6]
    found = g.double_descent(KEYS[:2], x, y, new, target, widths=widths, samples=samples)
    assert found.predictions.shape == (2, 4, 9)
    everyone = g.double_descent(KEYS[:2], x, y, new, target, widths=[8], strength=0.1)
    for k, key in enumerate(KEYS[:2]):
        phi, outside = (np.asarray(g.random_features(key, jnp.asarray(a), 30)) for a in (x, new))
        ridge = np.linalg.solve(phi[:, :8].T @ phi[:, :8] / 12 + 0.1 * np.eye(8), phi[:, :8].T @ y / 12)
        np.testing.assert_allclose(everyone.test[k, 0], np.mean((outside[:, :8] @ ridge - target) ** 2), rtol=1e-8)
        for s, width in enumerate(widths[:3]):
            w = np.linalg.lstsq(phi[:, :width], y, rcond=None)[0]
            np.testing.assert_allclose(found.predictions[k, s], outside[:, :width] @ w, rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(found.norm[k, s], np.linalg.norm(w), rtol=1e-6)
            np.testing.assert_allclose(found.train[k, s], np.mean((phi[:, :width] @ w - y) ** 2), atol=1e-12)
        assert found.train[k, 3] < 1e-12  # 6 samples and 8 features: exact
    assert not np.allclose(found.predictions[0], found.predictions[1])


def test_the_peak_is_at_the_interpolation_threshold():
    """Test error over widths with noisy labels: within a fifth of the width at which the fit becomes exact."""
    rng = np.random.default_rng(0)
    x, new = (rng.standard_normal((n, 10)).astype(np.float32) for n in (30, 200))
    y, target = np.tanh(x[:, 0]) + 0.5 * rng.standard_normal(30).astype(np.float32), np.tanh(new[:, 0])
    widths = np.array([3, 8, 15, 22, 27, 30, 33, 38, 50, 100, 200])
    found = g.double_descent(jax.random.split(jax.random.key(1), 16), x, y, new, target, widths=widths)
    test, train = np.median(found.test, axis=0), np.median(found.train, axis=0)
    peak, threshold = widths[test.argmax()], g.interpolation_threshold(widths, train)
    assert threshold == 30  # as many features as samples
    assert abs(peak / threshold - 1) <= 0.2
    assert test.max() > 5 * test[-1]
    calm = g.double_descent(KEYS, x, y, new, target, widths=[30, 200], strength=0.02)
    assert np.median(calm.test, axis=0)[0] < 0.2 * test.max()  # a little decay takes the peak away


BAD = {
    "ragged": lambda: g.double_descent(KEYS, *(np.zeros((4, 2)), np.zeros(4)) * 2, widths=[1, 2], samples=[1, 2, 3]),
    "samples": lambda: g.double_descent(KEYS, *(np.zeros((4, 2)), np.zeros(4)) * 2, widths=2, samples=5),
    "never": lambda: g.interpolation_threshold([1, 2], [1.0, 0.5]),
    "ascend": lambda: g.interpolation_threshold([2, 1], [1.0, 0.0]),
    "kind": lambda: g.bias_variance(jnp.zeros((2, 3)), jnp.zeros(3), kind="cubic"),  # pyright: ignore[reportArgumentType]
    "shapes": lambda: g.bias_variance(jnp.zeros((2, 3)), jnp.zeros(2)),
    "classes": lambda: g.bias_variance(jnp.zeros((2, 3)), jnp.zeros(3), kind="kl"),
    "margin": lambda: g.margin_bound([1.0], 0.1, margin=0.0),
    "eigenvalues": lambda: g.effective_ranks([1.0, 0.0]),
}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ragged", "one length"), ("samples", "at most 4"), ("never", "the largest size"), ("ascend", "ascend"),
        ("kind", "'squared' or 'kl'"), ("shapes", "targets"), ("classes", r"\[K, N, C\]"), ("margin", "above 0"),
        ("eigenvalues", "above 0"),
    ],
)  # fmt: skip
def test_bad_input_is_named(name, said, unchecked):
    with pytest.raises(ValueError, match=said):
        BAD[name]()
