"""Newton's methods, trust region, least squares, nonlinear CG, natural gradient: beside scipy, sklearn, algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression

from dlkit import optim

_rng = np.random.default_rng(0)
BASIS = np.linalg.qr(_rng.standard_normal((6, 6)))[0]
MATRIX = BASIS @ np.diag(np.geomspace(1e-2, 1e2, 6)) @ BASIS.T
MILD = BASIS @ np.diag(np.geomspace(1.0, 1e2, 6)) @ BASIS.T
TARGET = _rng.standard_normal(6)
START = {"a": np.zeros(4), "b": np.zeros((2,))}


def flat(p):
    return jnp.concatenate([p["a"], p["b"]])


def quadratic(p):
    d = flat(p) - jnp.asarray(TARGET, flat(p).dtype)
    return d @ jnp.asarray(MATRIX, d.dtype) @ d / 2


def rosenbrock(p):
    return jnp.sum(100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2)


def beale(p):
    x, y = p
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def himmelblau(p):
    return (p[0] ** 2 + p[1] - 11) ** 2 + (p[0] + p[1] ** 2 - 7) ** 2


def saddle(p):
    """Saddle at 0, minima at (0, +-1) with value -1/2."""
    return p[0] ** 2 - p[1] ** 2 + p[1] ** 4 / 2


def tree(dtype=jnp.float64):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), START)


def test_products_are_those_of_the_matrices(x64):
    """Against jax.hessian and jax.jacobian, which form them."""

    def r(p):
        return jnp.stack([p[0] * p[1], jnp.sin(p[2]), p[0] ** 2, p[1] * p[2]])

    @jax.jit
    def both(p, v):
        jacobian, outer = jax.jacobian(r)(p), jax.hessian(jax.nn.logsumexp)(r(p))
        expected = jax.hessian(rosenbrock)(p) @ v, jacobian.T @ jacobian @ v, jacobian.T @ outer @ jacobian @ v
        got = optim.hvp(rosenbrock, p, v), optim.gauss_newton_vp(r, p, v), optim.ggn_vp(r, jax.nn.logsumexp, p, v)
        return got, expected

    for a, b in zip(*both(jnp.array([0.3, -1.2, 0.7]), jnp.array([1.0, 2.0, -0.5])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_cg_solves_in_as_many_steps_as_there_are_dimensions(x64):
    """6 steps, and one for roundings; with one eigenvalue, one step."""
    b = jnp.asarray(TARGET)
    x, info = optim.cg(lambda v: jnp.asarray(MILD) @ v, b, tol=1e-9)
    np.testing.assert_allclose(x, np.linalg.solve(MILD, TARGET), rtol=1e-6)
    assert int(info.steps) <= 7
    np.testing.assert_allclose(info.residual_norm, np.linalg.norm(MILD @ x - TARGET), rtol=1e-2, atol=1e-13)
    _, info = optim.cg(lambda v: jax.tree.map(lambda x: 3.0 * x, v), {"a": b, "b": b[:2]})
    assert int(info.steps) == 1


@pytest.mark.parametrize("radius", [None, 0.3, 100.0])
def test_truncated_cg(radius, x64):
    """An indefinite matrix: downhill, on the boundary where there is one, and the residual is what it says."""
    matrix = jnp.asarray(BASIS @ np.diag([3.0, 2.0, 1.0, 0.5, -0.1, -2.0]) @ BASIS.T)
    g = jnp.asarray(TARGET)
    found = optim.truncated_cg(lambda v: matrix @ v, g, tol=1e-8, max_steps=50, radius=radius)
    assert g @ found.step < 0
    np.testing.assert_allclose(found.residual, g + matrix @ found.step, rtol=1e-10, atol=1e-12)
    model = g @ found.step + found.step @ matrix @ found.step / 2
    if radius is None:
        assert bool(found.curved_down)
    else:
        np.testing.assert_allclose(jnp.linalg.norm(found.step), radius, rtol=1e-10)
        assert bool(found.on_boundary)
        best = _steepest(matrix, g, radius)
        assert model <= best + 1e-12  # no worse than the Cauchy point, from which convergence follows


def _steepest(matrix, g, radius):
    length, bend = np.linalg.norm(g), g @ matrix @ g
    tau = radius / length if bend <= 0 else min(radius / length, length**2 / bend)
    return -tau * length**2 + tau**2 * bend / 2


ONE_STEP = {
    "newton": optim.newton(),
    "newton_cg": optim.chain(optim.scale_by_newton_cg(100, forcing=1e-12), optim.scale(-1.0)),
    "damped_newton": optim.damped_newton(1e-13),
    "trust_region": optim.trust_region(1e4, 1e4, forcing=1e-12),
}


@pytest.mark.parametrize("name", ONE_STEP)
def test_one_step_solves_a_quadratic(name, x64):
    """To 1e-10: cond 1e4 times the roundings of float64, and of the damping."""
    p = tree()
    method = ONE_STEP[name]
    value, grads = jax.value_and_grad(quadratic)(p)
    given = {"value": value, "value_fn": quadratic} if "damped" in name or "trust" in name else {"value_fn": quadratic}
    updates, _ = jax.jit(lambda g, s, p: method.update(g, s, p, **given))(grads, method.init(p), p)
    np.testing.assert_allclose(flat(optim.apply_updates(p, updates)), TARGET, atol=1e-9 if "damped" in name else 1e-10)


FORMULAS = ("fletcher_reeves", "polak_ribiere", "hestenes_stiefel", "dai_yuan")


@pytest.mark.parametrize("formula", FORMULAS)
def test_nonlinear_cg_solves_a_quadratic_in_n_steps(formula, x64):
    """On a quadratic the search's first interpolation is exact; a tight curvature condition makes it interpolate."""
    search = optim.scale_by_zoom_linesearch(20, curv_rtol=1e-6, stepsize_precision=0.0)

    def mild(p):
        d = p - jnp.asarray(TARGET)
        return d @ jnp.asarray(MILD) @ d / 2

    _, result = optim.minimize(mild, jnp.zeros(6), optim.nonlinear_cg(formula=formula, linesearch=search), tol=1e-8)
    assert bool(result.converged)
    assert int(result.steps) <= 7


@pytest.mark.parametrize("formula", ["polak_ribiere", "dai_yuan"])
def test_nonlinear_cg_beside_scipy(formula, x64):
    """On 10-dimensional Rosenbrock to the same gradient, in no more iterations than scipy's CG (299).

    Without restarts dai_yuan takes more than 3000.
    """
    start = np.tile([-1.2, 1.0], 5)
    fun = jax.jit(jax.value_and_grad(rosenbrock))
    theirs = scipy.optimize.minimize(
        lambda x: (lambda v, g: (float(v), np.asarray(g)))(*fun(x)),
        start,
        jac=True,
        method="CG",
        options={"gtol": 1e-5},
    )
    _, result = optim.minimize(rosenbrock, jnp.asarray(start), optim.nonlinear_cg(formula=formula))
    assert bool(result.converged)
    assert int(result.steps) <= theirs.nit
    assert float(result.value) < 1e-9


def test_trust_region_takes_scipys_steps(x64):
    """scipy's trust-ncg: the same number of iterations and evaluations, and the same point up to roundings."""
    start = np.tile([-1.2, 1.0], 5)
    fun, hess = jax.jit(jax.value_and_grad(rosenbrock)), jax.jit(jax.hessian(rosenbrock))
    theirs = scipy.optimize.minimize(
        lambda x: (lambda v, g: (float(v), np.asarray(g)))(*fun(x)),
        start, jac=True, hess=lambda x: np.asarray(hess(x)), method="trust-ncg", options={"gtol": 1e-4},
    )  # fmt: skip
    params, result = optim.minimize(rosenbrock, jnp.asarray(start), optim.trust_region(), tol=1e-4)
    assert int(result.steps) == theirs.nit
    assert int(result.evaluations) == theirs.nfev
    np.testing.assert_allclose(params, theirs.x, atol=1e-5)


def logistic(x, y, k):
    """What sklearn minimizes at C = 1: the sum of the losses and half the squared weights, none of the biases."""
    x, y = jnp.asarray(x), jnp.asarray(y)

    def loss(p):
        z = x @ p["w"] + p["b"][None]
        picked = jnp.take_along_axis(z, y[:, None], axis=1)[:, 0]
        return jnp.sum(jax.nn.logsumexp(z, axis=1) - picked) + jnp.sum(p["w"] ** 2) / 2

    return loss, {"w": jnp.zeros((x.shape[1], k)), "b": jnp.zeros(k)}


@pytest.mark.parametrize("name", ["newton", "newton_cg", "nonlinear_cg"])
def test_logistic_regression_on_iris_ends_at_sklearns_optimum(name, x64):
    x, y = load_iris(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    loss, start = logistic(x, y, 3)
    theirs = LogisticRegression(C=1.0, tol=1e-12, max_iter=2000).fit(x, y)
    params, result = optim.minimize(loss, start, getattr(optim, name)(), tol=1e-7)
    assert bool(result.converged)
    # The biases have a direction without curvature: what every class has in common.
    np.testing.assert_allclose(params["w"], theirs.coef_.T, atol=1e-4)
    np.testing.assert_allclose(
        params["b"] - params["b"].mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=1e-4
    )


def test_logistic_regression_on_digits_ends_at_sklearns_optimum(x64):
    """650 parameters; both to a gradient of 1e-6, the least curvature of the weights is 1."""
    x, y = load_digits(return_X_y=True)
    x, y = x[:300] / 16, y[:300]
    loss, start = logistic(x, y, 10)
    theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(x, y)
    params, result = optim.minimize(loss, start, optim.lbfgs(), tol=1e-6)
    assert bool(result.converged)
    best = loss({"w": jnp.asarray(theirs.coef_.T), "b": jnp.asarray(theirs.intercept_)})
    np.testing.assert_allclose(result.value, best, rtol=1e-8)
    np.testing.assert_allclose(params["w"], theirs.coef_.T, atol=1e-3)


def test_newton_converges_quadratically(x64):
    """Each error is about the square of the last: the slope of log errors is 2 +- 0.2 on a logistic regression."""
    x, y = load_iris(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    full, start = logistic(x, y, 3)
    p = {"w": start["w"]}
    loss = lambda p: full({**start, **p})  # noqa: E731
    tx = optim.newton()

    def step(p, _):
        return optim.apply_updates(p, tx.update(jax.grad(loss)(p), tx.init(p), p, value_fn=loss)[0]), p["w"]

    last, path = jax.lax.scan(step, p, length=12)
    errors = np.linalg.norm(np.asarray(path - last["w"][None]), axis=(1, 2))
    errors = errors[(errors < 0.5) & (errors > 1e-13)]
    assert len(errors) >= 3
    orders = np.log(errors[2:] / errors[1:-1]) / np.log(errors[1:-1] / errors[:-2])
    assert abs(orders[-1] - 2) < 0.2


@pytest.mark.parametrize("name", ["damped_newton", "trust_region", "lbfgs"])
def test_the_loss_never_rises(name, x64):
    """On a zoo of functions that are not convex, from random starts: 8 starts of each are one program."""
    method, zoo = getattr(optim, name)(), (rosenbrock, beale, himmelblau, saddle)

    def run(which, p):
        def fun(p):
            return jax.lax.switch(which, zoo, p)

        def step(carry, _):
            p, state = carry
            value, grads = jax.value_and_grad(fun)(p)
            known = {"value": value, "value_fn": fun} | ({"grad": grads} if name == "lbfgs" else {})
            updates, state = method.update(grads, state, p, **known)
            return (optim.apply_updates(p, updates), state), value

        return jax.lax.scan(step, (p, method.init(p)), length=25)[1]

    starts = jnp.asarray(np.random.default_rng(1).uniform(-2, 2, (32, 2)))
    values = np.asarray(jax.jit(jax.vmap(run))(jnp.arange(32) % 4, starts))
    rounding = 1e-6 if name == "lbfgs" else 1e-13  # the approximate decrease of Hager and Zhang
    assert np.all(np.diff(values, axis=1) <= rounding * np.abs(values[:, :-1]) + 1e-14)
    assert np.all(values[:, -1] < values[:, 0])


@pytest.mark.parametrize("name", ["damped_newton", "newton_cg", "saddle_free"])
def test_a_saddle_is_left(name, x64):
    """From near the saddle's stable line. Newton's method itself ends in the saddle."""
    start = jnp.array([1.0, 1e-3])
    method = optim.newton(absolute=True) if name == "saddle_free" else getattr(optim, name)()
    _, result = optim.minimize(saddle, start, method, 200, 1e-8)
    assert bool(result.converged)
    np.testing.assert_allclose(result.value, -0.5, atol=1e-12)
    caught, _ = optim.minimize(saddle, start, optim.newton(), 50, 1e-8)
    np.testing.assert_allclose(caught, 0.0, atol=1e-8)


def test_stochastic_newton_on_ridge_regression(x64):
    """Batches of 32 of 512; the rate 1/t averages the noise away. Hessians of batches average to that of all rows."""
    x = _rng.standard_normal((512, 4)) * np.array([1.0, 3.0, 10.0, 0.1])
    y = x @ np.array([1.0, -1.0, 0.5, 4.0]) + 0.1 * _rng.standard_normal(512)
    exact = np.linalg.solve(x.T @ x / 512 + 1e-3 * np.eye(4), x.T @ y / 512)
    xs, ys = jnp.asarray(x).reshape(16, 32, 4), jnp.asarray(y).reshape(16, 32)

    def loss(p, x, y):
        return jnp.mean((x @ p - y) ** 2) / 2 + 5e-4 * jnp.sum(p**2)

    tx = optim.stochastic_newton(lambda t: 1 / (1 + t), damping=0.0)
    p = jnp.zeros(4)

    def step(carry, batch):
        p, state = carry
        grads = jax.grad(loss)(p, *batch)
        updates, state = tx.update(grads, state, p, value_fn=loss, x=batch[0], y=batch[1])
        return (optim.apply_updates(p, updates), state), None

    batches = jax.tree.map(lambda a: jnp.concatenate([a] * 20), (xs, ys))
    (p, state), _ = jax.jit(lambda c: jax.lax.scan(step, c, batches))((p, tx.init(p)))
    np.testing.assert_allclose(state[0].hessian, x.T @ x / 512 + 1e-3 * np.eye(4), rtol=1e-10, atol=1e-10)
    errors = loss(p, jnp.asarray(x), jnp.asarray(y)) - loss(jnp.asarray(exact), jnp.asarray(x), jnp.asarray(y))
    assert errors < 1e-5 * loss(jnp.zeros(4), jnp.asarray(x), jnp.asarray(y))
    only = optim.scale_by_stochastic_newton(0.0, decay=0.0)
    _, state = only.update(p, only.init(p), p, value_fn=loss, x=xs[0], y=ys[0])
    np.testing.assert_allclose(state.hessian, xs[0].T @ xs[0] / 32 + 1e-3 * np.eye(4), rtol=1e-10)
    sub = lambda p: loss(p, xs[1], ys[1])  # noqa: E731
    _, state = only.update(p, only.init(p), p, value_fn=loss, hessian_fn=sub)
    np.testing.assert_allclose(state.hessian, xs[1].T @ xs[1] / 32 + 1e-3 * np.eye(4), rtol=1e-10)


X = jnp.linspace(0.0, 3.0, 30, dtype=jnp.float32)
NOISE = np.random.default_rng(2).standard_normal(30) * 0.05


def decay_residuals(p):
    x = X.astype(p.dtype)
    return p[0] * jnp.exp(-p[1] * x) + p[2] - (2.5 * jnp.exp(-1.3 * x) + 0.5 + jnp.asarray(NOISE, p.dtype))


LEAST_SQUARES = {
    "levenberg_marquardt": optim.levenberg_marquardt(),
    "levenberg_marquardt_unscaled": optim.levenberg_marquardt(scaling=False),
    "gauss_newton": optim.gauss_newton(),
    "gauss_newton_cg": optim.gauss_newton(solver="cg", cg_tol=1e-10),
    "gauss_newton_search": optim.gauss_newton(linesearch=optim.scale_by_backtracking_linesearch(20)),
}


@pytest.mark.parametrize("name", LEAST_SQUARES)
def test_least_squares_beside_scipy(name, x64):
    theirs = scipy.optimize.least_squares(
        lambda p: np.asarray(decay_residuals(jnp.asarray(p))),
        np.ones(3),
        method="lm",
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    params, result = optim.least_squares(decay_residuals, jnp.ones(3), LEAST_SQUARES[name], tol=1e-8)
    assert bool(result.converged)
    np.testing.assert_allclose(params, theirs.x, rtol=1e-6)
    np.testing.assert_allclose(result.value, theirs.cost, rtol=1e-12)


def test_levenberg_marquardt_on_a_valley_that_gauss_newton_overshoots(x64):
    """Rosenbrock as residuals, and Powell's singular function, whose Jacobian loses rank at the solution."""
    valley = lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])  # noqa: E731
    params, result = optim.least_squares(valley, jnp.array([-1.2, 1.0]), tol=1e-10)
    assert bool(result.converged)
    assert int(result.steps) < 30
    np.testing.assert_allclose(params, 1.0, atol=1e-9)

    def powell(p):
        a, b, c, d = p
        return jnp.stack([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2])

    _, result = optim.least_squares(powell, jnp.array([3.0, -1.0, 0.0, 1.0]), tol=1e-10)
    assert bool(result.converged)
    assert float(result.value) < 1e-10


def test_levenberg_marquardt_does_not_depend_on_units(x64):
    """Marquardt's scaling: with one parameter in other units, the same steps in the old ones, to roundings."""
    scale = jnp.array([1.0, 1e4, 1e-3])
    tx = optim.levenberg_marquardt()

    def run(residuals, p):
        state, seen = tx.init(p), []
        for _ in range(5):
            updates, state = jax.jit(lambda s, p: tx.update(p, s, p, residual_fn=residuals))(state, p)
            p = p + updates
            seen.append(p)
        return np.stack(seen)

    plain = run(decay_residuals, jnp.ones(3))
    other = run(lambda p: decay_residuals(p * scale), 1 / scale)
    np.testing.assert_allclose(other * scale[None], plain, rtol=1e-8)


IMAGES = np.random.default_rng(4).standard_normal((20, 3))
LABELS = np.random.default_rng(5).integers(0, 3, 20)


def outputs(p):
    x = jnp.asarray(IMAGES, p["w"].dtype)
    return jnp.tanh(x @ p["w"]) @ p["v"]


MODEL = {
    "w": np.random.default_rng(6).standard_normal((3, 4)) / 2,
    "v": np.random.default_rng(7).standard_normal((4, 3)) / 2,
}


@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli", "gaussian"])
def test_the_fisher_matrix_is_that_of_its_definition(likelihood, x64):
    """E[s s'] by summing over all outcomes (of the gaussian: points with its moments); Gauss-Newton's too."""
    p = jax.tree.map(jnp.asarray, MODEL)
    v = jax.tree.map(lambda x: jnp.cos(7 * x), p)
    one = jnp.ones((20,))

    def log_q(p, y):
        z = outputs(p)
        if likelihood == "categorical":
            return jnp.take_along_axis(jax.nn.log_softmax(z), y[:, :1], axis=1)[:, 0]
        if likelihood == "bernoulli":
            return jnp.sum(y.astype(z.dtype) * z - jnp.logaddexp(0.0, z), axis=1)
        return -jnp.sum((y - z) ** 2, axis=1) / 2 / 0.5

    z = outputs(p)
    if likelihood == "categorical":
        outcomes = [(jnp.full((20, 1), k), jax.nn.softmax(z)[:, k]) for k in range(3)]
    elif likelihood == "bernoulli":
        bits = [jnp.broadcast_to(jnp.array([[a, b, c]]), z.shape) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
        q = jax.nn.sigmoid(z)
        outcomes = [(y, jnp.prod(jnp.where(y == 1, q, 1 - q), axis=1)) for y in bits]
    else:  # mean z and variance 1/2, from points at z +- sqrt(3/2) along each axis
        points = [s * 1.5**0.5 * jnp.eye(3)[k][None] for k in range(3) for s in (-1, 1)]
        outcomes = [(z + d, one / 6) for d in points]
    expected = jax.tree.map(jnp.zeros_like, p)
    for y, weight in outcomes:
        _, along = jax.jvp(lambda p, y=y: log_q(p, y), (p,), (v,))
        (part,) = jax.vjp(lambda p, y=y: log_q(p, y), p)[1](weight * along / 20)
        expected = jax.tree.map(jnp.add, expected, part)
    got = optim.fisher_vp(outputs, p, v, likelihood, variance=0.5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), got, expected)
    loss = {
        "categorical": lambda z: jnp.mean(jax.nn.logsumexp(z, axis=1) - z[:, 0]),
        "bernoulli": lambda z: jnp.sum(jnp.logaddexp(0.0, z)) / 20,
        "gaussian": lambda z: jnp.sum(z**2) / 20,
    }[likelihood]
    also = optim.ggn_vp(outputs, loss, p, v)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), got, also)


def test_the_natural_gradient_equals_gauss_newton(x64):
    p = jax.tree.map(jnp.asarray, MODEL)
    y = jnp.asarray(np.eye(3)[LABELS])
    residuals = lambda p: (outputs(p) - y) / 20**0.5  # noqa: E731
    grads = jax.grad(lambda p: jnp.sum(residuals(p) ** 2) / 2)(p)
    natural = optim.scale_by_natural_gradient("gaussian", 1e-2)
    gauss = optim.scale_by_gauss_newton(1e-2)
    a, _ = natural.update(grads, natural.init(p), p, output_fn=outputs)
    b, _ = gauss.update(grads, gauss.init(p), p, residual_fn=residuals)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11), a, b)
    by_cg = optim.scale_by_natural_gradient("gaussian", 1e-2, solver="cg", cg_tol=1e-11)
    c, _ = by_cg.update(grads, by_cg.init(p), p, output_fn=outputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8), a, c)


def test_the_natural_gradient_does_not_depend_on_linear_coordinates(x64):
    """theta = A phi: the steps in phi are A^-1 times those in theta. Plain gradients are A' times."""
    x = jnp.asarray(IMAGES)
    change = jnp.asarray(np.random.default_rng(8).standard_normal((3, 3)) + 2 * np.eye(3))
    y = jnp.asarray((LABELS > 0).astype(np.float64))
    model = lambda theta: x @ theta  # noqa: E731
    nll = lambda z: jnp.mean(jnp.logaddexp(0.0, z) - y * z)  # noqa: E731
    theta = jnp.array([0.3, -0.2, 0.5])
    phi = jnp.linalg.solve(change, theta)
    tx = optim.scale_by_natural_gradient("bernoulli", damping=0.0)

    def step(model, p):
        return tx.update(jax.grad(lambda p: nll(model(p)))(p), tx.init(p), p, output_fn=model)[0]

    np.testing.assert_allclose(change @ step(lambda p: model(change @ p), phi), step(model, theta), rtol=1e-9)


class TestMinimize:
    def test_reasons(self, x64):
        start = jnp.array([-1.2, 1.0])
        _, result = optim.minimize(rosenbrock, start, max_steps=3)
        assert optim.Stop(int(result.reason)) is optim.Stop.MAX_STEPS
        assert int(result.steps) == 3
        p, result = optim.minimize(rosenbrock, jnp.ones(2))
        assert optim.Stop(int(result.reason)) is optim.Stop.CONVERGED
        assert int(result.steps) == 0
        _, result = optim.minimize(lambda p: jnp.log(p[0]), jnp.array([-1.0]))
        assert optim.Stop(int(result.reason)) is optim.Stop.NOT_FINITE
        # A gradient of the wrong sign: no step against it lowers the loss.
        search = optim.scale_by_zoom_linesearch(10, approx_dec_rtol=None)
        p, result = optim.minimize(_wrong, jnp.ones(2), optim.chain(optim.sgd(1.0), search))
        assert optim.Stop(int(result.reason)) is optim.Stop.FAILED
        assert int(result.failures) == 2
        np.testing.assert_array_equal(p, 1.0)

    def test_a_run_that_leaves_the_domain_keeps_the_last_good_point(self, x64):
        p, result = optim.minimize(lambda p: p[0] - jnp.log(p[0]), jnp.array([0.5]), optim.scale(1.0), 10)
        assert optim.Stop(int(result.reason)) is optim.Stop.NOT_FINITE
        assert bool(jnp.isfinite(result.value))
        assert float(p[0]) > 0

    def test_any_transform_and_any_batch_of_starts(self, x64):
        import optax

        starts = jnp.array([[3.0, 2.0], [-1.0, 4.0], [0.0, -3.0]])
        for method in (optim.adam(0.3), optax.lbfgs(), optim.newton_cg()):
            with jax.numpy_dtype_promotion("standard"):  # optax promotes
                params, result = jax.jit(jax.vmap(lambda p, m=method: optim.minimize(himmelblau, p, m, 3000)))(starts)
            assert np.all(result.converged)
            np.testing.assert_allclose(jax.vmap(himmelblau)(params), 0.0, atol=1e-10)

    def test_data_and_trees(self):
        def loss(p, x, y):
            return jnp.mean((x @ p["w"] + p["b"] - y) ** 2)

        x = jnp.asarray(IMAGES, jnp.float32)
        y = x @ jnp.array([1.0, 2.0, 3.0]) - 1.0
        p, result = optim.minimize(loss, {"w": jnp.zeros(3), "b": jnp.zeros(())}, args=(x, y))
        assert bool(result.converged)
        np.testing.assert_allclose(p["w"], [1.0, 2.0, 3.0], atol=1e-4)

    def test_the_program_is_kept(self):
        traces = 0

        def loss(p, shift):
            nonlocal traces
            traces += 1
            return jnp.sum((p - shift) ** 2)

        optim.minimize(loss, jnp.zeros(2), args=(jnp.float32(1.0),))
        first = traces
        p, _ = optim.minimize(loss, jnp.ones(2), args=(jnp.float32(3.0),))
        assert traces == first
        np.testing.assert_allclose(p, 3.0, rtol=1e-5)

    def test_a_rate_that_is_traced(self):
        losses = lambda rate: optim.minimize(himmelblau, jnp.ones(2), optim.sgd(rate), 5)[1].value  # noqa: E731
        values = jax.jit(jax.vmap(losses))(jnp.array([1e-4, 1e-2]))
        assert values[1] < values[0]


@jax.custom_vjp
def _wrong(p):
    return jnp.sum(p**2)


_wrong.defvjp(lambda p: (jnp.sum(p**2), p), lambda p, g: (-2 * g * p,))
