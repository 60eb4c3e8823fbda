"""K-FAC's algebra, the factors being given: against dense Kronecker products in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import optim
from dlkit.optim import KfacLayer, KroneckerFactors

RNG = np.random.default_rng(11)


def moments(*shape):
    """Positive semi-definite `[..., d, d]`."""
    x = RNG.standard_normal((*shape, shape[-1]))
    return np.einsum("...ij,...kj->...ik", x, x)


def damped(pair, damping):
    """(A + pi gamma I) kron (G + gamma / pi I)."""
    a, g = (np.asarray(m, np.float64) for m in pair)
    pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
    gamma = np.sqrt(damping)
    return np.kron(a + pi * gamma * np.eye(len(a)), g + gamma / pi * np.eye(len(g)))


PARAMS = {"fc": {"w": RNG.standard_normal((3, 2)), "b": RNG.standard_normal(2)}, "norm": {"scale": np.ones(2)}}
FACTORS = {"fc": KroneckerFactors(moments(4), moments(2))}


def test_solves_with_the_damped_product(x64):
    """vec([w; b]) row by row: (A kron G)^(-1) vec = vec(A^(-1) [w; b] G^(-1)). Other leaves keep their gradient."""
    tx = optim.scale_by_kfac(0.1, kl_clip=None)
    updates, state = tx.update(PARAMS, tx.init(PARAMS), factors=FACTORS)
    matrix = np.concatenate([PARAMS["fc"]["w"], PARAMS["fc"]["b"][None]])
    wanted = np.linalg.solve(damped(FACTORS["fc"], 0.1), matrix.reshape(-1)).reshape(4, 2)
    np.testing.assert_allclose(updates["fc"]["w"], wanted[:3], rtol=1e-10)
    np.testing.assert_allclose(updates["fc"]["b"], wanted[3], rtol=1e-10)
    np.testing.assert_array_equal(updates["norm"]["scale"], 1)
    np.testing.assert_allclose(state.factors["fc"].a, FACTORS["fc"].a, rtol=1e-12)


def test_kernels_and_stacks(x64):
    """All axes of a kernel but the last are rows; a stack is several layers at once."""
    w = RNG.standard_normal((5, 2, 2, 3, 4))
    params, factors = {"s": {"w": w}}, {"s": KroneckerFactors(moments(5, 12), moments(5, 4))}
    tx = optim.scale_by_kfac(0.1, kl_clip=None, layers=(KfacLayer("s", stacked=1),))
    together = tx.update(params, tx.init(params), factors=factors)[0]["s"]["w"]
    alone = optim.scale_by_kfac(0.1, kl_clip=None)
    for i in range(5):
        one = {"s": {"w": w[i]}}
        of_i = {"s": KroneckerFactors(factors["s"].a[i], factors["s"].g[i])}
        np.testing.assert_allclose(
            together[i], alone.update(one, alone.init(one), factors=of_i)[0]["s"]["w"], rtol=1e-10
        )


def test_averages_and_when_inverses_are_renewed(x64):
    tx = optim.scale_by_kfac(0.1, decay=0.6, inverse_every=3, kl_clip=None)
    state, mean = tx.init(PARAMS), None
    update = jax.jit(lambda s, f: tx.update(PARAMS, s, factors=f))
    kept = jax.jit(lambda s: tx.update(PARAMS, s))
    for t in range(5):
        new = moments(4)
        old = min(1 - 1 / (t + 1), 0.6)
        mean = new if t == 0 else old * mean + (1 - old) * new
        before = state.inverses["fc"].a
        _, state = update(state, {"fc": KroneckerFactors(new, FACTORS["fc"].g)})
        np.testing.assert_allclose(state.factors["fc"].a, mean, rtol=1e-12)
        assert bool(jnp.all(before == state.inverses["fc"].a)) == (t % 3 != 0)
    _, after = kept(state)
    np.testing.assert_array_equal(after.factors["fc"].a, state.factors["fc"].a)
    assert (int(after.seen), int(after.count)) == (5, 6)


def test_the_first_factors_are_used_at_once(x64):
    tx = optim.scale_by_kfac(0.1, inverse_every=100, kl_clip=None)
    _, state = tx.update(PARAMS, tx.init(PARAMS))
    _, state = tx.update(PARAMS, state, factors=FACTORS)
    np.testing.assert_allclose(
        np.kron(*state.inverses["fc"]), np.linalg.inv(damped(FACTORS["fc"], 0.1)), rtol=1e-9, atol=1e-12
    )


def test_clip(x64):
    """eta^2 u^T F u is at most kl_clip, F being the damped product; shorter steps stay as they are."""
    for limit, rate in ((1e-3, 0.3), (1e3, 0.3)):
        tx = optim.scale_by_kfac(0.1, kl_clip=limit, learning_rate=rate)
        free = optim.scale_by_kfac(0.1, kl_clip=None)
        u, plain = (t.update(PARAMS, t.init(PARAMS), factors=FACTORS)[0]["fc"] for t in (tx, free))
        flat = [np.concatenate([x["w"].reshape(-1), x["b"]]) for x in (u, plain)]
        sizes = [rate**2 * x @ damped(FACTORS["fc"], 0.1) @ x for x in flat]
        np.testing.assert_allclose(sizes[0], min(limit, sizes[1]), rtol=1e-6)  # the size is summed in float32


def test_newton_on_a_quadratic(x64):
    """Where the curvature is A kron G, one undamped step of rate 1 is at the minimum."""
    a, g, target = moments(3) + np.eye(3), moments(2) + np.eye(2), RNG.standard_normal((3, 2))

    def loss(p):
        return jnp.sum((p["w"] - target) * (a @ (p["w"] - target) @ g)) / 2

    params = {"w": jnp.zeros((3, 2))}
    tx = optim.kfac(1.0, damping=1e-12, kl_clip=None)
    updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params, factors={"": KroneckerFactors(a, g)})
    np.testing.assert_allclose(updates["w"], target, atol=1e-5)  # sqrt(damping)


def test_factors_of_zero():
    """A dead layer: nothing is infinite, in float32."""
    zeros = {"fc": KroneckerFactors(jnp.zeros((4, 4)), jnp.zeros((2, 2)))}
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), PARAMS)
    tx = optim.kfac(0.1)
    for factors in (zeros, {"fc": zeros["fc"]._replace(a=jnp.eye(4))}):
        updates, state = tx.update(params, tx.init(params), params, factors=factors)
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((updates, state)))


@pytest.mark.parametrize(("of_params", "of_grads"), [("bfloat16", "bfloat16"), ("float32", "bfloat16")])
def test_types_with_factors(of_params, of_grads):
    """States keep their types, factors are float32, and the contract holds with factors as without."""
    params, grads = (jax.tree.map(lambda p, d=d: jnp.asarray(p, d), PARAMS) for d in (of_params, of_grads))
    tx = optim.kfac(0.1)
    state = tx.init(params)
    factors = jax.tree.map(lambda m: jnp.asarray(m, jnp.float32), FACTORS)
    updates, after = jax.jit(lambda s: tx.update(grads, s, params, factors=factors))(state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
    assert after[0].factors["fc"].a.dtype == updates["fc"]["w"].dtype == jnp.float32


def test_errors():
    tx = optim.kfac(0.1)
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=r"there are no factors for 'fc', only for \[\]: .*train.kfac_layers"):
        tx.update(PARAMS, state, PARAMS, factors={})
    with pytest.raises(ValueError, match=r"factors of 'fc' have shapes \[\(3, 3\), \(2, 2\)\], wanted \[\(4, 4\)"):
        tx.update(PARAMS, state, PARAMS, factors={"fc": KroneckerFactors(np.eye(3), np.eye(2))})
    with pytest.raises(ValueError, match=r"KfacLayer\(path='head', stacked=0\) has no matrix 'head/w' among"):
        optim.kfac(0.1, layers=(KfacLayer("head"),)).init(PARAMS)
    with pytest.raises(ValueError, match="do not match the state"):
        optim.scale_by_kfac().update({"v": PARAMS["fc"]}, state[0])
