"""The monitor beside what it says it measures, the edge of stability on handwritten digits, and the pictures."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import curvature, data, losses, nn, optim, train

DIGITS = data.digits()
ONE_HOT = np.eye(10, dtype=np.float32)[DIGITS["y"][:192]]
SET = data.Arrays(x=DIGITS["x"][:192].reshape(192, 64), y=ONE_HOT)


def test_edge_of_stability(tmp_path):
    """Full-batch gradient descent: lambda_max rises to 2 / lr and stays near it (Cohen et al. 2021, figure 1)."""
    task = train.Task(nn.Chain(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)), losses.mse)
    lr = 1.0
    monitor = curvature.CurvatureMonitor(interval=50, budget=None, steps=16, examples=192)
    log = train.JsonLines(tmp_path / "rows.jsonl")
    result = train.fit(task, optim.sgd(lr), SET, epochs=800, batch_size=192, callbacks=[monitor, log], log_every=50)
    share = np.array([row["curvature/lambda_max"] for row in monitor.rows]) * lr / 2
    assert len(share) == 16
    assert share[0] < 0.85
    assert (np.abs(share[4:] - 1) < 0.15).all()
    losses_seen = [row["train/loss"] for row in result.history]
    assert losses_seen[-1] < 0.6 * losses_seen[200]  # and yet the loss goes down
    assert any("above 2 / lambda_max" in text for _, text in monitor.alarms)
    # The last measurement is of the final parameters, on all the data, which are the probe batch.
    last, params = monitor.rows[-1], result.state.params
    objective = curvature.Objective(task, SET, batch_size=192)
    top = curvature.top_eigenpairs(curvature.hessian_product(objective, params))
    assert last["curvature/step"] == 800
    assert last["curvature/lambda_max"] == pytest.approx(top.values[0], rel=1e-3)
    assert last["curvature/max_stable_lr"] == pytest.approx(2 / top.values[0], rel=1e-3)
    assert last["curvature/learning_rate"] == lr
    norm = float(optim.global_norm(objective.value_and_grad(params)[1]["linear1"]))
    parts = [last[f"curvature/grad_norm/linear1/{leaf}"] for leaf in ("w", "b")]
    assert math.hypot(*parts) == pytest.approx(norm, rel=1e-3)
    written = [row for row in train.read_rows(tmp_path / "rows.jsonl", "steps") if "curvature/trace" in row]
    assert [row["curvature/step"] for row in written] == [row["curvature/step"] for row in monitor.rows]
    assert curvature.plot_curvature(monitor.rows, tmp_path / "curve.png").stat().st_size > 1000
    assert curvature.plot_layers(monitor.rows, tmp_path / "layers.png").stat().st_size > 1000


def test_dead_units_updates_and_alarms():
    """Half of one block's ReLUs never fire; SGD's update is lr times the gradient; the run stops and says why."""
    model = nn.Chain(first=nn.Linear(64, 4), blocks=nn.Stack(nn.Chain(inner=nn.Linear(4, 4), act=nn.Relu()), 2),
                     last=nn.Linear(4, 10))  # fmt: skip
    task, optimizer = train.Task(model, losses.mse), optim.sgd(1e-3)
    state = train.create_state(model, optimizer, jax.random.key(0))
    params = state.params
    inner = params["blocks"]["inner"]
    shifted = {**inner, "b": jnp.array([[9.0, 9, 9, 9], [-99, -99, -99, 9]])}
    state = state._replace(params={**params, "blocks": {**params["blocks"], "inner": shifted}})
    monitor = curvature.CurvatureMonitor(interval=1, budget=None, steps=2, probes=2, dead=0.3, on_alarm="stop")
    result = train.fit(task, optimizer, SET, batch_size=192, epochs=3, callbacks=[monitor], state=state)
    row = monitor.rows[0]
    assert row["curvature/dead/blocks/inner/w"] == 3 / 8
    assert row["curvature/dead/last/w"] == 0
    assert result.stopped_because == "curvature alarm: 38% of the outputs of blocks/inner/w are dead"
    before, after = (s.params["last"]["w"] for s in (state, result.state))
    ratio = np.linalg.norm(after - before) / np.linalg.norm(after)
    assert row["curvature/update_ratio/last/w"] == pytest.approx(float(ratio), rel=1e-4)
    copy = curvature.CurvatureMonitor()
    copy.load_state(monitor.state())
    assert (copy.rows, copy.alarms) == (monitor.rows, monitor.alarms)


def test_the_interval_is_widened_to_keep_the_budget():
    """Steps of 0.1 s, measurements of 1 s, by a clock of our own: they take three fifths of 10 % in the end."""
    monitor = curvature.CurvatureMonitor(interval=5, budget=0.1)
    monitor._clock, now, following, measured = (0, 0.0), 0.0, 5, []
    for step in range(1, 2001):
        now += 0.1
        if step >= following:
            now += 1.0
            monitor.seconds += 1.0
            following = step + max(monitor.interval, monitor._affordable(step, now, 1.0))
            measured.append(step)
    assert 0.05 < monitor.seconds / now <= 0.06
    assert set(np.diff(measured)[1:].tolist()) <= {156, 157}  # of 0.1 s, rounding up


def test_pictures(tmp_path):
    flat = curvature.Barrier(np.linspace(0, 1, 3), np.ones(3), 0.0, 0.0)
    line = curvature.landscape_1d(lambda p: jnp.sum(p**2), jnp.ones(2), jnp.ones(2), points=5)
    for path in (
        curvature.plot_density(curvature.spectral_density(np.diag([1.0, 2.0, 3.0])), tmp_path / "a.png"),
        curvature.plot_barriers({"straight": flat}, tmp_path / "b.png"),
        curvature.plot_landscape(line, tmp_path / "c.png"),
    ):
        assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="above 0, the lowest is 0"):
        curvature.plot_landscape(line, tmp_path / "d.png", log=True)
    with pytest.raises(ValueError, match="no measurement"):
        curvature.plot_curvature([], tmp_path / "d.png")
    with pytest.raises(ValueError, match="'lr'"):
        curvature.plot_layers([{}], tmp_path / "d.png", what="lr")


def test_errors_say_what_to_do(unchecked):
    for wrong in ({"interval": 0}, {"budget": 1.5}, {"on_alarm": "shout"}, {"steps": 1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            curvature.CurvatureMonitor(**wrong)
