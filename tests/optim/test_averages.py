"""Averages of updates and of parameters, lookahead, measurements; beside optax and torch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlkit import data, losses, nn, optim, train

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array([0.5])}


def grads_of(p):
    return jax.tree.map(lambda x: jnp.sin(3 * x) + 0.1, p)


def close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def trajectory(tx, steps, params=PARAMS):
    def step(carry, _):
        p, state = carry
        updates, state = tx.update(grads_of(p), state, p)
        p = optim.apply_updates(p, updates)
        return (p, state), (p, state)

    return jax.lax.scan(step, (params, tx.init(params)), None, length=steps)[1]


def at(stacked, i):
    return jax.tree.map(lambda leaf: leaf[i], stacked)


@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_ema_equals_optax(debias, dtype):
    ours, theirs = (m.ema(0.9, debias=debias, accumulator_dtype=dtype) for m in (optim, optax))
    a, b = ours.init(PARAMS), theirs.init(PARAMS)
    for t in range(3):
        g = grads_of(jax.tree.map(lambda p, t=t: p + t, PARAMS))
        updates, a = ours.update(g, a)
        with jax.numpy_dtype_promotion("standard"):
            expected, b = theirs.update(g, b)
        # bfloat16: here the average is rounded where it is stored, in optax its products and quotients are, too: up to
        # five roundings of 2^-8.
        close(updates, expected, rtol=1e-5 if dtype is None else 3e-2)
        assert a.ema["w"].dtype == b.ema["w"].dtype


def test_trees_by_hand_equal_optax():
    new = jax.tree.map(lambda p: p + 1, PARAMS)
    close(optim.incremental_update(new, PARAMS, 0.1), optax.incremental_update(new, PARAMS, 0.1))
    for steps in range(5):
        args = (new, PARAMS, jnp.int32(steps), 2)
        close(optim.periodic_update(*args), optax.periodic_update(*args))
    narrow = {"w": jnp.ones(1, jnp.bfloat16)}
    assert optim.incremental_update({"w": jnp.zeros(1)}, narrow, 0.5)["w"].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="do not match the old ones"):
        optim.incremental_update({"w": jnp.ones(3)}, {"w": jnp.ones(2)}, 0.1)


class TestAverageParams:
    def test_the_mean_is_the_mean(self):
        tx = optim.chain(optim.sgd(0.1), optim.average_params(start=2, every=3))
        params, states = trajectory(tx, 10)
        for t, count in ((1, 0), (2, 1), (4, 1), (5, 2), (9, 3)):
            kept = [2, 5, 8][:count] or [t]
            expected = jax.tree.map(lambda p, kept=kept: p[np.array(kept)].mean(0), params)
            close(optim.averaged_params(at(states, t)), expected)

    @pytest.mark.parametrize("decay", [None, 0.9])
    def test_equals_torch(self, decay):
        """AveragedModel beside the same parameters: the first ones are copied, then averaged."""
        torch = pytest.importorskip("torch")
        from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

        params, states = trajectory(optim.chain(optim.sgd(0.1), optim.average_params(decay)), 6)
        model = torch.nn.Linear(2, 1, bias=False)
        averaged = AveragedModel(model, multi_avg_fn=None if decay is None else get_ema_multi_avg_fn(decay))
        for t in range(6):
            with torch.no_grad():
                model.weight.copy_(torch.tensor(np.asarray(params["w"][t])[None]))
            averaged.update_parameters(model)
            mine = optim.averaged_params(at(states, t))["w"]
            np.testing.assert_allclose(mine, averaged.module.weight.detach().numpy()[0], rtol=1e-6, atol=1e-7)

    def test_warmup(self):
        params, states = trajectory(optim.chain(optim.sgd(0.1), optim.average_params(0.999, warmup=True)), 5)
        average = at(params, 0)
        for n in range(1, 5):
            average = optim.incremental_update(at(params, n), average, 1 - (1 + n) / (10 + n))
        close(optim.averaged_params(at(states, 4)), average)

    def test_of_narrow_parameters_is_wide(self):
        """An average of bfloat16 parameters in bfloat16 would never move: 1e-3 of a step is below its rounding."""
        p = {"w": jnp.ones(1, jnp.bfloat16)}
        tx = optim.average_params(0.999)
        state = tx.init(p)
        for _ in range(3):
            _, state = tx.update({"w": jnp.zeros(1, jnp.bfloat16)}, state, {"w": jnp.full(1, 2, jnp.bfloat16)})
        _, state = tx.update({"w": jnp.zeros(1, jnp.bfloat16)}, state, {"w": jnp.full(1, 3, jnp.bfloat16)})
        np.testing.assert_allclose(optim.averaged_params(state)["w"], 2.001, rtol=1e-6)
        assert optim.averaged_params(state, p)["w"].dtype == jnp.bfloat16

    def test_in_training(self):
        """The frozen leaves are the parameters themselves; the average is saved with the optimizer's state."""
        x = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
        task = train.Task(nn.Chain(body=nn.Linear(3, 2), head=nn.Linear(2, 1)), losses.mse)
        tx = optim.chain(optim.adam(0.1), optim.average_params(0.9))
        state = train.fit(task, tx, data.Arrays(x=x, y=x[:, :1]), epochs=2, freeze="body/**").state
        average = optim.averaged_params(state.opt_state, state.params)
        close(average["body"], state.params["body"], rtol=0, atol=0)
        assert not np.allclose(average["head"]["w"], state.params["head"]["w"])

    def test_arguments(self):
        with pytest.raises(ValueError, match="warmup=True needs a decay"):
            optim.average_params(warmup=True)
        with pytest.raises(ValueError, match="holds no averages: wanted one average_params"):
            optim.averaged_params(optim.sgd(0.1).init(PARAMS))
        with pytest.raises(ValueError, match="average_params: it reads the parameters"):
            optim.average_params().update(PARAMS, optim.average_params().init(PARAMS))
        with pytest.raises(ValueError, match="average_params: the parameters do not match the state"):
            optim.average_params().update(PARAMS, optim.average_params().init(PARAMS), {"w": jnp.zeros(7)})


class TestLookahead:
    @pytest.mark.parametrize("reset", [False, True])
    def test_equals_optax(self, reset):
        ours = optim.lookahead(optim.sgd(0.1, 0.9), 3, 0.5, reset_state=reset)
        theirs = optax.lookahead(optax.sgd(0.1, 0.9), 3, 0.5, reset_state=reset)
        p = optim.LookaheadParams.init_synced(PARAMS)
        q = optax.LookaheadParams.init_synced(PARAMS)
        plain, _ = trajectory(ours, 7)
        a, b = ours.init(p), theirs.init(q)
        for t in range(7):
            updates, a = ours.update(grads_of(p.fast), a, p)
            p = jax.tree.map(jnp.add, p, updates)
            with jax.numpy_dtype_promotion("standard"):
                expected, b = theirs.update(grads_of(q.fast), b, q)
            q = optax.apply_updates(q, expected)
            close(tuple(p), tuple(q))
            close(at(plain, t), p.fast)  # plain parameters: the slow ones are in the state

    def test_after_a_synchronization_both_are_the_same(self):
        params, states = trajectory(optim.lookahead(optim.adam(0.1), 3, 0.5), 6)
        close(at(params, 5), at(states, 5).slow)
        with pytest.raises(ValueError, match="sync_period is 0, wanted 1"):
            optim.lookahead(optim.adam(0.1), 0, 0.5)


def test_measurements_equal_optax():
    def large(updates):
        return optax.tree.norm(updates) > 1.0

    measures = lambda m: {"norm": optax.tree.norm, "often": m.measure_with_ema(large, 0.9)}  # noqa: E731
    ours = optim.chain(optim.sgd(1.0, 0.9), optim.monitor(measures(optim)), optim.snapshot("first", optax.tree.norm))
    theirs = optax.chain(optax.sgd(1.0, 0.9), optax.monitor(measures(optax)), optax.snapshot("first", optax.tree.norm))
    a, b = ours.init(PARAMS), theirs.init(PARAMS)
    for _ in range(4):
        updates, a = jax.jit(ours.update)(PARAMS, a, PARAMS)
        with jax.numpy_dtype_promotion("standard"):
            expected, b = theirs.update(PARAMS, b, PARAMS)
        close(updates, expected)
        close(a[1].measurements, b[1].measurements)
        close(a[2].measurement, b[2].measurement)
