"""Averages of checkpoints, and the statistics of averaged models, beside torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import training as problem

from dlkit import data, losses, nn, train, tree


def test_average_of_checkpoints(tmp_path):
    states = [
        {"w": jnp.full(2, v, jnp.float32), "n": jnp.int32(v), "half": jnp.full(1, v, jnp.bfloat16)}
        for v in (1.0, 2.0, 6.0)
    ]
    paths = [train.save(tmp_path, t, state) for t, state in enumerate(states)]
    got = train.average_checkpoints(paths, states[0])
    np.testing.assert_array_equal(got["w"], 3.0)
    np.testing.assert_array_equal(got["half"].astype(jnp.float32), 3.0)
    assert int(got["n"]) == 6
    assert tree.diff(states[0], got) == ""
    weighted = train.average_checkpoints(paths, states[0], weights=[0, 1, 1])
    np.testing.assert_array_equal(weighted["w"], 4.0)
    some = train.average_checkpoints(paths, {"w": states[0]["w"]}, ignore=["n", "half"])
    np.testing.assert_array_equal(some["w"], 3.0)
    for arguments in ({"paths": []}, {"paths": paths, "weights": [1.0]}, {"paths": paths, "weights": [0, 0, 0]}):
        with pytest.raises(ValueError, match="at least one checkpoint, and a weight for each"):
            train.average_checkpoints(arguments.pop("paths"), states[0], **arguments)


def test_of_a_run(tmp_path):
    """Keys, counts and slots of a whole training state."""
    task = problem.task()
    saver = train.Checkpointer(keep_last=3)
    train.fit(task, problem.optimizer(), problem.points(), epochs=3, run_dir=tmp_path, callbacks=[saver])
    like = {"train": train.create_state(task.model, problem.optimizer(), jax.random.key(0))}
    paths = sorted((tmp_path / "checkpoints").glob("step_*"))
    average = train.average_checkpoints(paths, like, ignore=["sums/**", "callbacks/**"])["train"]
    each = [train.read(path).into(like, ignore=["sums/**", "callbacks/**"])["train"] for path in paths]
    assert int(average.step) == int(each[-1].step)
    expected = np.mean([np.asarray(s.params["head"]["w"], np.float64) for s in each], 0)
    np.testing.assert_allclose(average.params["head"]["w"], expected, rtol=1e-6)


def test_update_batch_norm_equals_torch():
    torch = pytest.importorskip("torch")
    from torch.optim.swa_utils import update_bn

    x = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32) * 2 + 1
    model = nn.Chain(first=nn.Linear(4, 3), norm=nn.BatchNorm(3), act=nn.Relu(), last=nn.BatchNorm(3))
    params = model.init(jax.random.key(0))
    other = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.ReLU(), torch.nn.BatchNorm1d(3)
    )
    with torch.no_grad():
        other[0].weight.copy_(torch.tensor(np.asarray(params["first"]["w"].T)))
        other[0].bias.copy_(torch.tensor(np.asarray(params["first"]["b"])))
    update_bn(torch.utils.data.DataLoader(torch.tensor(x), batch_size=20), other)
    far = jax.tree.map(lambda s: s + 7, model.init_state())
    task = train.Task(model, losses.mse)
    for given in (data.Arrays(x=x, y=x), data.Loader(data.Arrays(x=x), 20, shuffle=False)):
        state = train.update_batch_norm(task, params, far, given, batch_size=20)
        for name, layer in (("norm", other[1]), ("last", other[3])):
            np.testing.assert_allclose(state[name]["mean"], layer.running_mean.numpy(), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(state[name]["var"], layer.running_var.numpy(), rtol=1e-5, atol=1e-6)
    assert tree.diff(far, state) == ""


def test_what_cannot_be_estimated():
    model = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="no BatchNorm, so there is nothing to estimate"):
        train.update_batch_norm(model, model.init(jax.random.key(0)), None, problem.points())
