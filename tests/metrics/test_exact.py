"""The value does not depend on the batches: 1,003 examples, any batch size, padding that holds NaN, device or host."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import compiling

from dlkit import losses, metrics

N, CLASSES = 1003, 5
RNG = np.random.default_rng(0)
LOGITS = (2 * RNG.normal(size=(N, CLASSES))).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, N).astype(np.int32)
SCORES = np.round(RNG.normal(size=N), 1).astype(np.float32)  # rounded: many ties
BITS = RNG.integers(0, 2, N).astype(np.int32)
REAL = (1e4 + RNG.normal(size=N)).astype(np.float32)
GUESS = (REAL + 0.5 * RNG.normal(size=N)).astype(np.float32)

METRICS = {
    "accuracy": (metrics.Accuracy(), LOGITS, LABELS),
    "top2": (metrics.TopKAccuracy(2), LOGITS, LABELS),
    "loss": (metrics.Mean(losses.cross_entropy), LOGITS, LABELS),
    "perplexity": (metrics.Perplexity(), LOGITS, LABELS),
    "binary": (metrics.BinaryAccuracy(), SCORES, BITS),
    "confusion": (metrics.ConfusionMatrix(CLASSES), LOGITS, LABELS),
    "f1": (metrics.PrecisionRecallF1(CLASSES), LOGITS, LABELS),
    "f1_binary": (metrics.PrecisionRecallF1(2, average="binary"), SCORES, BITS),
    "auc": (metrics.AUC(), SCORES, BITS),
    "auc_ovr": (metrics.AUC(CLASSES), LOGITS, LABELS),
    "calibration": (metrics.CalibrationError(), LOGITS, LABELS),
    "mse": (metrics.MSE(), GUESS, REAL),
    "mae": (metrics.MAE(), GUESS, REAL),
    "r2": (metrics.R2(), GUESS, REAL),
}


ROOT = Path(__file__).parents[2]
EIGHT = """
import jax, json, numpy as np, test_exact
assert jax.device_count() == 8
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
values = test_exact.evaluate(64, lambda batch: jax.device_put(batch, rows))
assert test_exact.measure._cache_size() == 1
print(json.dumps({name: np.asarray(value).tolist() for name, value in values.items()}))
"""


def numpy_loop() -> dict[str, float]:
    """Accuracy, loss and perplexity, example by example in float64."""
    correct = loss = 0.0
    for logits, label in zip(LOGITS.astype(np.float64), LABELS, strict=True):
        correct += np.argmax(logits) == label
        loss += np.log(np.sum(np.exp(logits))) - logits[label]
    return {"accuracy": correct / N, "loss": loss / N, "perplexity": np.exp(loss / N)}


def batches(outputs: np.ndarray, targets: np.ndarray, size: int):
    """Full-shape batches; the rows that pad the last one hold NaN, a label that is none, and weight 0."""
    for start in range(0, N, size):
        rows = slice(start, start + size)
        real = len(targets[rows])
        x = np.full((size, *outputs.shape[1:]), np.nan, np.float32)
        y = np.full(size, np.nan if targets.dtype.kind == "f" else -7, targets.dtype)
        x[:real], y[:real] = outputs[rows], targets[rows]
        yield jnp.asarray(x), jnp.asarray(y), jnp.asarray(np.arange(size) < real, jnp.float32)


def everything() -> dict[str, metrics.Metric]:
    return {name: metric for name, (metric, _, _) in METRICS.items()}


@jax.jit
def measure(batch):
    return {name: METRICS[name][0].measure(*batch[name]) for name in METRICS}


def evaluate(size: int, put=lambda batch: batch) -> dict[str, np.ndarray]:
    streams = {name: batches(outputs, targets, size) for name, (_, outputs, targets) in METRICS.items()}
    sums = None
    for rows in zip(*streams.values(), strict=True):
        # Fetched and merged on the host, as numpy arrays.
        new = jax.device_get(measure(put(dict(zip(streams, rows, strict=True)))))
        sums = new if sums is None else metrics.merge_all(everything(), sums, new)
    return metrics.result_all(everything(), sums)


@cache
def at_once() -> dict[str, np.ndarray]:
    return evaluate(N)


@pytest.mark.parametrize("size", [1, 7, 64, 2000])
def test_any_batch_size_gives_the_value_of_one_batch(size):
    traces = measure._cache_size()
    got = evaluate(size)
    assert measure._cache_size() == traces + 1  # one trace, the ragged last batch included
    assert got.keys() == at_once().keys()
    for name, expected in at_once().items():
        np.testing.assert_allclose(got[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(got["confusion"], at_once()["confusion"])
    assert got["accuracy"] == at_once()["accuracy"]


def test_equal_to_a_numpy_loop():
    for name, expected in numpy_loop().items():
        np.testing.assert_allclose(at_once()[name], expected, rtol=1e-6, err_msg=name)


def test_eight_devices_give_the_value_of_one():
    here = str(Path(__file__).parent)
    env = {**os.environ, "XLA_FLAGS": compiling.devices(8), "PYTHONPATH": f"{ROOT}:{ROOT}/tests:{here}"}
    run = subprocess.run([sys.executable, "-c", EIGHT], env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    got = json.loads(run.stdout)
    assert got.keys() == at_once().keys()
    for name, expected in at_once().items():
        np.testing.assert_allclose(got[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)


def test_eager_and_jit_agree():
    batch = next(iter(zip(*(batches(x, y, 64) for _, x, y in METRICS.values()), strict=True)))
    batch = dict(zip(METRICS, batch, strict=True))
    jitted = measure(batch)
    for name, (metric, _, _) in METRICS.items():
        eager = metric.result(metric.measure(*batch[name]))
        for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(metric.result(jitted[name])), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6, err_msg=name)


def test_sums_merge_in_the_carry_of_a_scan():
    size = 17
    fixed = {name: metric for name, metric in everything().items() if metric.fixed_size}
    assert set(METRICS) - set(fixed) == {"auc", "auc_ovr"}
    stacked = {
        name: jax.tree.map(lambda *rows: jnp.stack(rows), *batches(*METRICS[name][1:], size)) for name in METRICS
    }

    @jax.jit
    def run(stacked):
        def step(sums, batch):
            new = {name: METRICS[name][0].measure(*batch[name]) for name in METRICS}
            merged = metrics.merge_all(fixed, sums, {name: new[name] for name in fixed})
            return merged, {name: new[name] for name in METRICS if name not in fixed}

        first = jax.tree.map(lambda x: x[0], stacked)
        # Nothing has been counted yet: weight 0 everywhere.
        start = {name: metric.measure(*first[name][:2], jnp.zeros(size)) for name, metric in fixed.items()}
        return jax.lax.scan(step, start, stacked)

    sums, collected = run(stacked)
    got = metrics.result_all(everything(), {**sums, **collected})
    for name, expected in at_once().items():
        np.testing.assert_allclose(got[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)


def test_merging_in_any_order_and_with_nothing():
    outputs, targets = jnp.asarray(GUESS), jnp.asarray(REAL)
    metric = metrics.R2()
    a, b, c = (metric.measure(outputs[i::3], targets[i::3]) for i in range(3))
    nothing = metric.measure(outputs[:4], targets[:4], jnp.zeros(4))
    values = [
        metric.result(metric.merge(metric.merge(a, b), c)),
        metric.result(metric.merge(a, metric.merge(b, c))),
        metric.result(metric.merge(metric.merge(nothing, c), metric.merge(b, metric.merge(nothing, a)))),
    ]
    np.testing.assert_allclose(values, at_once()["r2"], rtol=1e-6)


def test_totals_count_past_2_to_24_and_keep_small_terms():
    @jax.jit
    def count(start, term):
        step = metrics.Total(term, jnp.zeros_like(term))
        return jax.lax.fori_loop(0, 1001, lambda _, sum_: sum_ + step, start)

    # The last: the low part has to hand on what it gathers, or it would itself stop counting at 2^24.
    for big, term in ((2**24, 1), (2**40, 1), (2**40, 2**16 + 1)):
        start = metrics.Total(jnp.float32(big), jnp.float32(0))
        assert float(count(start, jnp.float32(term)).value()) == big + 1001 * term
    start, one = (metrics.Total(jnp.float32(x), jnp.float32(0)) for x in (2**24, 1))
    # Adding leaf by leaf stays valid: only float32's own digits remain.
    plain = jax.tree.map(jnp.add, start, one)
    assert float(plain.value()) == pytest.approx(2**24 + 1, rel=1e-7)
    terms = RNG.uniform(size=3000).astype(np.float32)
    _, partial = jax.lax.scan(
        lambda sum_, x: (sum_ + metrics.Total(x, jnp.zeros_like(x)),) * 2, start, jnp.asarray(terms)
    )
    expected = 2**24 + np.sum(terms, dtype=np.float64)
    assert float(jax.tree.map(lambda x: x[-1], partial).value()) == pytest.approx(expected, rel=1e-13)


def test_infinite_sums_are_infinite_not_nan():
    metric = metrics.MSE()
    sums = metric.measure(jnp.array([jnp.inf, 1.0]), jnp.zeros(2))
    assert metric.result(metric.merge(sums, sums)) == np.inf


def test_60_000_examples_in_one_batch():
    values = RNG.uniform(size=60_000).astype(np.float32)
    metric = metrics.MAE()
    got = metric.result(metric.measure(jnp.asarray(values), jnp.zeros(60_000)))
    # Two rounds of 245 float32 additions each: 1e-6 would already be a miscount.
    np.testing.assert_allclose(got, values.astype(np.float64).mean(), rtol=2e-7)
