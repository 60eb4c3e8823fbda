"""Mixed precision (ask 20): the dtype of every parameter, activation, gradient, slot and update, and that it learns."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import training as problem

from dlkit import losses, nn, optim, train, tree

SEEN: list[str] = []
POLICIES = {
    "float32": train.Policy(),
    "bfloat16": train.Policy(compute="bfloat16"),
    "float16": train.Policy(compute="float16"),
    "all bfloat16": train.Policy("bfloat16", "bfloat16", "float32"),
    "bfloat16 to the end": train.Policy("float32", "bfloat16", "bfloat16"),
}
RATES = {"float": 0.1, "numpy": np.float64(0.1), "jax": jnp.float32(0.1)}


@dataclass(frozen=True)
class Spy(nn.Layer):
    """Notes the dtype of what a layer returns."""

    layer: nn.Layer

    def children(self):
        return {"": self.layer}

    def init(self, key):
        return self.layer.init(key)

    def init_state(self):
        return self.layer.init_state()

    def apply(self, params, state, x, mode):
        y, state = self.layer.apply(params, state, x, mode)
        SEEN.append(y.dtype.name)
        return y, state


def model():
    body = nn.Chain(nn.Linear(4, 8), nn.BatchNorm(8), nn.Relu(), nn.LayerNorm(8), nn.Dropout(0.1))
    return nn.Chain(blocks=nn.Stack(nn.Residual(nn.Linear(4, 4)), 2), body=body, head=nn.Linear(8, 3))


def dtypes(of):
    return {leaf.dtype.name for leaf in jax.tree.leaves(of) if jnp.issubdtype(leaf.dtype, jnp.floating)}


@pytest.mark.parametrize("wide", [False, True], ids=["x32", "x64"])
@pytest.mark.parametrize("name", POLICIES)
def test_dtypes(name, wide):
    """In one traced step; the learning rate as a float, a numpy and a jax scalar."""
    policy = POLICIES[name]
    with jax.enable_x64(wide):
        spied = nn.map_layers(lambda path, layer: layer if layer.children() else Spy(layer), model())
        net = policy(spied)
        params, batch = jax.eval_shape(net.init, jax.random.key(0)), problem.batch(8)
        state = jax.eval_shape(net.init_state)
        assert dtypes(params) == {policy.param}
        assert dtypes(state) == {"float32"}
        SEEN.clear()

        def loss(p, state):
            y, new = net.apply(p, state, batch["x"], nn.training(jax.random.key(1)))
            return jnp.mean(losses.cross_entropy(y, batch["y"])), (y, new)

        (_, (y, new)), grads = jax.eval_shape(jax.value_and_grad(loss, has_aux=True), params, state)
        assert len(SEEN) >= 7
        assert set(SEEN) == {policy.compute}
        assert y.dtype == policy.output
        assert dtypes(new) == {"float32"}
        assert dtypes(grads) == {policy.param}
        for rate in RATES.values():
            tx = optim.adamw(rate, weight_decay=0.1)
            slots = jax.eval_shape(tx.init, params)
            assert dtypes(slots[0]) == {policy.param}
            updates, after = jax.eval_shape(tx.update, grads, slots, params)
            assert dtypes(updates) == {policy.param}
            assert dtypes(after[0]) == {policy.param}
            assert dtypes(jax.eval_shape(optim.apply_updates, params, updates)) == {policy.param}


def test_float32_changes_nothing_and_paths_stay():
    plain, cast = problem.network(), train.Policy()(problem.network())
    params, state = plain.init(jax.random.key(0)), plain.init_state()
    assert problem.equal(params, cast.init(jax.random.key(0)))
    x = problem.batch()["x"]
    assert problem.equal(*(m.apply(params, state, x, nn.training(jax.random.key(1))) for m in (plain, cast)))
    assert list(tree.flatten(params)) == list(tree.flatten(jax.eval_shape(cast.init, jax.random.key(0))))


@pytest.mark.parametrize("compute", ["bfloat16", "float16"])
def test_learns_as_float32_does(compute):
    """60 steps; the parameters of a run in half precision stay near those in float32: 2^-8 or 2^-11 a number."""
    ends = []
    for policy in (train.Policy(), train.Policy(compute=compute)):
        task = problem.task(policy(problem.network(dropout=0.0)))
        tx = optim.sgd(0.1, 0.9)
        tx = optim.dynamic_loss_scale(tx) if policy.scales_loss else tx
        result = train.fit(task, tx, problem.points(), epochs=5, batch_size=16)
        assert dtypes(result.state.params) == {"float32"}
        ends.append(result)
    np.testing.assert_allclose(ends[1].last["train/loss"], ends[0].last["train/loss"], rtol=0.05)
    assert ends[1].last["train/loss"] < 0.7 * ends[1].history[0]["train/loss"]


def test_frozen_statistics_and_kfac_see_through_it():
    """Layers are found below it: globs of `freeze` match, and the taps of K-FAC get in."""
    net = train.Policy(compute="bfloat16")(problem.network(dropout=0.0))
    assert train.kfac_layers(net) == train.kfac_layers(problem.network(dropout=0.0))
    task, tx = problem.task(net), optim.sgd(0.1)
    state = train.create_state(net, tx, jax.random.key(0), freeze="batch_norm1/**")
    after, _ = train.make_step(task, tx, freeze="batch_norm1/**", donate=False)(state, problem.batch())
    assert problem.equal(after.state, state.state)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_policy():
    with pytest.raises(ValueError, match="Policy: compute is 'half', wanted one of float16, bfloat16"):
        train.Policy(compute="half")
    with pytest.raises(ValueError, match="Policy: param is float64, which needs"):
        train.Policy(param="float64")(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="expected a model, a dlkit layer, got 3"):
        train.Policy()(3)
