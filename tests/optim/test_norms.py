"""What the certificates do not see: edge cases, other layouts, other dtypes, of signs, norms, noise and filters."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from dlkit import optim

RNG = np.random.default_rng(3)
P = {"k": RNG.standard_normal((2, 3, 2, 4)), "m": RNG.standard_normal((3, 2)), "b": RNG.standard_normal(4)}
G = [{name: RNG.standard_normal(p.shape) for name, p in P.items()} for _ in range(3)]


def run(tx, dtype=np.float64, params=P, grads=G):
    params, grads = jax.tree.map(lambda x: jnp.asarray(x, dtype), (params, grads))
    state, seen = tx.init(params), []
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        update = jax.jit(tx.update)
        for g in grads:
            updates, state = update(g, state, params)
            seen.append(updates)
    return seen, state


def same(ours, theirs, dtype=np.float64, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol), run(ours, dtype)[0], theirs)


# Kernels of four axes and matrices beside vectors.
BLOCKS = {
    "scale_by_lion_smooth": (
        optim.scale_by_lion(mode="smooth", smooth_beta=3.0),
        optax.scale_by_lion(mode="smooth", smooth_beta=3.0),
    ),
    "scale_by_lion_refined": (optim.scale_by_lion(0.5, mode="refined"), optax.scale_by_lion(0.5, mode="refined")),
    "scale_by_trust_ratio": (optim.scale_by_trust_ratio(2.0, 0.5, 0.1), optax.scale_by_trust_ratio(2.0, 0.5, 0.1)),
    "scale_by_factored_rms": (
        optim.scale_by_factored_rms(min_dim_size_to_factor=3, decay_rate=0.6),
        optax.scale_by_factored_rms(min_dim_size_to_factor=3, decay_rate=0.6),
    ),
    "scale_by_factored_rms_all": (
        optim.scale_by_factored_rms(min_dim_size_to_factor=1, epsilon=0.1),
        optax.scale_by_factored_rms(min_dim_size_to_factor=1, epsilon=0.1),
    ),
    "scale_by_sm3": (optim.scale_by_sm3(0.5, 0.9, 1e-3), optax.scale_by_sm3(0.5, 0.9, 1e-3)),
    "scale_by_param_block_norm": (optim.scale_by_param_block_norm(3.0), optax.scale_by_param_block_norm(3.0)),
    "scale_by_param_block_rms": (optim.scale_by_param_block_rms(0.9), optax.scale_by_param_block_rms(0.9)),
    "clip_by_block_rms": (optim.clip_by_block_rms(1.0), optax.clip_by_block_rms(1.0)),
    "adaptive_grad_clip": (optim.adaptive_grad_clip(0.7), optax.adaptive_grad_clip(0.7)),
    "adaptive_grad_clip_axis": (optim.adaptive_grad_clip(0.7, axis=0), optax.adaptive_grad_clip(0.7, axis=0)),
    "normalize_by_update_norm": (optim.normalize_by_update_norm(3.0, 0.1), optax.normalize_by_update_norm(3.0, 0.1)),
    "normalize": (optim.normalize(), contrib.normalize()),
    "centralize": (optim.centralize(), optax.centralize()),
    "zero_nans": (optim.zero_nans(), optax.zero_nans()),
    "keep_params_nonnegative": (optim.keep_params_nonnegative(), optax.keep_params_nonnegative()),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_equal_optax(name, x64):
    ours, theirs = BLOCKS[name]
    same(ours, run(theirs)[0])


SMALL = ({"a": np.zeros(3), "b": np.ones(2)}, [{"a": np.zeros(3), "b": np.ones(2)}] * 2)


def test_noise_equals_optax_draw_by_draw():
    """In float32 (a key gives other numbers in float64), for an int and for a key of another implementation."""
    for key in (5, jax.random.key(5, impl="rbg")):
        ours, theirs = optim.add_noise(0.1, 0.7, key), optax.add_noise(0.1, 0.7, key)
        for got, expected in zip(run(ours, np.float32, *SMALL)[0], run(theirs, np.float32, *SMALL)[0], strict=True):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), got, expected)
        again = pickle.loads(pickle.dumps(optim.add_noise(0.1, 0.7, seed=key)))  # noqa: S301  (our own bytes)
        assert (again, hash(again)) == (ours, hash(ours))


def test_noise_is_standard_normal_and_fades():
    grads = {"a": jnp.zeros(4000), "b": jnp.zeros(4000)}
    seen, state = run(optim.add_noise(4.0, 1.0, key=1), np.float32, grads, [grads, grads])
    flat = [jnp.concatenate([u["a"], u["b"]]) for u in seen]
    np.testing.assert_allclose([jnp.std(x) for x in flat], [2.0, 2**0.5], rtol=0.03)  # 8000 draws: 0.8 % each
    correlation = np.corrcoef([*flat[0].reshape(2, -1), *flat[1].reshape(2, -1)])
    assert np.max(np.abs(correlation - np.eye(4))) < 0.06  # no draw is used twice; 4 sigma
    assert state.count == 2


@pytest.mark.parametrize("key", [None, 1.5, "0", np.zeros(2), True])
def test_noise_needs_a_key(key):
    with pytest.raises(TypeError, match=r"^add_noise: key is .*wanted an int or one `jax.random.key`"):
        optim.noisy_sgd(0.1, key=key)
    with pytest.raises(ValueError, match="both key and seed"):
        optim.add_noise(0.1, 0.5, 1, 2)


def test_units_of_every_rank():
    """Clipped to their bound exactly: |u| = clipping |p| for the unit that each rank is said to have."""
    shapes = {(): (), (5,): (0,), (1, 5, 1): (0, 1, 2), (2, 3): (0,), (2, 3, 4): (0,), (2, 2, 3, 4): (0, 1, 2)}
    shapes[2, 2, 2, 3, 4] = (0, 1, 2, 3)
    p = {str(shape): jnp.asarray(RNG.standard_normal(shape), jnp.float32) for shape in shapes}
    g = jax.tree.map(lambda x: 100 * x[..., ::-1] if x.ndim else 100 * x, p)
    updates, _ = jax.jit(optim.adaptive_grad_clip(0.01).update)(g, optim.EmptyState(), p)
    for shape, axes in shapes.items():
        got, of = (np.sqrt(np.sum(np.square(x[str(shape)]), axis=axes)) for x in (updates, p))
        np.testing.assert_allclose(got, 0.01 * of, rtol=1e-5)
    big = {"w": jnp.ones((2,) * 6)}
    with pytest.raises(ValueError, match=r"adaptive_grad_clip: .*\(2, 2, 2, 2, 2, 2\).*`axis=`"):
        optim.adaptive_grad_clip(0.1).update(big, optim.EmptyState(), big)
    # A one-dimensional convolution: with its axes named, a unit is the kernel of one output.
    kernel = jnp.asarray(RNG.standard_normal((3, 2, 4)), jnp.float32)
    updates, _ = optim.adaptive_grad_clip(0.5, axis=(0, 1)).update(kernel, optim.EmptyState(), kernel)
    np.testing.assert_allclose(updates, kernel / 2, rtol=1e-6)


ZERO = {"w": jnp.zeros((2, 2))}


@pytest.mark.parametrize(
    "tx",
    [
        optim.scale_by_trust_ratio(),
        optim.adaptive_grad_clip(0.1),
        optim.scale_by_param_block_norm(),
        optim.clip_by_block_rms(0.1),
        optim.normalize(),
        optim.scale_by_dual("spectral"),
        optim.scale_by_dual("l2", scaling="unit"),
    ],
    ids=lambda tx: type(tx).__name__,
)
def test_slopes_at_zero_are_finite(tx):
    """Meta-gradients: the branch that is not taken holds sqrt(0) or 0 / 0, whose slope must not leak."""

    def out(s):
        moved = jax.tree.map(lambda x: s * x, ZERO)
        return jnp.sum(tx.update(moved, tx.init(moved), moved)[0]["w"])

    if tx != optim.scale_by_dual("spectral"):  # an SVD has no slope where singular values are equal
        assert jnp.isfinite(jax.grad(out)(1.0))
    assert out(1.0) == 0


def test_trust_ratio_without_a_length():
    """Parameters or gradients of zero: the gradient as it is, as in optax."""
    ones = {"w": jnp.ones(2)}
    zero = {"w": jnp.zeros(2)}
    tx = optim.scale_by_trust_ratio(trust_coefficient=0.1, eps=0.5)
    np.testing.assert_array_equal(tx.update(ones, optim.EmptyState(), zero)[0]["w"], ones["w"])
    np.testing.assert_array_equal(tx.update(zero, optim.EmptyState(), ones)[0]["w"], zero["w"])


def test_polyak():
    """One step solves f(x) = |x - c| (sharp), and half of the distance is left of a quadratic; edges as in optax."""
    c, x = jnp.array([1.0, 2.0]), jnp.array([4.0, 6.0])
    tx = optim.polyak_sgd(max_learning_rate=100.0)
    value, g = jax.value_and_grad(lambda x: jnp.linalg.norm(x - c))(x)
    updates, _ = tx.update(g, tx.init(x), x, value=value)
    np.testing.assert_allclose(x + updates, c, rtol=1e-6)
    for value, grads, args in ((0.5, 1e-9, ()), (-1.0, 1.0, ()), (-1.0, 1.0, (1.0, 0.0, 0.0, "sps+"))):
        grads = jnp.full(2, grads)
        args = args and (0.0, *args[:1], 0.0, args[3])
        ours, theirs = optim.scale_by_polyak(*args), optax.scale_by_polyak(*args)
        expected, _ = theirs.update(grads, theirs.init(x), x, value=value)
        np.testing.assert_allclose(ours.update(grads, ours.init(x), x, value=value)[0], expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"^scale_by_polyak: it reads the loss: .*value=loss"):
        tx.update(g, tx.init(x), x)


def test_factored_memory_is_sublinear():
    params = {"w": jnp.ones((128, 256)), "b": jnp.ones(256)}
    state = optim.adafactor(0.1).init(params)[0]
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 1 + 128 + 256 + 256
    mu = optim.sm3(0.1).init(params)[0].mu
    assert sum(leaf.size for leaf in jax.tree.leaves(mu)) == 128 + 256 + 256
    galore = optim.scale_by_galore(rank=4).init(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(galore.base_optimizer_state.mu)) == 128 * 4 + 256


def test_factored_rms_of_a_rank_one_square_is_exact(x64):
    """Where g^2 is an outer product, so is its mean, and rows and columns are all there is to know."""
    a, b = np.array([1.0, 2.0, 0.5]), np.array([3.0, -1.0])
    tx = optim.scale_by_factored_rms(min_dim_size_to_factor=2, epsilon=0.0)
    g = {"w": jnp.asarray(np.outer(a, b))}
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_allclose(updates["w"], np.sign(np.outer(a, b)), rtol=1e-12)


@pytest.mark.parametrize("make", [optim.adafactor, lambda rate: optim.clip_by_block_rms(1.0), optim.lamb])
def test_a_nan_is_not_hidden(make):
    params = {"w": jnp.ones(2)}
    tx = make(0.1)
    updates, _ = tx.update({"w": jnp.array([jnp.nan, 1.0])}, tx.init(params), params)
    assert bool(jnp.isnan(updates["w"][0]))


def test_sm3_of_scalars_is_adagrad():
    params = {"s": jnp.ones(())}
    sm3, adagrad = optim.sm3(0.1, 0.0), optim.adagrad(0.1, 0.0, 1e-8)
    states = [sm3.init(params), adagrad.init(params)]
    for g in (3.0, -1.0, 0.5):
        grads = {"s": jnp.array(g)}
        ours, states[0] = sm3.update(grads, states[0], params)
        expected, states[1] = adagrad.update(grads, states[1], params)
        np.testing.assert_allclose(ours["s"], expected["s"], rtol=1e-6)
    with pytest.raises(ValueError, match="scale_by_sm3: it does not work on complex"):
        sm3.init({"z": jnp.ones(2, jnp.complex64)})


def test_fromage_keeps_the_length_of_what_has_no_scale(x64):
    """A loss that depends on the direction of w alone: its gradient is orthogonal to w, and |w| stays as it was."""
    w = jnp.array([3.0, 4.0, 0.0])
    target = jnp.array([0.0, 1.0, 1.0])
    tx = optim.fromage(0.1)
    state = tx.init(w)
    for _ in range(5):
        g = jax.grad(lambda w: -w @ target / jnp.linalg.norm(w))(w)
        updates, state = tx.update(g, state, w)
        w = w + updates
    np.testing.assert_allclose(jnp.linalg.norm(w), 5.0, rtol=1e-12)


def test_optimism_converges_where_descent_diverges(x64):
    """min over x, max over y of x y: gradient descent multiplies the distance by sqrt(1 + eta^2) in every step."""

    def distance(tx, steps=200):
        p = jnp.array([1.0, 1.0])

        def step(carry, _):
            p, state = carry
            updates, state = tx.update(jnp.stack([p[1], -p[0]]), state, p)
            return (p + updates, state), None

        (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), None, length=steps)
        return float(jnp.linalg.norm(p))

    np.testing.assert_allclose(distance(optim.sgd(0.3)), 2**0.5 * 1.09**100, rtol=1e-10)
    assert distance(optim.optimistic_gradient_descent(0.3)) < 1e-4


def test_cautious_and_grokfast_equal_their_formulas(x64):
    """Written out in numpy, with Adam's moments by hand (Liang et al., listing 1; Lee et al., listing 2)."""
    alpha, lamb, rate = 0.9, 2.0, 0.1
    tx = optim.chain(optim.grokfast(alpha, lamb), optim.cautious(optim.sgd(rate, 0.9)))
    seen, _ = run(tx)
    for name in P:
        slow, v = G[0][name], 0.0
        for t in range(3):
            slow = alpha * slow + (1 - alpha) * G[t][name]
            g = G[t][name] + lamb * slow
            v = 0.9 * v + g
            mask = (v * g > 0).astype(float)
            np.testing.assert_allclose(seen[t][name], -rate * v * mask / max(mask.mean(), 1e-3), rtol=1e-12)
    # A rule, which points along the gradient, masks the same elements.
    rule = optim.chain(optim.cautious(optim.trace(0.9), downhill=False), optim.scale(-rate))
    same(rule, run(optim.cautious(optim.sgd(rate, 0.9)))[0])


def test_galore_with_full_rank_and_no_memory_is_the_rule_itself(x64):
    """P P^T = 1: SGD in a full subspace is SGD. The projection is found in float32."""
    g, p = {"w": G[0]["m"]}, {"w": P["m"]}
    seen, _ = run(optim.scale_by_galore(2, 1, base_optimizer=optim.identity()), params=p, grads=[g])
    # Wider than tall is projected from the other side; only the span of the shorter side is whole.
    np.testing.assert_allclose(seen[0]["w"], g["w"], rtol=1e-6)
    wide, _ = run(optim.scale_by_galore(2, 1, 0.5, optim.identity()), params={"w": P["m"].T}, grads=[{"w": g["w"].T}])
    np.testing.assert_allclose(wide[0]["w"], 0.5 * g["w"].T, rtol=1e-6)


def test_complex_parameters_equal_optax(x64):
    z = {"z": jnp.array([1.0 + 2.0j, -0.5j])}
    for ours, theirs in (
        (optim.lion(0.1), optax.lion(0.1)),
        (optim.lamb(0.1), optax.lamb(0.1)),
        (optim.clip_by_block_rms(0.1), optax.clip_by_block_rms(0.1)),
        (optim.adaptive_grad_clip(0.1), optax.adaptive_grad_clip(0.1)),
        (optim.normalize(), contrib.normalize()),
    ):
        got, _ = ours.update(z, ours.init(z), z)
        with jax.numpy_dtype_promotion("standard"):
            expected, _ = theirs.update(z, theirs.init(z), z)
        np.testing.assert_allclose(got["z"], expected["z"], rtol=1e-12)


def test_hyperparameters_may_be_traced():
    """One program for several runs, each equal to a plain one."""
    params = {"w": jnp.array([[1.0, -2.0], [0.3, 0.4]]), "b": jnp.array([0.5])}

    def step(x):
        links = [
            optim.muon(x, ns_steps=1, beta=x, consistent_rms=x),
            optim.lion(x, x, weight_decay=x),
            optim.lamb(x, x, eps=x),
            optim.fromage(x, x),
            optim.adafactor(x, 1, x, momentum=x, clipping_threshold=x),
            optim.chain(optim.scale_by_sm3(x, x, x), optim.adaptive_grad_clip(x, x), optim.clip_by_block_rms(x)),
            optim.chain(optim.grokfast(x, x), optim.cautious(optim.signum(x, x), x), optim.scale_by_galore(1, 2, x)),
            optim.chain(optim.add_noise(x, x, 0), optim.scale_by_optimistic_gradient(x, x)),
            optim.scale_by_polyak(x, x, x),
        ]
        last = links.pop()
        value = last.update(params, last.init(params), params, value=jnp.float32(3.0))[0]
        return [tx.update(params, tx.init(params), params)[0] for tx in links], value

    many = jax.jit(jax.vmap(step))(jnp.array([0.3, 0.6]))
    alone = jax.jit(lambda: step(0.6))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5), many, alone)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.lion(0.1, 1.0), "^scale_by_lion: b1 is 1.0, wanted 0 <= b1 < 1"),
        (lambda: optim.scale_by_lion(mode="soft"), "^scale_by_lion: mode is 'soft', wanted 'hard'"),
        (lambda: optim.scale_by_trust_ratio(-1.0), "^scale_by_trust_ratio: min_norm is -1.0, wanted 0 or more"),
        (lambda: optim.adafactor(0.1, decay_rate=-1.0), "^scale_by_factored_rms: decay_rate is -1.0"),
        (lambda: optim.scale_by_sm3(b2=1.5), "^scale_by_sm3: b2 is 1.5, wanted 0 <= b2 <= 1"),
        (lambda: optim.scale_by_polyak(variant="max"), "^scale_by_polyak: variant is 'max', wanted 'sps'"),
        (lambda: optim.centralize(1), "^centralize: unit_axis is 1, wanted 0 or -1"),
        (lambda: optim.grokfast(1.0), "^grokfast: alpha is 1.0"),
        (lambda: optim.cautious(optim.sgd(0.1), -1.0), "^cautious: min_share is -1.0"),
    ],
)
def test_arguments_out_of_range(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_schedule_where_only_a_number_will_do(unchecked):
    with pytest.raises(TypeError, match=r"^optimistic_adam: the learning rate is a schedule"):
        optim.optimistic_adam(optim.constant_schedule(0.1))
