"""Ask 6: each example counts once, whatever the batch size and the devices, with one trace."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from support import compiling
from support import training as problem

from dlkit import data, losses, metrics, nn, train

N = 1003
SIZES = (1, 7, 64, 1003, 2000)

SCRIPT = """
import json, sys
import jax, numpy as np
sys.path.insert(0, sys.argv[1])
from support import training as problem
from dlkit import metrics, nn, train

devices = int(sys.argv[2])
assert len(jax.devices()) == devices
rows = None
if devices > 1:
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
table = {"accuracy": metrics.Accuracy(), "perplexity": metrics.Perplexity()}
task = problem.task(problem.network(dropout=0.5), metrics=table)
params, state = task.model.init(jax.random.key(0)), task.model.init_state()
sizes = json.loads(sys.argv[3])
found = [train.evaluate(task, params, state, problem.points(1003), batch_size=b, sharding=rows) for b in sizes]
print(json.dumps(found))
"""


def by_numpy(params):
    """The same network, loss and metrics in float64."""
    ds = problem.points(N)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    h = ds.x.astype(np.float64) @ p["linear1"]["w"] + p["linear1"]["b"]
    h = h / np.sqrt(1 + 1e-5) * p["batch_norm1"]["scale"] + p["batch_norm1"]["shift"]
    logits = np.maximum(h, 0) @ p["head"]["w"] + p["head"]["b"]
    right, loss = 0, 0.0
    for row, y in zip(logits, ds.y, strict=True):
        right += int(np.argmax(row) == y)
        loss += np.log(np.sum(np.exp(row - row.max()))) + row.max() - row[y]
    return {"accuracy": right / N, "loss": loss / N, "perplexity": np.exp(loss / N)}


@pytest.mark.parametrize("devices", [1, 8])
def test_exact_for_any_batch_size_and_devices(devices):
    sizes = SIZES if devices == 1 else (1, 64, 2000)
    root = Path(__file__).parent.parent
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(root.parent / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    env = os.environ | cache | {"PYTHONPATH": str(root.parent), "JAX_PLATFORMS": "cpu"}
    env["XLA_FLAGS"] = compiling.devices(devices)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root), str(devices), json.dumps(sizes)],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    expected = by_numpy(problem.network().init(jax.random.key(0)))
    for size, found in zip(sizes, json.loads(run.stdout), strict=True):
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-6), f"{name} at batch size {size}"


def test_every_example_once_and_one_trace():
    """A metric that collects numbers of examples, in a model that counts its traces."""
    traces = []

    @dataclass(frozen=True)
    class Counting(nn.Pure):
        def init(self, key):
            return {}

        def __call__(self, params, x):
            traces.append(x.shape)
            return x.astype(jnp.float32)

    @dataclass(frozen=True)
    class Ids(metrics.Metric):
        fixed_size = False

        def measure(self, outputs, targets, weight=None):
            return {"ids": outputs, "weight": weight}

        def merge(self, a, b):
            return {name: np.concatenate([a[name], b[name]]) for name in a}

        def result(self, sums):
            return sums["ids"][sums["weight"] > 0].astype(int).tolist()

    task = train.Task(Counting(), losses.mse, {"ids": Ids()})
    ds = data.Arrays(x=np.arange(N), y=np.zeros(N, np.float32))
    for _ in range(2):
        assert train.evaluate(task, {}, None, ds, batch_size=64)["ids"] == list(range(N))
    assert traces == [(64,)]
    train.evaluate(train.Task(Counting(), losses.mse, {"ids": Ids()}), {}, None, ds, batch_size=64)
    assert traces == [(64,)]  # an equal task is the same task


def test_metrics_whose_sums_grow():
    rng = np.random.default_rng(0)
    y, scores = rng.integers(0, 2, 301), rng.standard_normal(301).astype(np.float32).round(1)
    task = train.Task(
        nn.Identity(), losses.binary_cross_entropy, {"auc": metrics.AUC(), "accuracy": metrics.BinaryAccuracy()}
    )
    ds = data.Arrays(x=scores, y=y.astype(np.float32))
    found = train.evaluate(task, {}, None, ds, batch_size=32)
    assert found["auc"] == pytest.approx(roc_auc_score(y, scores), abs=1e-6)
    assert found["accuracy"] == pytest.approx(np.mean((scores > 0) == y))


def test_loss_is_that_of_the_data():
    """Without the regularizer, as the examples have nothing to do with it."""
    plain, penalized = problem.task(), problem.task(regularizer=losses.l2(10.0))
    params, state = plain.model.init(jax.random.key(0)), plain.model.init_state()
    a, b = (train.evaluate(t, params, state, problem.points(20)) for t in (plain, penalized))
    assert a["loss"] == b["loss"]
    assert "penalty" not in b


@pytest.mark.parametrize("n", [1, 8, 21])
def test_predict_any_length(n):
    model = problem.network()
    params, state = model.init(jax.random.key(0)), model.init_state()
    x = problem.points(n).x
    found = train.predict(model, params, state, x, batch_size=8)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, model.apply(params, state, jnp.asarray(x), nn.EVAL)[0], rtol=1e-5, atol=1e-6)


def test_predict_is_traced_once_and_takes_trees():
    traces = []

    @dataclass(frozen=True)
    class Two(nn.Pure):
        def init(self, key):
            return {}

        def __call__(self, params, x):
            traces.append(1)
            return {"sum": x["a"] + x["b"], "a": x["a"]}

    for n in (3, 10, 25):
        x = {"a": np.arange(n), "b": np.ones(n, np.int32)}
        found = train.predict(Two(), {}, None, x, batch_size=8)
        np.testing.assert_array_equal(found["sum"], np.arange(n) + 1)
    assert len(traces) == 1


def test_errors():
    model = nn.Linear(4, 2)
    params = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        train.evaluate(problem.task(model), params, None, problem.points(8), batch_size=0)
    with pytest.raises(ValueError, match=r"arrays \[N, \.\.\.\] of one N >= 1"):
        train.predict(model, params, None, {"a": np.ones((2, 4)), "b": np.ones((3, 4))})
    with pytest.raises(ValueError, match="one N >= 1"):
        train.predict(model, params, None, np.ones((0, 4), np.float32))
    with pytest.raises(ValueError, match="d_in=4") as caught:
        train.evaluate(
            problem.task(model), params, None, data.Arrays(x=np.ones((3, 5), np.float32), y=np.zeros(3, int))
        )
    assert any("in an evaluation step on the batch" in n and "x float32[256, 5]" in n for n in caught.value.__notes__)
