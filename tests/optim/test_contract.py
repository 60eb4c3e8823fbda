"""The contract's edges: what definitions hold, what errors say, what states report."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlkit import optim

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}


@pytest.mark.parametrize("value", [0.25, np.float32(0.25), np.float64(0.25), np.array(0.25), jnp.float32(0.25)])
def test_learning_rate_of_any_scalar_type_is_stored_as_a_float(value):
    assert optim.sgd(value) == optim.sgd(0.25)
    assert type(optim.scale_by_learning_rate(value).learning_rate) is float
    for dtype in (jnp.float32, jnp.bfloat16):
        grads = jnp.ones(2, dtype)
        tx = optim.adam(value)
        updates, _ = tx.update(grads, tx.init(grads), grads)
        assert updates.dtype == dtype


def train_at(b1, rate, decay=0.1, steps=6, params=PARAMS):
    """Clipped Adam with decay, built from numbers that may be traced."""
    tx = optim.chain(optim.clip_by_global_norm(2 * decay), optim.adamw(rate, b1, eps_root=decay, weight_decay=decay))

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(jax.tree.map(lambda x: 2 * x - 1, p), state, p)
        return (optim.apply_updates(p, updates), state), optim.learning_rate(state)

    return jax.lax.scan(step, (params, tx.init(params)), None, length=steps)


def test_hyperparameters_may_be_traced():
    """Under vmap one program is many runs, each with its own numbers, equal to plain runs up to float32 roundings."""
    b1, rates = jnp.array([0.8, 0.9, 0.99]), jnp.array([0.01, 0.1, 0.3])
    (many, _), used = jax.jit(jax.vmap(train_at))(b1, rates)
    np.testing.assert_array_equal(used[:, 0], rates)
    for i in range(3):
        (alone, _), _ = train_at(float(b1[i]), float(rates[i]))
        for name in alone:
            np.testing.assert_allclose(many[name][i], alone[name], rtol=1e-5, atol=1e-6)


def test_a_hyperparameter_has_a_gradient(x64):
    """d loss / d rate of a whole training run, against a central difference; rtol is that of the difference."""

    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), PARAMS)

    def loss(rate):
        return jnp.sum(train_at(0.9, rate, params=params)[0][0]["w"] ** 2)

    h = 1e-6
    np.testing.assert_allclose(jax.grad(loss)(0.1), (loss(0.1 + h) - loss(0.1 - h)) / (2 * h), rtol=1e-7)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_traced_number_takes_the_dtype_of_what_it_meets(dtype):
    @jax.jit
    def updates(rate):
        p = jnp.ones(2, dtype)
        tx = optim.adamw(rate, weight_decay=rate)
        return tx.update(p, tx.init(p), p)[0]

    assert updates(np.float32(0.1)).dtype == dtype


@pytest.mark.parametrize("value", ["0.1", None, np.ones(2), True, 1j])
def test_what_is_no_learning_rate(value):
    from jaxtyping import TypeCheckError

    with pytest.raises((TypeError, TypeCheckError)):
        optim.scale_by_learning_rate(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.adam(0.1, b1=1.0), "^scale_by_adam: b1 is 1.0, wanted 0 <= b1 < 1"),
        (lambda: optim.adam(0.1, b2=-0.1), "^scale_by_adam: b2 is -0.1, wanted 0 <= b2 < 1"),
        (lambda: optim.adam(0.1, eps=-1e-8), "^scale_by_adam: eps is -1e-08, wanted 0 or more"),
        (
            lambda: optim.adam(0.1, nesterov=True, tf_style=True),
            "^scale_by_adam: .* exclude each other",
        ),
        (lambda: optim.sgd(0.1, nesterov=True), "^sgd: .* need a momentum"),
        (lambda: optim.sgd(0.1, 0.9, nesterov=True, dampening=0.1), "^trace: .* wanted dampening=0"),
        (lambda: optim.sgd(0.1, l2=-1.0), "^coupled decay: l2 is -1.0, wanted 0 or more"),
        (lambda: optim.rmsprop(0.1, nesterov=True), "^rmsprop: .* needs a momentum"),
        (lambda: optim.adagrad(0.1, initial_accumulator_value=-1.0), "^scale_by_rss: initial_acc.* wanted 0 or more"),
        (lambda: optim.scale_by_stddev(eps=-1.0), "^scale_by_stddev: eps is -1.0"),
        (lambda: optim.clip(-1.0), "^clip: max_delta is -1.0"),
        (lambda: optim.clip_by_global_norm(-1.0), "^clip_by_global_norm: max_norm is -1.0"),
    ],
)
def test_hyperparameters_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


RECIPES = [optim.sgd(0.1), optim.sgd(0.1, 0.9), optim.adagrad(0.1), optim.rmsprop(0.1), optim.adamw(0.1)]


@pytest.mark.parametrize("tx", RECIPES, ids=lambda tx: repr(tx)[6:26])
@pytest.mark.parametrize(
    ("grads", "what"),
    [
        ({"w": jnp.ones((2, 3))}, r"b: missing"),
        ({**PARAMS, "c": jnp.ones(1)}, r"c: unexpected"),
        ({**PARAMS, "b": jnp.ones(4)}, r"b: expected float32\[3\], got float32\[4\]"),
    ],
)
def test_gradients_of_another_tree(tx, grads, what):
    with pytest.raises(ValueError, match=rf"do not match the parameters:\n{what}"):
        tx.update(grads, tx.init(PARAMS), PARAMS)


def test_gradients_that_do_not_match_the_state():
    tx = optim.scale_by_adam()
    with pytest.raises(ValueError, match=r"scale_by_adam: the gradients do not match the state[\s\S]*b: missing"):
        tx.update({"w": PARAMS["w"]}, tx.init(PARAMS))
    with pytest.raises(ValueError, match=r"^chain: the state is a tuple of 1, wanted one of 2; pass the state"):
        optim.sgd(0.1, 0.9).update(PARAMS, optim.sgd(0.1).init(PARAMS), PARAMS)


@pytest.mark.parametrize(
    ("state", "shown"),
    [(None, "None"), (PARAMS, "a dict"), (optim.EmptyState(), "a EmptyState"), (optim.TraceState(1), "a TraceState")],
)
def test_a_state_that_is_none(state, shown):
    with pytest.raises(TypeError, match=rf"^chain: the state is {shown}, wanted a tuple of 2; pass the state"):
        optim.adam(0.1).update(PARAMS, state, PARAMS)


def test_apply_updates():
    params = {"w": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)}
    updates = {"w": jnp.full(2, 2.0**-9, jnp.float32), "b": jnp.ones(2, jnp.bfloat16)}
    new = optim.apply_updates(params, updates)
    assert (new["w"].dtype, new["b"].dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_array_equal(new["b"], [2.0, 2.0])
    with pytest.raises(ValueError, match=r"updates do not match the parameters:\nb: missing"):
        optim.apply_updates(params, {"w": updates["w"]})


@pytest.mark.parametrize("link", [3, optim.SetToZero, None, jnp.ones])
def test_what_is_no_link(link):
    with pytest.raises(TypeError, match=r"^chain: got .*wanted a transform: an object with `init` and `update`"):
        optim.chain(link)
    with pytest.raises(TypeError, match=r"^masked: got .*wanted a transform"):
        optim.masked(link, "**")


def test_parameters_that_are_not_floating_point():
    with pytest.raises(TypeError, match=r"^scale_by_adam: .* 'steps' is int32. Leave it out with `masked`"):
        optim.adam(0.1).init({"w": jnp.ones(2), "steps": jnp.zeros((), jnp.int32)})


def test_states_are_strongly_typed_for_weakly_typed_parameters():
    params = {"w": jnp.asarray(1.0)}
    assert params["w"].weak_type
    for tx in RECIPES:
        assert not any(leaf.weak_type for leaf in jax.tree.leaves(tx.init(params)))


def test_counts_saturate():
    tx = optim.adam(0.1)
    params = jnp.ones(2)
    last = jnp.int32(2**31 - 1)
    adam, rate = tx.init(params)
    updates, (adam, rate) = tx.update(params, (adam._replace(count=last), rate._replace(count=last)), params)
    assert adam.count == rate.count == last
    assert bool(jnp.all(jnp.isfinite(updates)))


def test_empty_trees():
    for tx in (*RECIPES, optim.clip_by_global_norm(1.0)):
        updates, _ = tx.update({}, tx.init({}), {})
        assert updates == {}


def test_several_learning_rates():
    tx = optim.chain(optim.masked(optim.adam(0.5), "w"), optim.masked(optim.sgd(0.25), "b"))
    state = tx.init(PARAMS)
    found = optim.learning_rates(state)
    assert {path: float(rate) for path, rate in found.items()} == {"0/inner_state/1": 0.5, "1/inner_state/0": 0.25}
    with pytest.raises(ValueError, match="2 learning rates"):
        optim.learning_rate(state)
    with pytest.raises(ValueError, match="no learning rate"):
        optim.learning_rate(optim.scale(0.1).init(PARAMS))


def test_state_is_kept_where_the_parameters_are():
    """Moments inherit the sharding of the parameters, so that they never gather on one device."""
    mesh = jax.make_mesh((1,), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    params = {"w": jax.device_put(jnp.ones((4, 2)), sharding)}
    adam, _ = optim.adam(0.1).init(params)
    assert adam.mu["w"].sharding == adam.nu["w"].sharding == sharding


def test_complex_parameters_equal_optax(x64):
    """Real averages of |g|^2, as in optax; without its widening of nu to complex numbers."""
    p = {"z": jnp.array([1.0 + 2.0j, -0.5j])}
    for ours, theirs in (
        (optim.sgd(0.1, 0.9), optax.sgd(0.1, 0.9)),
        (optim.adamw(0.1), optax.adamw(0.1)),
        (optim.rmsprop(0.1), optax.rmsprop(0.1)),
        (optim.adagrad(0.1), optax.adagrad(0.1)),
    ):
        a, b, state, other = p, p, ours.init(p), theirs.init(p)
        for _ in range(3):
            g = jax.tree.map(lambda z: jnp.conj(z) - 1.0, a)
            updates, state = ours.update(g, state, a)
            with jax.numpy_dtype_promotion("standard"):
                expected, other = theirs.update(g, other, b)
            np.testing.assert_allclose(updates["z"], expected["z"], rtol=1e-12)
            a, b = optim.apply_updates(a, updates), optax.apply_updates(b, expected)
