"""Ask 8, silent recompilation: the steps of every example config are traced once; sums of metrics keep their types."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import data, losses, metrics, nn, train, tree
from dlkit.config import assemble, load
from dlkit.train import sums
from dlkit.train.step import Compiled

loop, evaluate = (importlib.import_module(f"dlkit.train.{name}") for name in ("fit", "evaluate"))  # not the functions

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
PICTURES = {"digits": ((8, 8, 1), np.float32), "mnist": ((28, 28, 1), np.uint8), "cifar10": ((32, 32, 3), np.uint8)}


def few(config):
    """Seven made-up examples of the config's kind: in batches of four, the second one is ragged."""
    if config.data.name == "karate_club":
        return data.karate_club()
    shape, dtype = PICTURES[config.data.name]
    arrays = data.Arrays(x=np.ones((7, *shape), dtype), y=np.arange(7, dtype=np.int32))
    return arrays, arrays, arrays


def parts_of(path, monkeypatch):
    text = path.stem.startswith(("shakespeare", "eng_fra"))
    if not text:
        monkeypatch.setattr(assemble, "datasets", few)
    graph = path.stem.startswith("cora")
    sizes = ["data={name='karate_club'}"] if graph else ["train.batch_size=4", "train.eval_batch_size=4"]
    if text:  # what the model knows of it comes from the text
        monkeypatch.delenv("DLKIT_DATA", raising=False)
        sizes.append("data.limit=20")
    return assemble.assemble(load(path, ["train.epochs=2", "train.log_every=1", *sizes]))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_steps_of_the_example_configs_are_traced_once(path, monkeypatch):
    """Two ragged epochs and their validation, without compiling: what a step returns has the types of what it takes."""
    parts = parts_of(path, monkeypatch)
    step, evaluation = train.make_step(parts.task, parts.optimizer), train.make_eval_step(parts.task)
    state = jax.eval_shape(lambda key: train.create_state(parts.task.model, parts.optimizer, key), jax.random.key(0))
    begun = state
    for epoch in range(2):
        for loader, training in ((data.Loader(parts.training, parts.config.train.batch_size), True),
                                 (data.Loader(parts.valid, parts.eval_batch_size, shuffle=False), False)):  # fmt: skip
            for batch in loader.epoch(epoch):
                if training:
                    state, _ = jax.eval_shape(step.jitted, state, batch)
                else:
                    jax.eval_shape(evaluation.jitted, state.params, state.state, batch)
    assert (step.traces, evaluation.traces) == (1, 1)
    assert not tree.diff(begun, state)
    assert not [name for name, leaf in tree.flatten(state).items() if getattr(leaf, "weak_type", False)]


FAST = ("digits_mlp", "digits_logistic")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, marks=() if p.stem in FAST else pytest.mark.thorough, id=p.stem)
        for p in CONFIGS
        if p.stem != "shakespeare_gpt_gpu"
    ],  # shakespeare_gpt in large
)
def test_the_loop_traces_the_example_configs_once(path, monkeypatch, tmp_path):
    """An epoch, then from its checkpoint another, with validation; the learning rate changes as the config says."""
    parts = parts_of(path, monkeypatch)
    made = []

    def kept(*args, **options):
        made.append(Compiled(*args, **options))
        return made[-1]

    monkeypatch.setattr(loop, "Compiled", kept)
    evaluate._accumulate.cache_clear()
    for epochs in (1, 2):
        options = parts.fit_options() | {"epochs": epochs}
        train.fit(parts.task, parts.optimizer, parts.training, run_dir=tmp_path, **options)
    assert [step.traces for step in made] == [1, 1]
    assert evaluate._accumulate(parts.task).traces == 1


# --- the sums of metrics ---------------------------------------------------------------------------------------------

METRICS = {
    "accuracy": metrics.Accuracy(), "top2": metrics.TopKAccuracy(2), "mean": metrics.Mean(losses.cross_entropy),
    "perplexity": metrics.Perplexity(), "confusion": metrics.ConfusionMatrix(4), "f1": metrics.PrecisionRecallF1(4),
    "auc": metrics.AUC(4), "calibration": metrics.CalibrationError(),
}  # fmt: skip
REAL = {"mse": metrics.MSE(), "mae": metrics.MAE(), "r2": metrics.R2(), "binary": metrics.BinaryAccuracy()}


def test_every_metric_is_walked():
    kinds = {getattr(metrics, name) for name in metrics.__all__}
    concrete = {k for k in kinds if isinstance(k, type) and issubclass(k, metrics.Metric) and not k.__abstractmethods__}
    assert {type(metric) for metric in (METRICS | REAL).values()} == concrete - {metrics.AtMasked}  # around another


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("weighted", [True, False])
def test_sums_of_metrics_are_strongly_typed_arrays_and_keep_their_types(dtype, weighted):
    """No Python number, no weak type, and what is merged looks like what was measured."""
    weight = jnp.ones(6) if weighted else None
    classes = (jnp.ones((6, 4), dtype), jnp.arange(6) % 4)
    real = (jnp.ones(6, dtype), jnp.ones(6, dtype))
    for name, metric in (METRICS | REAL).items():
        outputs, targets = classes if name in METRICS else (real[0], jnp.arange(6) % 2) if name == "binary" else real
        outside = metric.measure(outputs, targets, weight)
        for path, leaf in tree.flatten(outside).items():
            assert isinstance(leaf, jax.Array), f"{name}/{path} is {leaf!r}"
            assert not leaf.weak_type, f"{name}/{path} is weakly typed"
        measured = jax.eval_shape(metric.measure, outputs, targets, weight)
        assert not tree.diff(jax.tree.map(jax.typeof, outside), jax.tree.map(jax.typeof, measured)), name
        merged = jax.eval_shape(metric.merge, measured, measured)
        assert not [path for path, leaf in tree.flatten(merged).items() if leaf.weak_type], name
        if metric.fixed_size:
            assert not tree.diff(measured, merged), name


def test_what_the_loop_adds_up_keeps_its_types():
    task = train.Task(nn.Linear(3, 4), losses.cross_entropy, METRICS)
    batch = {"x": jnp.ones((6, 3)), "y": jnp.arange(6) % 4, "weight": jnp.ones(6)}
    params = jax.eval_shape(task.model.init, jax.random.key(0))

    def measure(params):
        return task.loss_and_sums(params, None, batch, nn.EVAL)[1][2] | {"learning_rate": jnp.float32(0.1)}

    measured = jax.eval_shape(measure, params)
    piece = jax.tree.map(jnp.asarray, sums.empty(task.table(), measured))
    after, _ = jax.eval_shape(lambda p, m: sums.add(task.table(), p, m, jnp.int32(3)), piece, measured)
    assert not tree.diff(jax.tree.map(jax.typeof, piece), after)
