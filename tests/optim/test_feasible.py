"""Projections beside optax, proximal steps beside closed forms, layer-wise decay, micro-batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlkit import nn, optim
from dlkit.optim import projections

RNG = np.random.default_rng(3)
TREE = {
    "w": jnp.asarray(2 * RNG.standard_normal((3, 2)), jnp.float32),
    "b": jnp.asarray(RNG.standard_normal(4), jnp.float32),
}
INSIDE = jax.tree.map(lambda x: 0.01 * jnp.abs(x), TREE)
NORMAL = jax.tree.map(lambda x: jnp.cos(x), TREE)
NAMES = list(projections.__all__)
ARGUMENTS = {
    "projection_box": [(-0.5, 0.7), (jax.tree.map(lambda x: -jnp.abs(x) / 2, TREE), 1.0)],
    "projection_non_negative": [()],
    "projection_vector": [(NORMAL,)],
    "projection_hyperplane": [(NORMAL, 0.3)],
    "projection_halfspace": [(NORMAL, 0.3), (NORMAL, 100.0)],
}


@pytest.mark.parametrize("name", NAMES)
def test_projections_equal_optax(name):
    for tree in (TREE, INSIDE):
        for args in ARGUMENTS.get(name, [(1.0,), (2.5,)]):
            got = jax.jit(getattr(projections, name))(tree, *args)
            reference, given = getattr(optax.projections, name), args
            if name == "projection_box":  # optax raises for numbers beside trees
                given = [x if isinstance(x, dict) else jax.tree.map(lambda _, x=x: x, tree) for x in args]
            with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
                if name == "projection_hypercube":  # and takes no tree at all
                    expected = jax.tree.map(lambda x, f=reference, s=args[0]: f(x, s), tree)
                else:
                    expected = reference(tree, *given)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)
            again = getattr(projections, name)(got, *args)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), again, got)


def test_edges_of_projections():
    zero = {"w": jnp.zeros(3)}
    for name in ("projection_l2_sphere", "projection_l2_ball", "projection_l1_ball"):
        np.testing.assert_array_equal(getattr(projections, name)(zero)["w"], 0)
    np.testing.assert_array_equal(projections.projection_vector({"w": jnp.ones(3)}, zero)["w"], 0)
    narrow = projections.projection_simplex({"w": jnp.ones(4, jnp.bfloat16)})
    assert narrow["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(narrow["w"].astype(jnp.float32), 0.25)


def test_projected_gradient_descent_solves_a_constrained_problem():
    """min |x - c|^2 on the simplex: the projection of c itself; every iterate is feasible."""
    c = jnp.array([0.9, 0.6, -0.3])
    tx = optim.chain(optim.sgd(0.2), optim.project(projections.projection_simplex))
    p = {"x": jnp.ones(3) / 3}
    state = tx.init(p)
    for _ in range(60):
        updates, state = tx.update({"x": 2 * (p["x"] - c)}, state, p)
        p = optim.apply_updates(p, updates)
        np.testing.assert_allclose(p["x"].sum(), 1, rtol=1e-6)
        assert (p["x"] >= -1e-7).all()
    np.testing.assert_allclose(p["x"], [0.65, 0.35, 0.0], atol=1e-6)
    assert repr(tx.links[1]) == "Project(projection_simplex)"


def test_keep_params_nonnegative_equals_optax():
    p = jax.tree.map(jnp.abs, TREE)
    ours, theirs = (m.chain(m.sgd(1.0), m.keep_params_nonnegative()) for m in (optim, optax))
    got, expected = (optim.apply_updates(p, tx.update(TREE, tx.init(p), p)[0]) for tx in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert min(float(x.min()) for x in jax.tree.leaves(got)) == 0


class TestProximal:
    def test_group_lasso_is_the_l2_ball_by_moreau(self):
        """x = prox(x) + projection onto the ball of the dual norm, whose radius is the strength."""
        rows = TREE["w"]
        got = optim.prox_group_lasso(rows, 0.8)
        for x, y in zip(rows, got, strict=True):
            np.testing.assert_allclose(x - y, projections.projection_l2_ball(x, 0.8), rtol=1e-5, atol=1e-6)
        columns = optim.prox_group_lasso(rows, 0.8, axis=0)
        np.testing.assert_allclose(columns, optim.prox_group_lasso(rows.T, 0.8).T, rtol=1e-6)
        np.testing.assert_array_equal(optim.prox_group_lasso(jnp.zeros((2, 2)), 0.8), 0)

    def test_l1_is_the_box_by_moreau(self):
        x = TREE["b"]
        np.testing.assert_allclose(x - optim.prox_l1(x, 0.5), jnp.clip(x, -0.5, 0.5), rtol=1e-5, atol=1e-7)

    def test_nuclear_norm_lowers_the_rank(self):
        u, _ = np.linalg.qr(RNG.standard_normal((5, 3)))
        v, _ = np.linalg.qr(RNG.standard_normal((4, 3)))
        x = jnp.asarray(u @ np.diag([3.0, 1.0, 0.4]) @ v.T, jnp.float32)
        s = jnp.linalg.svd(optim.prox_nuclear(x, 0.5), compute_uv=False)
        np.testing.assert_allclose(s[:3], [2.5, 0.5, 0.0], atol=1e-5)
        np.testing.assert_array_equal(optim.prox_nuclear(TREE["b"], 0.5), TREE["b"])
        stacked = optim.prox_nuclear(jnp.stack([x, 2 * x]), 0.5)
        np.testing.assert_allclose(stacked[0], optim.prox_nuclear(x, 0.5), atol=1e-5)

    def test_ista_solves_the_lasso(self):
        """Against scikit-learn's coordinate descent: the same support with exact zeros, the same values."""
        from sklearn.linear_model import Lasso

        x = RNG.standard_normal((40, 6))
        y = x @ np.array([2.0, 0.0, 0.0, -1.0, 0.0, 0.0]) + 0.1 * RNG.standard_normal(40)
        expected = Lasso(alpha=0.3, fit_intercept=False, tol=1e-12).fit(x, y).coef_
        a, b = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
        tx = optim.chain(optim.sgd(0.3), optim.proximal(optim.prox_l1, 0.3, 0.3))

        def step(carry, _):
            p, state = carry
            updates, state = tx.update({"w": a.T @ (a @ p["w"] - b) / 40}, state, p)
            return (optim.apply_updates(p, updates), state), None

        p = {"w": jnp.ones(6)}
        (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), None, length=300)
        np.testing.assert_allclose(p["w"], expected, atol=1e-5)
        np.testing.assert_array_equal(p["w"] == 0, expected == 0)
        assert (expected == 0).sum() >= 3

    def test_the_rate_is_a_schedule(self):
        tx = optim.proximal(optim.prox_l1, 1.0, optim.linear_schedule(0.5, 0.0, 2))
        p, state = {"w": jnp.array([3.0])}, tx.init(None)
        for expected in (2.5, 2.25, 2.25):
            updates, state = tx.update({"w": jnp.zeros(1)}, state, p)
            p = optim.apply_updates(p, updates)
            assert float(p["w"][0]) == expected
        with pytest.raises(ValueError, match=r"proximal: strength is -1\.0"):
            optim.proximal(optim.prox_l1, -1.0, 0.1)


class TestLayerDecay:
    """The rule of BEiT and timm: rate * decay^(layers above)."""

    MODEL = nn.Chain(embed=nn.Linear(3, 4), blocks=nn.Stack(nn.Chain(fc=nn.Linear(4, 4)), 3), head=nn.Linear(4, 2))
    TX = optim.chain(optim.sgd(1.0), optim.scale_by_depth(0.5, ("embed/**", "blocks/**", "**"), stacked="blocks/**"))

    def test_stacked_blocks(self):
        params = self.MODEL.init(jax.random.key(0))
        ones = jax.tree.map(jnp.ones_like, params)
        updates, _ = jax.jit(self.TX.update)(ones, self.TX.init(params), params)
        np.testing.assert_array_equal(-updates["embed"]["w"], 0.5**4)
        np.testing.assert_array_equal(-updates["blocks"]["fc"]["w"][:, 0, 0], [0.5**3, 0.5**2, 0.5])
        np.testing.assert_array_equal(-updates["blocks"]["fc"]["b"][:, 0], [0.5**3, 0.5**2, 0.5])
        np.testing.assert_array_equal(-updates["head"]["b"], 1.0)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: optim.scale_by_depth(0.0, ("**",)), "decay is 0.0, wanted 0 < decay <= 1"),
            (lambda: optim.scale_by_depth(0.5, ("**",), stacked=("b/**",)), "stacked names 'b/"),
            (lambda: optim.scale_by_depth(0.5, ("embd/**", "**")).init(TREE), "'embd/.*' matches none"),
            (lambda: optim.scale_by_depth(0.5, ("w",)).init(TREE), "1 leaves match none of the globs 'w': b"),
            (lambda: optim.scale_by_depth(0.5, ("**",), stacked="**").init(TREE), r"stacks of \[3, 4\] layers"),
        ],
    )
    def test_what_does_not_fit(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


class TestMicrobatch:
    X = jnp.asarray(RNG.standard_normal((12, 3)), jnp.float32)
    W = jnp.asarray(RNG.standard_normal(3), jnp.float32)

    @staticmethod
    def loss(w, x):
        return jnp.mean(jnp.tanh(x @ w) ** 2)

    @pytest.mark.parametrize("kind", ["MEAN", "RUNNING_MEAN", "SUM"])
    @pytest.mark.parametrize("real", [None, 2])
    def test_equals_optax(self, kind, real):
        fun = jax.value_and_grad(self.loss)
        ours = optim.microbatch(fun, 1, 4, optim.AccumulationType[kind], num_real_microbatches=real)
        theirs = optax.microbatching.microbatch(
            fun, 1, 4, optax.microbatching.AccumulationType[kind], num_real_microbatches=real
        )
        for a, b in zip(jax.jit(ours)(self.W, self.X), theirs(self.W, self.X), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        if kind != "SUM" and real is None:
            for a, b in zip(ours(self.W, self.X), fun(self.W, self.X), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    def test_trees_of_accumulators_and_names(self):
        def fun(*, x, y):
            return {"rows": x @ self.W, "sum": jnp.sum(y)}

        kinds = {"rows": optim.AccumulationType.CONCAT, "sum": optim.AccumulationType.SUM}
        run = optim.microbatch(fun, (), 3, kinds, argnames=("x", "y"), in_axes=(0, 1))
        y = jnp.arange(24).reshape(2, 12)
        got = run(x=self.X, y=y)
        np.testing.assert_allclose(got["rows"], self.X @ self.W, rtol=1e-5)
        assert int(got["sum"]) == int(y.sum())
        assert optim.microbatch(fun, 0, None) is fun

    def test_an_accumulator_of_your_own(self):
        largest = optim.Accumulator(
            lambda like: jnp.full(like.shape, -jnp.inf, like.dtype),
            lambda carry, value, i: jnp.maximum(carry, value),
            lambda carry: carry,
            lambda values: values.max(0),
        )
        assert optim.microbatch(jnp.max, 0, 3, largest)(self.X) == self.X.max()
        got = optim.micro_vmap(lambda x: x.sum(), microbatch_size=3, accumulator=largest)(self.X)
        np.testing.assert_allclose(got, self.X.sum(-1).max(), rtol=1e-6)

    @pytest.mark.parametrize("kind", ["CONCAT", "MEAN", "SUM"])
    def test_micro_vmap(self, kind):
        f = lambda x, y: jnp.sin(x) * y  # noqa: E731
        y = self.X.T
        got = optim.micro_vmap(f, (0, 1), microbatch_size=4, accumulator=optim.AccumulationType[kind])(self.X, y)
        whole = jax.vmap(f, (0, 1))(self.X, y)
        expected = {"CONCAT": whole, "MEAN": whole.mean(0), "SUM": whole.sum(0)}[kind]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)

    def test_what_does_not_fit(self):
        with pytest.raises(ValueError, match="size 5 does not divide the 12 rows"):
            optim.microbatch(self.loss, 1, 5)(self.W, self.X)
        with pytest.raises(ValueError, match=r"have \[3, 4\] micro-batches"):
            optim.microbatch(lambda a, b: a, (0, 1), 3)(self.X, self.X[:9])
        with pytest.raises(TypeError, match="got accumulator 'sum'"):
            optim.microbatch(self.loss, 1, 4, "sum")(self.W, self.X)
        with pytest.raises(ValueError, match="out_axes is 1, wanted 0"):
            optim.micro_vmap(self.loss, out_axes=1)
