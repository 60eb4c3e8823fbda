"""Products, blocks, dense matrices: beside jax.hessian, per-example gradients and logistic regression on paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import curvature, data, losses, nn, train

RNG = np.random.default_rng(0)
X = RNG.standard_normal((23, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 23).astype(np.int32)
SET = data.Arrays(x=X, y=Y)
MODEL = nn.Chain(nn.Linear(4, 5), nn.Tanh(), head=nn.Linear(5, 3))
TASK = train.Task(MODEL, losses.cross_entropy)
PARAMS = MODEL.init(jax.random.key(1))


def whole(params):
    """The loss of all examples at once, by JAX alone."""
    z = jnp.tanh(X @ params["linear1"]["w"] + params["linear1"]["b"][None])
    z = z @ params["head"]["w"] + params["head"]["b"][None]
    return -jnp.mean(jax.nn.log_softmax(z)[jnp.arange(23), Y])


def dense(fn, params):
    """Rows in the order of sorted paths, which is that of the leaves here."""
    flat, back = jax.flatten_util.ravel_pytree(params)
    return np.asarray(jax.jit(jax.hessian(lambda x: fn(back(x))))(flat), np.float64)


def test_hessian_streams_over_ragged_batches_and_is_traced_once():
    """Batches of 5 leave a last one of 3: the products are those of all 23 examples, to float32 rounding."""
    objective = curvature.Objective(TASK, SET, batch_size=5)
    operator = curvature.hessian_product(objective, PARAMS)
    expected = dense(whole, PARAMS)
    v = RNG.standard_normal(operator.size)
    product = operator(operator.tree(v))
    assert jax.tree.structure(product) == jax.tree.structure(PARAMS)
    np.testing.assert_allclose(operator.vector(product), expected @ v, atol=2e-6 * np.abs(expected).sum(1).max())
    curvature.top_eigenpairs(operator, 2)
    assert operator.traces == 1
    np.testing.assert_allclose(operator.matrix(), expected, atol=2e-6)
    more = data.Arrays(x=np.tile(X, (3, 1)), y=np.tile(Y, 3))
    again = curvature.hessian_product(curvature.Objective(TASK, more, batch_size=5), PARAMS)
    np.testing.assert_allclose(again.apply(v), expected @ v, atol=1e-5)
    assert again.traces == 2  # single vectors and blocks of them: more data did not add to it
    value, grad = objective.value_and_grad(PARAMS)
    np.testing.assert_allclose(objective(PARAMS), whole(PARAMS), rtol=1e-6)
    np.testing.assert_allclose(value, whole(PARAMS), rtol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(grad), jax.tree.leaves(jax.grad(whole)(PARAMS)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_blocks_are_blocks_of_the_matrix():
    objective = curvature.Objective(TASK, SET, batch_size=12)
    operator = curvature.hessian_product(objective, PARAMS, blocks="head/**")
    assert operator.paths == ("head/b", "head/w")
    np.testing.assert_allclose(operator.matrix(), dense(whole, PARAMS)[:18, :18], atol=2e-6)
    product = operator({"head/b": jnp.ones(3), "head/w": jnp.zeros((5, 3))})
    np.testing.assert_allclose(product["head/b"], operator.matrix()[:3, :3].sum(1), atol=1e-6)


def test_logistic_regression_has_one_matrix():
    """Its Hessian is X' diag(p (1 - p)) X / N: Gauss-Newton and Fisher matrix equal it, as the model is linear."""
    y = (Y > 0).astype(np.float32)
    task = train.Task(nn.Chain(nn.Linear(4, 1, bias=False), nn.Reshape((), dims=1)), losses.binary_cross_entropy)
    params = task.model.init(jax.random.key(0))
    objective = curvature.Objective(task, data.Arrays(x=X, y=y), batch_size=10)
    p = 1 / (1 + np.exp(-(X @ np.asarray(params["linear1"]["w"]))[:, 0]))
    expected = X.T @ (X * (p * (1 - p))[:, None]) / 23
    for operator in (
        curvature.hessian_product(objective, params),
        curvature.gauss_newton_product(objective, params),
        curvature.fisher_product(objective, params, family="bernoulli"),
    ):
        np.testing.assert_allclose(operator.matrix(), expected, atol=1e-6)


def test_gauss_newton_and_fisher_matrices():
    """J' H J from JAX's Jacobians; categorical Fisher equals it; the empirical one is the mean of g g'."""
    objective = curvature.Objective(TASK, SET, batch_size=5)
    flat, back = jax.flatten_util.ravel_pytree(PARAMS)

    def logits(x, rows):
        return MODEL(back(x), rows)

    jacobian = np.asarray(jax.jit(jax.jacrev(logits))(flat, jnp.asarray(X)), np.float64)
    p = np.asarray(jax.nn.softmax(logits(flat, jnp.asarray(X))), np.float64)
    curve = np.einsum("bc,cd->bcd", p, np.eye(3)) - p[:, :, None] * p[:, None]
    expected = np.einsum("bci,bcd,bdj->ij", jacobian, curve, jacobian) / 23
    np.testing.assert_allclose(curvature.gauss_newton_product(objective, PARAMS).matrix(), expected, atol=2e-6)
    np.testing.assert_allclose(curvature.fisher_product(objective, PARAMS).matrix(), expected, atol=2e-6)
    normal = curvature.fisher_product(objective, PARAMS, family="normal").matrix()
    np.testing.assert_allclose(normal, np.einsum("bci,bcj->ij", jacobian, jacobian) / 23, atol=5e-6)
    grads = np.einsum("bci,bc->bi", jacobian, p - np.eye(3)[Y])
    empirical = curvature.fisher_product(objective, PARAMS, family="empirical")
    np.testing.assert_allclose(empirical.matrix(), grads.T @ grads / 23, atol=5e-6)
    # The same from plain functions, in batches of unequal sizes.
    cut = [{"x": X[:9], "y": Y[:9]}, {"x": X[9:], "y": Y[9:]}]

    def loss(z, batch):
        return jnp.mean(losses.cross_entropy(z, batch["y"]))

    plain = curvature.Objective(loss, cut, outputs=lambda params, batch: MODEL(params, batch["x"]))
    v = RNG.standard_normal(len(flat))
    np.testing.assert_allclose(curvature.gauss_newton_product(plain, PARAMS).apply(v), expected @ v, atol=1e-5)
    found = curvature.fisher_product(plain, PARAMS, family="empirical").apply(v)
    np.testing.assert_allclose(found, grads.T @ (grads @ v) / 23, atol=2e-5)


def test_regularizer_and_data_from_a_function():
    task = train.Task(nn.Linear(4, 3), losses.cross_entropy, regularizer=lambda p: 0.5 * jnp.sum(p["w"] ** 2))
    params = task.model.init(jax.random.key(0))
    passes = []

    def batches():
        passes.append(1)
        return data.Loader(SET, 8, shuffle=False).epoch(0)

    with_it = curvature.hessian_product(curvature.Objective(task, batches), params, blocks="w").matrix()
    without = curvature.hessian_product(curvature.Objective(TASK_LINEAR, SET), params, blocks="w").matrix()
    np.testing.assert_allclose(with_it - without, np.eye(12), atol=1e-6)
    assert len(passes) == 1  # all twelve vectors in one pass


TASK_LINEAR = train.Task(nn.Linear(4, 3), losses.cross_entropy)


def test_errors_say_what_to_do(unchecked):
    quiet = curvature.Objective(lambda p, batch: jnp.mean((batch["x"] @ p) ** 2), SET, batch_size=5)
    with pytest.raises(ValueError, match=r"does not use batch\['weight'\].*divides 23"):
        quiet(jnp.ones(4))
    with pytest.raises(ValueError, match="needs data"):
        curvature.Objective(TASK)
    with pytest.raises(TypeError, match="function"):
        curvature.Objective(3.0)
    with pytest.raises(TypeError, match=r"real scalar, got float32\[2\]"):
        curvature.Objective(lambda p: p)(jnp.ones(2))
    with pytest.raises(TypeError, match="'b' is int32"):
        curvature.hessian_product(lambda p: p["a"], {"a": jnp.ones(()), "b": jnp.ones((), jnp.int32)})
    with pytest.raises(ValueError, match="matches none"):
        curvature.hessian_product(whole, PARAMS, blocks="tail/**")
    with pytest.raises(ValueError, match="outputs="):
        curvature.gauss_newton_product(lambda x: jnp.sum(x**2), jnp.ones(2)).matrix()
    with pytest.raises(ValueError, match=r"43 rows.*limit=10"):
        curvature.hessian_product(whole, PARAMS).matrix(limit=10)
    with pytest.raises(ValueError, match="tree like"):
        curvature.hessian_product(whole, PARAMS)({"head": jnp.ones(3)})
    with pytest.raises(ValueError, match="no batch"):
        curvature.Objective(lambda p, batch: p, [])(jnp.ones(()))
    with pytest.raises(ValueError, match="family is 'poisson'"):
        curvature.fisher_product(whole, PARAMS, family="poisson")
