"""Dynamic loss scaling (ask 20): float32, halves, doubles, is capped; an overflow changes no bit."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import training as problem

from dlkit import losses, nn, optim, train

POLICY = optim.LossScale(init_scale=8.0, growth_interval=3, max_scale=32.0, min_scale=2.0)


def test_moves_as_torch_does():
    """torch's own update of the scale, on its own defaults' factors."""
    torch = pytest.importorskip("torch")
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    parameter = torch.nn.Parameter(torch.ones(1))
    sgd = torch.optim.SGD([parameter], lr=0.0)
    state = POLICY.init()
    for finite in (True, True, True, True, False, True, True, True, False, True):
        scaler.scale(parameter.sum() * (1.0 if finite else float("inf"))).backward()
        scaler.step(sgd)
        scaler.update()
        sgd.zero_grad()
        state = POLICY.adjust(state, jnp.asarray(finite))
        assert float(state.scale) == scaler.get_scale()
    assert int(state.skipped) == 2
    assert state.scale.dtype == jnp.float32


def test_is_capped_and_never_overflows():
    def step(state, finite):
        state = POLICY.adjust(state, finite)
        return state, state.scale

    _, up = jax.lax.scan(step, POLICY.init(), jnp.ones(30, bool))
    _, down = jax.lax.scan(step, POLICY.init(), jnp.zeros(10, bool))
    assert (up.max(), down.min()) == (32.0, 2.0)
    default = optim.LossScale(growth_interval=1)
    _, scales = jax.lax.scan(lambda s, f: (default.adjust(s, f), s.scale), default.init(), jnp.ones(2500, bool))
    assert scales[-1] == 2.0**24
    assert bool(jnp.isfinite(scales).all())


def test_an_overflow_changes_no_bit_but_the_scale():
    schedule = optim.linear_schedule(0.1, 0.0, 10)
    tx = optim.dynamic_loss_scale(optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(schedule)), POLICY)
    params = {"w": jnp.ones(3), "b": jnp.zeros(1)}
    update = jax.jit(tx.update)
    _, state = update(params, tx.init(params), params)
    for bad in (jnp.inf, jnp.nan):
        updates, after = update({**params, "b": jnp.array([bad])}, state, params)
        assert problem.equal(optim.apply_updates(params, updates), params)
        assert problem.equal(after.inner_state, state.inner_state)
        assert float(optim.loss_scale(after)) == 4.0
        assert not bool(optim.last_step_was_finite(after))
    assert optim.report(after)["skipped"] == 1


def test_small_gradients_survive_float16():
    """1e-8 is 0 in float16, and comes back whole where the loss was scaled; divided in float32."""

    def loss(w):
        return (w * jnp.float16(1e-4)).astype(jnp.float32).sum() * 1e-4

    w, scale = jnp.ones(2, jnp.float16), jnp.float32(2.0**15)
    assert not jax.grad(loss)(w).any()
    grads = optim.unscaled(jax.grad(lambda w: scale * loss(w))(w), scale)
    assert grads.dtype == jnp.float32
    np.testing.assert_allclose(grads, 1e-8, rtol=1e-2)


def test_the_same_steps_as_without():
    """A power of two is exact: the trajectory is that of the plain optimizer, bit for bit."""
    tx, plain = optim.dynamic_loss_scale(optim.adam(0.1), POLICY), optim.adam(0.1)
    p = q = {"w": jnp.array([1.0, -2.0])}
    state, other = tx.init(p), plain.init(q)
    for _ in range(8):
        scale = optim.loss_scale(state)
        updates, state = tx.update(jax.grad(lambda x, s=scale: s * jnp.sum(x["w"] ** 4))(p), state, p)
        expected, other = plain.update(jax.grad(lambda x: jnp.sum(x["w"] ** 4))(q), other, q)
        p, q = optim.apply_updates(p, updates), optim.apply_updates(q, expected)
    assert problem.equal(p, q)
    assert float(optim.loss_scale(state)) == 32.0


@dataclass(frozen=True)
class Half(nn.Layer):
    """The network of the tests, computed in float16."""

    inner: nn.Layer

    def children(self):
        return {"": self.inner}

    def init(self, key):
        return self.inner.init(key)

    def init_state(self):
        return self.inner.init_state()

    def apply(self, params, state, x, mode):
        half = jax.tree.map(lambda p: p.astype(jnp.float16), params)
        y, state = self.inner.apply(half, state, x.astype(jnp.float16), mode)
        return y.astype(jnp.float32), state


class TestTraining:
    """The step multiplies the loss, and keeps the statistics of BatchNorm in a step that overflows."""

    def start(self, scale=2.0**15, accumulate=1):
        task = train.Task(Half(problem.network(dropout=0.0)), losses.cross_entropy)
        schedule = optim.linear_schedule(0.1, 0.0, 10)
        tx = optim.dynamic_loss_scale(optim.sgd(schedule, 0.9), optim.LossScale(scale, 2, max_scale=2.0**40))
        state = train.create_state(task.model, tx, jax.random.key(0))
        return task, state, train.make_step(task, tx, donate=False, log_grad_norm=True, accumulate=accumulate)

    @pytest.mark.parametrize("accumulate", [1, 2])
    def test_overflow(self, accumulate):
        task, state, step = self.start(2.0**30, accumulate)
        after, measured = step(state, problem.batch())
        assert problem.equal((after.params, after.state), (state.params, state.state))
        assert problem.equal(after.opt_state.inner_state, state.opt_state.inner_state)
        assert float(after.opt_state.loss_scale.scale) == 2.0**29
        assert np.isfinite(task.result(measured)["loss"])
        assert task.result(measured)["loss_scale"] == 2.0**30
        finite = []
        for _ in range(20):
            after, _ = step(after, problem.batch())
            finite.append(bool(optim.last_step_was_finite(after.opt_state)))
        assert any(finite)
        assert int(after.opt_state.loss_scale.skipped) == 1 + finite.count(False)
        assert not problem.equal(after.state, state.state)
        assert step.traces == 1

    def test_scaled_gradients_are_the_gradients(self):
        norms = []
        for scale in (1.0, 2.0**10):
            _, state, step = self.start(scale)
            after, measured = step(state, problem.batch())
            norms.append(measured["grad_norm"])
        np.testing.assert_allclose(norms[0], norms[1], rtol=2e-3)  # of float16
        del after

    def test_the_scale_is_in_the_checkpoint(self, tmp_path):
        _, state, step = self.start()
        for _ in range(3):
            state, _ = step(state, problem.batch())
        assert float(optim.loss_scale(state.opt_state)) != 2.0**15
        path = train.save(tmp_path, 3, state)
        restored, _ = train.restore(path, self.start()[1])
        assert problem.equal(restored, state)


@pytest.mark.parametrize(
    "arguments",
    [{"init_scale": 0.0}, {"max_scale": 1.0}, {"backoff_factor": 1.0}, {"growth_factor": 0.5}, {"growth_interval": 0}],
)
def test_what_is_no_policy(arguments):
    with pytest.raises(ValueError, match=r"^loss_scale: "):
        optim.LossScale(**arguments)


def test_a_state_without_a_scale():
    with pytest.raises(ValueError, match="loss_scale: the optimizer state holds no loss scales, wanted one"):
        optim.loss_scale(optim.sgd(0.1).init({}))


def test_a_skipped_step_is_no_reason_to_stop():
    """An overflow is what the scale is for: `StopOnNan` goes on, also where the gradient's norm is logged."""
    task = train.Task(Half(problem.network(dropout=0.0)), losses.cross_entropy)
    tx = optim.dynamic_loss_scale(optim.sgd(0.1), optim.LossScale(2.0**26, 100, max_scale=2.0**30))
    result = train.fit(
        task, tx, problem.points(), epochs=2, batch_size=16, log_grad_norm=True, callbacks=[train.StopOnNan()]
    )
    assert result.stopped_because == "2 epochs"
    assert 0 < int(optim.report(result.state.opt_state)["skipped"]) < 14
    assert np.isfinite(result.last["train/loss"])
    assert result.last["loss_scale"] < 2.0**26
