"""Order zero: unbiased estimates, the cma package's constants and evaluations, and one `fit` for every order."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import make_moons
from support.reference import reference

from dlkit import data, inspect, losses, nn, optim, train
from dlkit.optim.zeroth_order.cma_constants import constants

CURVATURE = jnp.array([1.0, 3.0, 10.0])
PARAMS = {"b": jnp.array(0.7), "w": jnp.array([1.0, -2.0, 0.5])}


def loss(p):
    return jnp.sum(CURVATURE * p["w"] ** 2) / 2 + jnp.sin(p["b"])


def estimates(tx, n):
    def one(state, _):
        g, state = tx.update(PARAMS, state, PARAMS, value_fn=loss)
        return state, g

    return jax.jit(lambda: jax.lax.scan(one, tx.init(PARAMS), None, length=n)[1])()


@pytest.mark.parametrize(
    "tx",
    [
        optim.gaussian_smoothing(0.01),
        optim.gaussian_smoothing(0.01, 4, central=False),
        optim.simultaneous_perturbation(0.01),
        optim.simultaneous_perturbation(0.01, gamma=0.0, samples=4),
    ],
    ids=repr,
)
def test_the_mean_of_estimates_is_the_gradient(tx):
    """Within 5 standard errors of the mean of 4,000, and they do spread: no gradient is smuggled in."""
    many, exact = estimates(tx, 4000), jax.grad(loss)(PARAMS)
    for name, g in exact.items():
        error = np.std(many[name], axis=0) / np.sqrt(4000)
        assert np.all(error > 1e-3)
        np.testing.assert_array_less(np.abs(np.mean(many[name], axis=0) - g), 5 * error + 1e-3)


def test_spsa_by_its_definition(x64):
    """Along +-1, both coordinates' estimates are the same slope but for the sign: that of Spall's equation 2.2."""
    p = {"w": jnp.array([1.0, -2.0])}

    def f(p):
        return jnp.sum(jnp.array([1.0, 3.0]) * p["w"] ** 3)

    tx = optim.simultaneous_perturbation(0.1, gamma=0.5)
    state = tx.init(p)
    for t in range(3):
        g, state = tx.update(p, state, p, value_fn=f)
        delta = jnp.sign(g["w"]) * jnp.where(g["w"][0] > 0, 1.0, -1.0)
        c = 0.1 / np.sqrt(t + 1)
        slope = (f({"w": p["w"] + c * delta}) - f({"w": p["w"] - c * delta})) / (2 * c)
        np.testing.assert_allclose(g["w"], slope * delta, rtol=1e-10)


def test_draws_depend_on_seed_path_and_count_alone():
    tx = optim.random_search(0.1, 0.1)
    first, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value_fn=loss)
    second, _ = tx.update(PARAMS, state, PARAMS, value_fn=loss)
    other, _ = optim.random_search(0.1, 0.1, seed=1).update(PARAMS, tx.init(PARAMS), PARAMS, value_fn=loss)
    ratio = first["w"] / first["b"]
    assert not np.allclose(second["w"] / second["b"], ratio)
    assert not np.allclose(other["w"] / other["b"], ratio)
    wider = {"a": jnp.ones(2), **PARAMS}  # another leaf in front changes no draw
    added, _ = tx.update(wider, tx.init(wider), wider, value_fn=loss)
    np.testing.assert_allclose(added["w"], first["w"], rtol=1e-5)


def test_bfloat16_parameters_have_a_slope():
    """The difference is taken in float32: of bfloat16 values 2^-8 apart nothing would be left."""
    p = {"w": jnp.full(64, 1.0, jnp.bfloat16)}

    def f(p):
        return 100.0 + jnp.sum(p["w"].astype(jnp.float32))

    g, _ = optim.simultaneous_perturbation(0.125).update(p, optim.simultaneous_perturbation().init(p), p, value_fn=f)
    signs = jnp.sign(g["w"].astype(jnp.float32))
    np.testing.assert_allclose(jnp.abs(g["w"].astype(jnp.float32)), abs(float(jnp.sum(signs))), rtol=1e-2)


def theirs(n):
    def compute():
        import cma

        sp = cma.CMAEvolutionStrategy(n * [1.0], 0.5, {"verbose": -9, "seed": 1}).sp
        numbers = [sp.popsize, sp.weights.mueff, sp.c1, sp.cmu, sp.cc]
        return {"numbers": np.array(numbers, float), "weights": np.array(sp.weights)}

    return reference(f"cma/{n}", compute, needs="cma")


@pytest.mark.parametrize("n", [2, 5, 20])
def test_constants_are_those_of_the_cma_package(n):
    k, expected = constants(n), theirs(n)
    np.testing.assert_allclose([k.population, k.mu_eff, k.c_1, k.c_mu, k.c_c], expected["numbers"], rtol=1e-12)
    np.testing.assert_allclose(k.weights, expected["weights"], rtol=1e-12)


def sphere(x):
    return jnp.sum(x**2)


def ellipsoid(x):
    return jnp.sum(10.0 ** (6 * jnp.arange(x.size) / (x.size - 1)) * x**2)


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


FUNCTIONS = {"sphere": (sphere, 1.0), "ellipsoid": (ellipsoid, 1.0), "rosenbrock": (rosenbrock, 0.0)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_takes_no_more_evaluations_than_the_cma_package(name, x64):
    """To 1e-9 in 6 dimensions: the median of seven runs within 1.2 of its median (they spread by some 10 %)."""
    f, start = FUNCTIONS[name]

    def compute():
        import cma

        value, counted = jax.jit(f), []
        for seed in range(1, 8):
            options = {"verbose": -9, "seed": seed, "tolfun": 0, "tolfunhist": 0, "tolx": 0}
            es = cma.CMAEvolutionStrategy(6 * [start], 0.5, options)
            while value(es.mean) > 1e-9 and es.countevals < 20_000:
                x = es.ask()
                es.tell(x, [float(value(one)) for one in x])
            counted.append(es.countevals)
        return {"evaluations": np.array(counted)}

    @jax.jit
    def generations(p):
        tx = optim.cma_es(0.5)

        def step(carry):
            p, state, t = carry
            updates, state = tx.update(p, state, p, value_fn=f)
            return p + updates, state, t + 1

        return jax.lax.while_loop(lambda c: (f(c[0]) > 1e-9) & (c[2] < 2000), step, (p, tx.init(p), 0))[2]

    starts = start + 1e-3 * jnp.arange(7.0)[:, None] * jnp.ones((1, 6))  # other starts are other runs
    ours = constants(6).population * np.median([generations(p) for p in starts])
    assert ours <= 1.2 * np.median(reference(f"cma/{name}", compute, needs="cma")["evaluations"])


def test_cma_es_follows_the_order_alone():
    """An increasing function of the loss, with jumps, gives the same search to the bit."""
    p, tx = jnp.array([1.0, -1.0, 2.0]), optim.cma_es(0.5, seed=3)

    def run(f):
        def step(carry, _):
            p, state = carry
            updates, state = tx.update(p, state, p, value_fn=f)
            return (p + updates, state), None

        return jax.jit(lambda: jax.lax.scan(step, (p, tx.init(p)), None, length=30)[0][0])()

    np.testing.assert_array_equal(run(ellipsoid), run(lambda x: jnp.exp2(jnp.log(1e-3 + ellipsoid(x)))))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optim.spsa(0.1, c=0.0), ValueError, "^simultaneous_perturbation: c is 0.0, wanted more than 0"),
        (lambda: optim.spsa(0.1, samples=0), ValueError, "^simultaneous_perturbation: samples is 0, wanted 1"),
        (lambda: optim.random_search(0.1, -1.0), ValueError, "^gaussian_smoothing: smoothing is -1.0"),
        (lambda: optim.cma_es(0.0), ValueError, "^cma_es: initial_step is 0.0, wanted more than 0"),
        (lambda: optim.cma_es(1.0, 1), ValueError, "^cma_es: population is 1, wanted 2 or more"),
        (lambda: update(optim.spsa(0.1)), ValueError, "^simultaneous_perturbation: it evaluates the loss itself: call"),
        (lambda: update(optim.cma_es(0.1)), ValueError, "^cma_es: it evaluates the loss itself"),
        (lambda: update(optim.spsa(0.1), lambda p: p["w"]), ValueError, "^simultaneous_.*value_fn gave an array"),
        (lambda: optim.cma_es(0.1).init({"n": jnp.ones(2, int)}), TypeError, "^cma_es: .* 'n' is int32"),
        (lambda: optim.spsa(0.1).init(jnp.ones(2, complex)), TypeError, "^simultaneous_.* is complex64"),
    ],
)
def test_errors(call, error, message, unchecked):
    with pytest.raises(error, match=message):
        call()


def update(tx, value_fn=None):
    return tx.update(PARAMS, tx.init(PARAMS), PARAMS, **({} if value_fn is None else {"value_fn": value_fn}))


X, Y = make_moons(64, noise=0.1, random_state=0)
MOONS = data.Arrays(x=X.astype(np.float32), y=Y.astype(np.int32))
# optimizer, updates, evaluations and gradients an update (None: a line search decides), the loss reached
ORDERS = {
    "random_search": (lambda: optim.random_search(0.05, 0.01, 4), 400, (9, 0), 0.45),
    "random_search_forward": (lambda: optim.random_search(0.05, 0.01, 8, central=False), 300, (9, 0), 0.45),
    "spsa": (lambda: optim.spsa(0.1, samples=4), 400, (9, 0), 0.45),
    "cma_es": (lambda: optim.cma_es(0.5), 150, (1 + constants(42).population, 0), 0.3),
    "sgd": (lambda: optim.sgd(0.5, 0.9), 200, (1, 1), 0.3),
    "optax.polyak_sgd": (lambda: optax.polyak_sgd(max_learning_rate=0.5), 200, (1, 1), 0.4),
    "optax.lbfgs": (lambda: optax.lbfgs(), 30, None, 0.2),
    "newton_cg": (lambda: optim.newton_cg(), 45, None, 0.2),
}
FOUND = [name for name in ORDERS if "." in name or hasattr(optim, name.removesuffix("_forward"))]


@pytest.mark.parametrize("name", FOUND)
def test_every_order_trains_through_one_fit(name):
    """Two moons: evaluations as promised, no gradient for order zero, and the loss falls from 0.7."""
    make, updates, each, reached = ORDERS[name]
    counter = inspect.count_evaluations(losses.cross_entropy)
    model = nn.Chain(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    with jax.numpy_dtype_promotion("standard"):
        result = train.fit(train.Task(model, counter), make(), MOONS, epochs=updates, batch_size=64, log_every=100)
    counted = counter.counted()
    assert result.history[0]["train/loss"] > 0.5
    assert result.history[-1]["train/loss"] < reached
    if each is None:
        assert counted.gradients >= updates
    else:
        assert counted == (each[0] * updates, each[1] * updates)
