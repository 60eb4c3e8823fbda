"""Groups of leaves, groups of steps: partition, freezing, conditions, accumulation, one vector; beside optax."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlkit import optim, tree

RNG = np.random.default_rng(0)
PARAMS = {
    "body": {"w": jnp.asarray(RNG.standard_normal((3, 2)), jnp.float32), "b": jnp.ones(2)},
    "head": {"w": jnp.asarray(RNG.standard_normal((2, 2)), jnp.float32), "b": jnp.zeros(2)},
}
# The bias corrections of optax's Adam lose digits in float32: 1e-5 of a step of 0.1, five times.
CLOSE = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=5e-6)


def gradients(p, t):
    return jax.tree.map(lambda x: jnp.sin(3 * x + t) + 0.1, p)


def run(tx, steps=5, params=PARAMS, grads=gradients):
    """The parameters after each step, and the last state."""
    with jax.numpy_dtype_promotion("standard"):  # for optax

        @jax.jit
        def step(p, state, t):
            updates, state = tx.update(grads(p, t), state, p)
            return optim.apply_updates(p, updates), state

        state, seen = tx.init(params), []
        for t in range(steps):
            params, state = step(params, state, jnp.float32(t))
            seen.append(params)
    return seen, state


def same(a, b):
    jax.tree.map(CLOSE, a, b)


def labels(params):
    return {"body": "slow", "head": jax.tree.map(lambda _: "fast", params["head"])}


GROUPS = {"slow": optim.sgd(0.01, 0.9), "fast": optim.adam(0.1)}


class TestPartition:
    @pytest.mark.parametrize("of", [labels(PARAMS), labels, {"body": "slow", "head": "fast"}])
    def test_labels_as_optax_has_them(self, of):
        expected, _ = run(optax.partition({"slow": optax.sgd(0.01, 0.9), "fast": optax.adam(0.1)}, of))
        got, state = run(optim.partition(GROUPS, of))
        same(got, expected)
        assert set(tree.flatten(state.inner_states["fast"].inner_state[0].mu)) == {"head/b", "head/w"}

    def test_globs_in_order(self):
        by_label, _ = run(optim.partition(GROUPS, labels))
        got, state = run(optim.partition({"head/**": GROUPS["fast"], "**": GROUPS["slow"]}))
        same(got, by_label)
        rates = {float(rate) for rate in optim.learning_rates(state).values()}
        assert rates == {np.float32(0.1), np.float32(0.01)}

    def test_is_the_chain_of_masks(self):
        """Each group is what `masked` makes of it alone."""
        tx = optim.chain(optim.masked(GROUPS["slow"], "body/**"), optim.masked(GROUPS["fast"], "head/**"))
        same(run(tx)[0], run(optim.partition(GROUPS, labels))[0])

    def test_optax_inside(self):
        tx = optim.partition({"head/**": optax.adam(0.1), "**": optim.sgd(0.01, 0.9)})
        same(run(tx)[0], run(optim.partition(GROUPS, labels))[0])

    def test_extra_arguments(self):
        tx = optim.partition({"**": optax.polyak_sgd()})
        only = optax.polyak_sgd()
        with jax.numpy_dtype_promotion("standard"):
            got, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.float32(3.0))
            expected, _ = only.update(PARAMS, only.init(PARAMS), PARAMS, value=jnp.float32(3.0))
        same(got, expected)

    @pytest.mark.parametrize("make", [optim.masked, lambda tx, glob, **k: optim.partition({glob: tx, "**": tx}, **k)])
    def test_extra_arguments_cut_down_to_the_group(self, make):
        seen = []

        class Sees(optim.Transform):
            def init(self, params):
                return ()

            def update(self, grads, state, params=None, *, grad=None):
                seen.append(set(tree.flatten(grad)))
                return grads, state

        for cut, expected in ((True, {"head/w", "head/b"}), (False, set(tree.flatten(PARAMS)))):
            seen.clear()
            tx = make(Sees(), "head/**", mask_compatible_extra_args=cut)
            tx.update(PARAMS, tx.init(PARAMS), PARAMS, grad=PARAMS)
            assert seen[0] == expected

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (({"haed/**": optim.sgd(0.1), "**": optim.sgd(0.1)},), r"'haed/\*\*' matches none of the 4 paths"),
            (({"head/**": optim.sgd(0.1)},), r"2 leaves match none .*: body/b, body/w; add a last glob"),
            (({"**": optim.sgd(0.1), "head/**": optim.sgd(0.1)},), r"'head/\*\*' matches is taken by a glob before"),
            ((GROUPS, {"body": "slow", "head": "fats"}), r"label of 'head/b' is 'fats', wanted one of 'slow', 'fast'"),
            ((GROUPS, {"body": "slow"}), r"labels do not fit the parameters"),
        ],
    )
    def test_groups_that_do_not_fit(self, args, message):
        with pytest.raises(ValueError, match=message):
            optim.partition(*args).init(PARAMS)

    def test_is_a_value(self):
        a, b = (optim.partition(GROUPS, {"body": "slow", "head": "fast"}) for _ in range(2))
        assert a == b == pickle.loads(pickle.dumps(a))  # noqa: S301
        assert hash(a) == hash(b)
        with pytest.raises(TypeError, match="wanted a transform"):
            optim.partition({"**": 0.1})
        with pytest.raises(TypeError, match="are path globs"):
            optim.partition({1: optim.sgd(0.1)})


class TestFreezing:
    """Ask 13, the optimizer's part: no slots, no norm, no decay, not a bit."""

    TX = optim.selective_transform(
        optim.chain(optim.clip_by_global_norm(0.1), optim.adamw(0.1, weight_decay=0.5)), freeze_mask=["body/**"]
    )

    def test_frozen_leaves(self):
        seen, state = run(self.TX)
        jax.tree.map(np.testing.assert_array_equal, seen[-1]["body"], PARAMS["body"])
        assert {p.split("/")[-2] for p in tree.flatten(state) if "mu/" in p} == {"head"}
        alone, alone_state = run(self.TX.optimizer, params={"head": PARAMS["head"]})
        same(seen[-1]["head"], alone[-1]["head"])
        CLOSE(optim.gradient_norm(state), optim.gradient_norm(alone_state))

    def test_equals_optax(self):
        mask = {"body": jax.tree.map(lambda _: True, PARAMS["body"]), "head": {"w": False, "b": False}}
        expected, _ = run(optax.selective_transform(optax.adamw(0.1, weight_decay=0.5), freeze_mask=mask))
        for given in (mask, "body/**", {"body": True, "head": False}):
            same(run(optim.selective_transform(self.TX.optimizer.links[1], freeze_mask=given))[0], expected)
        expected, _ = run(optax.chain(optax.adam(0.1), optax.freeze(mask)))
        same(run(optim.chain(optim.adam(0.1), optim.freeze("body/**")))[0], expected)

    def test_a_pattern_that_matches_nothing(self):
        for tx in (optim.freeze("bdy/**"), optim.selective_transform(optim.sgd(0.1), freeze_mask="bdy/**")):
            with pytest.raises(ValueError, match=r"'bdy/\*\*' matches none of the 4 paths; near it: body"):
                tx.init(PARAMS)


def third(t):
    return t % 3 == 0


@pytest.mark.parametrize("name", ["conditionally_mask", "conditionally_transform"])
def test_conditions_equal_optax(name):
    got, state = run(getattr(optim, name)(optim.sgd(0.1, 0.9), third))
    expected, other = run(getattr(optax, name)(optax.sgd(0.1, 0.9), third))
    same(got, expected)
    assert int(state.step) == int(other.step) == 5


def test_conditions_may_read_extra_arguments():
    def small(step, *, value):
        return value < 1.0

    tx = optim.conditionally_mask(optim.scale(1.0), small, forward_extra_args=True)
    for value, kept in ((0.5, 1), (2.0, 0)):
        updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.float32(value))
        np.testing.assert_array_equal(updates["body"]["b"], kept * PARAMS["body"]["b"])


def test_flatten_is_the_same_and_one_vector():
    tx = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(0.1))
    same(run(optim.flatten(tx))[0], run(tx)[0])
    same(
        run(optim.flatten(tx))[0], run(optax.flatten(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))))[0]
    )
    state = optim.flatten(tx).init(PARAMS)
    assert {leaf.shape for leaf in jax.tree.leaves(state)} == {(), (14,)}
    mixed = {"w": jnp.ones(2, jnp.bfloat16), "b": jnp.ones((2, 2)), "z": jnp.array([1j])}
    tx = optim.flatten(optim.sgd(0.5))
    updates, _ = tx.update(mixed, tx.init(mixed), mixed)
    assert {name: u.dtype.name for name, u in updates.items()} == {"w": "float32", "b": "float32", "z": "complex64"}
    np.testing.assert_array_equal(updates["z"], [-0.5j])
    assert tx.update({}, tx.init({}), {})[0] == {}


def test_tree_map_params():
    """Against optax's own function on optax's own states, and where a mask left leaves out."""
    names = tree.map_with_path(lambda path, _: path, PARAMS)
    pick = lambda slot, name: name  # noqa: E731
    drop = lambda leaf: None  # noqa: E731
    for ours, theirs in ((optim.adam(0.1), optax.adam(0.1)), (optim.sgd(0.1, 0.9), optax.sgd(0.1, 0.9))):
        got = optim.tree_map_params(ours, pick, ours.init(PARAMS), names, transform_non_params=drop)
        expected = optax.tree_map_params(theirs, pick, theirs.init(PARAMS), names, transform_non_params=drop)
        assert jax.tree.leaves(got) == jax.tree.leaves(expected)
        theirs_too = optim.tree_map_params(theirs, pick, theirs.init(PARAMS), names, transform_non_params=drop)
        assert theirs_too == expected
    for tx in (
        optim.masked(optim.adam(0.1), "head/**"),
        optim.selective_transform(optim.adam(0.1), freeze_mask="body/**"),
        optim.partition({"head/**": optim.adam(0.1), "**": optim.set_to_zero()}),
    ):
        got = optim.tree_map_params(tx, pick, tx.init(PARAMS), names)
        found = optim.find_states(got, optim.ScaleByAdamState)
        (adam,) = found.values()
        assert jax.tree.leaves(adam.mu) == ["head/b", "head/w"]
        assert int(adam.count) == 0


class TestAccumulation:
    @pytest.mark.parametrize("mean", [True, False])
    def test_multi_steps_equal_optax(self, mean):
        ours = optim.multi_steps(optim.adamw(optim.linear_schedule(0.1, 0.0, 4)), 3, use_grad_mean=mean)
        theirs = optax.MultiSteps(optax.adamw(optax.linear_schedule(0.1, 0.0, 4)), 3, use_grad_mean=mean)
        got, state = run(ours, 7)
        expected, other = run(theirs, 7)
        same(got, expected)
        assert [int(state.mini_step), int(state.gradient_step)] == [1, 2]
        assert int(other.gradient_step) == 2
        # The schedule counts updates: report and state say which one was used.
        assert optim.learning_rate(state) == np.float32(0.075)

    def test_k_may_be_a_schedule(self):
        def every(step):
            return jnp.where(step < 1, 1, 2)

        got, _ = run(optim.MultiSteps(optim.sgd(0.1), every), 6)
        expected, _ = run(optax.MultiSteps(optax.sgd(0.1), every), 6)
        same(got, expected)

    def test_skipped_calls_do_not_count(self):
        def grads(p, t):
            return jax.tree.map(lambda g: jnp.where(t == 1, jnp.nan, g), gradients(p, t))

        for ours, theirs in (
            (optim.skip_not_finite, optax.skip_not_finite),
            (functools.partial(optim.skip_large_updates, max_squared_norm=1e6),
             functools.partial(optax.skip_large_updates, max_squared_norm=1e6)),
        ):  # fmt: skip
            got, state = run(optim.multi_steps(optim.sgd(0.1), 2, should_skip_update_fn=ours), 5, grads=grads)
            expected, other = run(optax.MultiSteps(optax.sgd(0.1), 2, should_skip_update_fn=theirs), 5, grads=grads)
            same(got, expected)
            assert bool(jnp.all(jnp.isfinite(got[-1]["body"]["w"])))
            assert set(state.skip_state) == set(other.skip_state)

    def test_the_sum_of_narrow_gradients_is_wide(self):
        """256 ones in bfloat16 stop at 256; here 1/512 more is seen."""
        params = {"w": jnp.zeros(1, jnp.bfloat16)}
        tx = optim.multi_steps(optim.sgd(1.0), 512, use_grad_mean=False)
        one = {"w": jnp.ones(1, jnp.bfloat16)}

        def step(state, _):
            updates, state = tx.update(one, state, params)
            return state, updates["w"]

        _, updates = jax.lax.scan(step, tx.init(params), None, length=512)
        assert updates[-1] == -512
        assert updates.dtype == jnp.bfloat16

    @pytest.mark.parametrize("mean", [True, False])
    def test_calls_count_by_their_weight(self, mean, x64):
        """Means over 3, 0 and 5 tokens, one of them 0 / 0: the large batch's mean over 8, whatever comes before."""
        grads, weights = np.array([1.0, np.nan, 3.0, 2.0, 4.0, 7.0]), jnp.array([3, 0, 5, 1, 2, 1])
        tx, plain = optim.multi_steps(optim.adam(0.1, eps=0.5), 3, use_grad_mean=mean), optim.adam(0.1, eps=0.5)

        def step(carry, call):
            p, state = carry
            updates, state = tx.update(call[0], state, p, weight=call[1])
            return (p + updates, state), None

        p = jnp.zeros(())
        (got, state), _ = jax.lax.scan(step, (p, tx.init(p)), (jnp.asarray(grads), weights))
        expected, held = p, plain.init(p)
        for total in (3 * 1.0 + 5 * 3.0, 2.0 + 2 * 4.0 + 7.0):
            updates, held = plain.update(jnp.asarray(total / (8 if total == 18 else 4) if mean else total), held)
            expected += updates
        np.testing.assert_allclose(got, expected, rtol=1e-14)
        assert (int(state.mini_step), float(state.acc_weight)) == (0, 0.0)
        for weight in (-1, jnp.ones(2)):
            with pytest.raises(ValueError, match=r"multi_steps: weight is .*, wanted a number of 0 or more"):
                tx.update(p, state, p, weight=weight)

    def test_apply_every_equals_optax(self):
        got, _ = run(optim.chain(optim.sgd(0.1, 0.9), optim.apply_every(3)), 7)
        expected, _ = run(optax.chain(optax.sgd(0.1, 0.9), optax.apply_every(3)), 7)
        same(got, expected)
        tx = optim.apply_every(2)
        _, state = tx.update({"w": jnp.array([jnp.nan])}, tx.init({"w": jnp.ones(1)}))
        _, state = tx.update({"w": jnp.ones(1)}, state)
        updates, _ = tx.update({"w": jnp.ones(1)}, state)
        updates, _ = tx.update({"w": jnp.ones(1)}, tx.update({"w": jnp.ones(1)}, state)[1])
        np.testing.assert_array_equal(updates["w"], [2.0])  # a NaN is gone with its group

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize("k", [0, 1.5, "2"])
    def test_what_is_no_k(self, k):
        for make in (lambda: optim.multi_steps(optim.sgd(0.1), k), lambda: optim.apply_every(k)):
            with pytest.raises((TypeError, ValueError), match="wanted"):
                make()


class TestFinite:
    def test_equals_optax(self):
        def grads(p, t):
            return jax.tree.map(lambda g: jnp.where((t >= 1) & (t < 4), jnp.inf, g), gradients(p, t))

        for limit in (1, 5):
            got, state = run(optim.apply_if_finite(optim.adam(0.1), limit), 6, grads=grads)
            expected, other = run(optax.apply_if_finite(optax.adam(0.1), limit), 6, grads=grads)
            same(got, expected)
            for name in ("notfinite_count", "last_finite", "total_notfinite"):
                assert getattr(state, name) == getattr(other, name)

    def test_a_skipped_step_changes_no_bit(self):
        tx = optim.apply_if_finite(optim.adam(0.1), 5)
        _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
        bad = {**PARAMS, "head": {**PARAMS["head"], "b": jnp.array([0.0, jnp.nan])}}
        updates, after = jax.jit(tx.update)(bad, state, PARAMS)
        assert not any(u.any() for u in jax.tree.leaves(updates))
        jax.tree.map(np.testing.assert_array_equal, after.inner_state, state.inner_state)


class TestChains:
    def test_named(self):
        tx = optim.named_chain(("clip", optim.clip_by_global_norm(1.0)), ("adam", optim.adam(0.1)))
        got, state = run(tx)
        same(got, run(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)))[0])
        assert set(state) == {"clip", "adam"}
        assert repr(tx).startswith("named_chain(('clip', ClipByGlobalNorm(max_norm=1.0)), ('adam', chain(")
        with pytest.raises(ValueError, match="distinct strings"):
            optim.named_chain(("a", optim.scale(1.0)), ("a", optim.scale(1.0)))
        with pytest.raises(ValueError, match=r"one with \['adam'\], wanted a dict with \['clip', 'adam'\]"):
            tx.update(PARAMS, {"adam": state["adam"]}, PARAMS)

    @pytest.mark.usefixtures("unchecked")
    def test_functions_as_links(self):
        def both(updates, params):
            return jax.tree.map(lambda g, p: g + p, updates, params)

        def each(g, p):
            return g + p

        for ours, theirs, f in (
            (optim.stateless, optax.stateless, both),
            (optim.stateless_with_tree_map, optax.stateless_with_tree_map, each),
        ):
            same(run(optim.chain(ours(f), optim.sgd(0.1)))[0], run(optax.chain(theirs(f), optax.sgd(0.1)))[0])
            assert "0x" not in repr(ours(f))
            with pytest.raises(TypeError, match="f is 3, wanted a function"):
                ours(3)
