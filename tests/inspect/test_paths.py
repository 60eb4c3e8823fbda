"""Surfaces, ways over them, and the size of signals, against scipy, closed forms and torch's optimizers' formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import inspect, nn, optim
from dlkit.nn import initializers

scipy_optimize = pytest.importorskip("scipy.optimize")


def test_surfaces_are_lowest_where_they_say(x64):
    for surface in inspect.SURFACES.values():
        fn = jax.jit(surface)
        values = [float(fn(jnp.array(point))) for point in surface.minima]
        assert np.ptp(values) < 1e-9  # equally low
        for point in surface.minima:
            found = scipy_optimize.minimize(lambda p, fn=fn: float(fn(jnp.asarray(p))), point, method="Nelder-Mead")
            np.testing.assert_allclose(found.x, point, atol=1e-3)  # it stays
        assert float(surface.grid(41)[2].min()) >= values[0] - 1e-9  # and nothing in the box is lower


def test_rosenbrock_is_scipys(x64):
    p = jnp.array([0.3, -1.7])
    surface = inspect.SURFACES["rosenbrock"]
    np.testing.assert_allclose(surface(p), scipy_optimize.rosen(np.asarray(p)), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(surface)(p), scipy_optimize.rosen_der(np.asarray(p)), rtol=1e-12)


def test_descend_visits_what_the_formula_says(x64):
    """Gradient descent on a bowl multiplies coordinate i by 1 - eta lambda_i in every step."""
    bowl = inspect.quadratic(50.0)
    points, losses = inspect.descend(bowl, jnp.array(bowl.start), optim.sgd(0.03), 10)
    want = np.array(bowl.start) * (1 - 0.03 * np.array([1.0, 50.0])) ** np.arange(11)[:, None]
    np.testing.assert_allclose(points, want, rtol=1e-12)
    np.testing.assert_allclose(losses, (want[:, 0] ** 2 + 50 * want[:, 1] ** 2) / 2, rtol=1e-12)
    # One that searches gets the loss it needs; noise has the deviation it was given.
    points, losses = inspect.descend(bowl, jnp.array(bowl.start), optim.newton(), 1)
    np.testing.assert_allclose(points[-1], 0, atol=1e-12)
    noisy, _ = inspect.descend(
        lambda p: 0.0 * p.sum(), jnp.zeros(500), optim.sgd(1.0), 4, key=jax.random.key(0), noise=2.0
    )
    assert abs(float(jnp.diff(noisy, axis=0).std()) - 2.0) < 0.15  # 2,000 draws: 3.2 % is one standard error of 2 %


def test_pictures_of_paths(tmp_path):
    surface = inspect.SURFACES["beale"]
    figure = inspect.paths_plot(surface, {"a": np.zeros((3, 2)), "b": np.full((2, 2), np.nan)}, path=tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5_000
    assert figure.axes[0].get_xlim() == surface.box[0]
    with pytest.raises(ValueError, match=r"'a' has shape \(3,\)"):
        inspect.paths_plot(surface, {"a": np.zeros(3)})
    with pytest.raises(ValueError, match="kappa above 0, got -1"):
        inspect.quadratic(-1.0)
    with pytest.raises(ValueError, match=r"draws noise=0\.1 from a key"):
        inspect.descend(surface, jnp.zeros(2), optim.sgd(0.1), 1, noise=0.1)
    with pytest.raises(ValueError, match="at least one step, got 0"):
        inspect.descend(surface, jnp.zeros(2), optim.sgd(0.1), 0)


def test_signals_are_those_of_numpy(x64):
    """A linear chain, by hand: a_1 = x W_1, a_2 = a_1 W_2; dL/da_2 = c, dL/da_1 = c W_2^T."""
    model = nn.Chain(nn.Linear(5, 7, w_init=initializers.Normal(1.0)), nn.Linear(7, 3, w_init=initializers.Normal(1.0)))
    params = jax.tree.map(lambda p: p.astype(jnp.float64), model.init(jax.random.key(0)))
    x, c = (np.random.default_rng(i).normal(size=(4, n)) for i, n in enumerate((5, 3)))
    found = inspect.signal_profile(model, params, jnp.asarray(x), lambda y: jnp.sum(y * jnp.asarray(c)))
    w1, w2 = (np.asarray(params[n]["w"]) for n in model.names)
    np.testing.assert_allclose(found.mean, [(x @ w1).mean(), (x @ w1 @ w2).mean()], rtol=1e-12)
    np.testing.assert_allclose(found.var, [(x @ w1).var(), (x @ w1 @ w2).var()], rtol=1e-12)
    np.testing.assert_allclose(found.second_moment, [((x @ w1) ** 2).mean(), ((x @ w1 @ w2) ** 2).mean()], rtol=1e-12)
    np.testing.assert_allclose(found.grad_var, [(c @ w2.T).var(), c.var()], rtol=1e-12)


def test_signals_of_layers_that_remember_and_draw(key, unchecked):
    model = nn.Chain(nn.Linear(6, 8), norm=nn.BatchNorm(8), drop=nn.Dropout(0.5))
    params, state = model.init(key), model.init_state()
    x = jax.random.normal(key, (32, 6))
    given = {"state": state, "mode": nn.training(key)}
    found = inspect.signal_profile(model, params, x, jnp.sum, **given)
    np.testing.assert_allclose(found.var[1], 1.0, rtol=1e-3)  # normalized; eps is 1e-5
    y, _ = model.apply(params, state, x, nn.training(key))
    np.testing.assert_allclose(found.var[2], y.var(), rtol=1e-5)  # the same draws as the model's own
    many = jax.vmap(lambda k: inspect.signal_profile(model, model.init(k), x, jnp.sum, **given))(
        jax.random.split(key, 3)
    )
    assert many.grad_var.shape == (3, 3)
    with pytest.raises(TypeError, match="layers of a Chain, got Linear"):
        inspect.signal_profile(nn.Linear(2, 2), params, x, jnp.sum)
    with pytest.raises(TypeError, match=r"scalar loss, got shape \(32, 8\)"):
        inspect.signal_profile(model, params, x, lambda y: y, **given)
