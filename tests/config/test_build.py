"""From a configuration to objects: each name gives the dlkit object that it says, with its options."""

import functools
import io
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlkit import losses, metrics, models, nn, optim
from dlkit.config import ConfigError, build, load, parse
from dlkit.config.assemble import task_of
from dlkit.config.sources import datasets

BASE = """
metrics = ["accuracy", {name = "top_k", k = 2}]
data = {name = "digits", valid = 100, test = 0.2}
model = {name = "mlp", widths = [64, 8, 10]}
loss = {name = "cross_entropy"}
optimizer = {name = "sgd", learning_rate = 0.5}
train = {epochs = 2, batch_size = 32}
"""
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


def config(*overrides):
    return parse(BASE, overrides)


# What a model of text knows comes from its text: tests/train/test_traced_once.py builds those.
@pytest.mark.parametrize(
    "path", [p for p in CONFIGS if not p.stem.startswith(("shakespeare", "eng_fra"))], ids=lambda p: p.stem
)
def test_shipped_configs_build(path):
    c = load(path)
    task = task_of(c)
    params, state = jax.eval_shape(task.model.init, jax.random.key(0)), jax.eval_shape(task.model.init_state)
    graph, rebuilds = isinstance(task.model, models.NodeOutputs), task.targets == "x"
    rows, classes = (1, params["conv2"]["b"].shape[-1]) if graph else (4, 10)
    n = params["conv1"]["w"].shape[0] if graph else 0
    shape = (n, n) if graph else build.input_shape(c)
    dtype = jnp.uint8 if c.data.name in ("mnist", "cifar10") else jnp.float32
    batch = {"x": jax.ShapeDtypeStruct((rows, *shape), dtype)}
    batch |= {"y": jax.ShapeDtypeStruct((rows, n) if graph else (rows,), jnp.int32)}
    batch |= {name: jax.ShapeDtypeStruct((rows, 5), jnp.int32) for name in ("senders", "receivers")}
    loss, (_, outputs) = jax.eval_shape(lambda p, s, b: task.loss_fn(p, s, b, nn.EVAL), params, state, batch)
    assert loss.shape == ()
    if rebuilds:
        assert jax.tree.leaves(outputs)[0].shape == batch["x"].shape
    else:
        assert outputs.shape == (*batch["y"].shape, classes)
        assert "accuracy" in build.metric_table(c.metrics)
    jax.eval_shape(build.optimizer(c.optimizer, 100).init, params)


def test_there_are_these_configs():
    names = {"digits_mlp", "digits_cnn", "mnist_mlp", "mnist_cnn", "digits_logistic", "digits_hinge"}
    names |= {"vae_mnist", "denoising_mnist", "cora_gcn", "cora_gat", "cora_sage", "cifar_resnet20"}
    names |= {"ddpm_mnist", "digits_ddpm", "eng_fra_seq2seq", "eng_fra_transformer"}
    names |= {f"shakespeare_{name}" for name in ("bert", "char_lstm", "gpt", "gpt_gpu", "llama")}
    assert {p.stem for p in CONFIGS} == names


def test_models():
    flat = build.model(config("model.dropout=0.5"))
    assert flat == nn.Chain(flatten=nn.Flatten(), **models.mlp((64, 8, 10), dropout=0.5).children())
    cnn = build.model(config("model={name='cnn', input=[8, 8, 1], classes=10, channels=[4], hidden=6}"))
    assert cnn == models.cnn((8, 8, 1), 10, (4,), hidden=6)
    mnist = build.model(config("data={name='mnist'}", "model={name='linear', d_in=784, classes=10}"))
    assert mnist.names == ("rescale", "flatten", "head")
    layers = "[{type='Flatten'}, {type='Linear', d_in=64, d_out=10, name='head'}]"
    written = build.model(config(f"model={{name='chain', layers={layers}}}"))
    assert written == nn.Chain(flatten1=nn.Flatten(), head=nn.Linear(64, 10))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.widths=[63, 10]"], ["model.widths[0]", "63", "digits", "64"]),
        (["model={name='linear', d_in=7, classes=10}"], ["model.d_in", "7", "64"]),
        (["model={name='resnet20'}"], ["[32, 32, 3]", "[8, 8, 1]"]),
        (["model={name='cnn', input=[28, 28, 1], classes=10}"], ["[28, 28, 1]", "[8, 8, 1]"]),
        (["model={name='cnn', input=[8, 8, 1], classes=10, channels=[4, 4, 4, 4]}"], ["model", "at least 16"]),
        (["model={name='chain', layers=[{type='Liner'}]}"], ["'Linear'"]),
        (["metrics=['accuracy', 'accuracy']"], ["metrics[1]", "twice"]),
    ],
)
def test_what_does_not_fit_is_a_config_error(overrides, words):
    c = config(*overrides)
    make = build.metric_table if "metrics" in overrides[0] else build.model
    with pytest.raises(ConfigError) as info:
        make(c.metrics if make is build.metric_table else c)
    for word in words:
        assert word in str(info.value)


def test_losses_and_metrics():
    logits, y = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32), jnp.array([0, 1, 2, 3, 0])
    smooth = build.loss(config("loss.label_smoothing=0.1").loss)
    np.testing.assert_array_equal(smooth(logits, y), losses.cross_entropy(logits, y, label_smoothing=0.1))
    hinge = build.loss(config("loss={name='multiclass_hinge', variant='crammer_singer'}").loss)
    np.testing.assert_array_equal(hinge(logits, y), losses.multiclass_hinge(logits, y, variant="crammer_singer"))
    assert build.loss(config("loss={name='mse'}").loss) is losses.mse
    assert build.metric_table(config().metrics) == {"accuracy": metrics.Accuracy(), "top_k": metrics.TopKAccuracy(2)}
    assert build.regularizer(config()) is None
    assert build.regularizer(config("regularizer.l2=1e-3")) == losses.l2(1e-3)


LR, STEPS = 0.5, 40
SCHEDULES = [
    ("name='constant', warmup=0.1", lambda: optax.warmup_constant_schedule(LR / 4, LR, 4)),
    ("name='cosine', end=0.1", lambda: optax.cosine_decay_schedule(LR, STEPS, 0.1)),
    ("name='cosine', warmup=0.25, end=0.1", lambda: optax.warmup_cosine_decay_schedule(LR / 10, LR, 10, STEPS, 0.05)),
    ("name='one_cycle', warmup=0.5", lambda: optax.cosine_onecycle_schedule(STEPS, LR, 0.5)),
    ("name='step', at=[0.5, 0.75]", lambda: optax.piecewise_constant_schedule(LR, {20: 0.1, 30: 0.1})),
    ("name='exponential', end=0.01", lambda: optax.exponential_decay(LR, STEPS, 0.01)),
    ("name='polynomial', power=2.0", lambda: optax.polynomial_schedule(LR, 0.0, 2.0, STEPS)),
]


@pytest.mark.parametrize(("written", "expected"), SCHEDULES, ids=[s[0] for s in SCHEDULES])
def test_schedules_equal_optax(written, expected):
    spec = config(f"optimizer.schedule={{{written}}}").optimizer
    schedule = build.schedule(spec.schedule, spec.learning_rate, STEPS)
    steps = np.array([0, 1, 3, 4, 5, 10, 19, 20, 21, 29, 30, 31, 39, 40])
    with jax.numpy_dtype_promotion("standard"):
        theirs = [float(expected()(int(t))) for t in steps]
    # optax leaves boundaries of piecewise_constant_schedule one step later: count > boundary.
    keep = [i for i, t in enumerate(steps) if not ("step" in written and t in (20, 30))]
    ours = [float(schedule(int(t))) for t in steps]
    np.testing.assert_allclose(np.array(ours)[keep], np.array(theirs)[keep], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 3, 40])
@pytest.mark.parametrize("written", [s[0] for s in SCHEDULES])
def test_no_schedule_wastes_the_first_update(written, steps):
    spec = config(f"optimizer.schedule={{{written}}}").optimizer
    assert build.schedule(spec.schedule, spec.learning_rate, steps)(0) > 0


def test_optimizers():
    build_one = functools.partial(build.optimizer, steps=STEPS)
    assert build_one(config().optimizer) == optim.sgd(0.5)
    adamw = config("optimizer={name='adamw', learning_rate=0.1, b2=0.95, mask=['**/w'], weight_decay=0.2}").optimizer
    assert build_one(adamw) == optim.adamw(0.1, b2=0.95, weight_decay=0.2, mask=("**/w",))
    sgd = config("optimizer.momentum=0.9", "optimizer.nesterov=true", "optimizer.l2=1e-3", "optimizer.clip_norm=2")
    assert build_one(sgd.optimizer) == optim.chain(
        optim.clip_by_global_norm(2.0), optim.sgd(0.5, 0.9, True, l2=1e-3, mask=("**/w", "**/table"))
    )
    clipped = config("optimizer.clip_value=0.5").optimizer
    assert build_one(clipped) == optim.chain(optim.clip(0.5), optim.sgd(0.5))
    for name in ("adagrad", "rmsprop", "adam"):
        spec = config(f"optimizer={{name='{name}', learning_rate=0.1}}").optimizer
        assert build_one(spec) == getattr(optim, name)(0.1)


def test_digits_are_split_by_the_seed():
    train, valid, test = datasets(config())
    assert (len(train), len(valid), len(test)) == (1797 - 100 - 359, 100, 359)
    again = datasets(config())[2]
    np.testing.assert_array_equal(test["x"], again["x"])
    assert not np.array_equal(test["x"], datasets(config("seed=1"))[2]["x"])
    counts = np.bincount(test["y"])
    assert counts.min() >= 34
    few, _, same = datasets(config("data.limit=50"))
    assert len(few) == 50
    assert np.bincount(few["y"]).tolist() == [5] * 10
    np.testing.assert_array_equal(same["x"], test["x"])
    assert datasets(config("data.valid=0", "data.test=0"))[1:] == (None, None)
    with pytest.raises(ConfigError, match="leave none"):
        datasets(config("data.valid=1000", "data.test=797"))


def arrays(path, **fields):
    np.savez(path, **fields)
    return config(f"data={{name='arrays', path='{path}'}}")


def test_arrays_of_your_own(tmp_path):
    rng = np.random.default_rng(0)
    c = arrays(tmp_path / "a.npz", x=rng.normal(size=(50, 4)), y=np.arange(50) % 5)
    train, valid, test = datasets(c)
    assert (len(train), len(valid), len(test)) == (40, 5, 5)
    assert (train["x"].dtype, train["y"].dtype) == (np.float32, np.int32)
    assert np.bincount(test["y"]).tolist() == [1] * 5
    pixels = arrays(tmp_path / "b.npz", x=np.full((20, 2, 2, 1), 255, np.uint8), y=rng.normal(size=20))
    assert datasets(pixels)[0]["x"].max() == 1.0


def test_files_that_are_not_arrays(tmp_path):
    def message(path) -> str:
        with pytest.raises(ConfigError) as info:
            datasets(config(f"data={{name='arrays', path='{path}', x='x', y='y'}}"))
        return str(info.value)

    assert "no file" in message(tmp_path / "none.npz")
    assert ".npz" in message(tmp_path / "none.npy")
    (tmp_path / "text.npz").write_text("not a zip")
    assert "cannot read" in message(tmp_path / "text.npz")
    np.savez(tmp_path / "names.npz", images=np.zeros(3), y=np.zeros(3))
    assert "has no array 'x'" in message(tmp_path / "names.npz")
    np.savez(tmp_path / "objects.npz", x=np.array([{"a": 1}, None], dtype=object), y=np.zeros(2))
    assert "cannot read" in message(tmp_path / "objects.npz")
    np.savez(tmp_path / "lengths.npz", x=np.zeros((3, 2)), y=np.zeros(4))
    assert "3" in message(tmp_path / "lengths.npz")
    np.savez(tmp_path / "big.npz", x=np.zeros((3, 2)), y=np.array([2**40, 1, 2]))
    assert "int32" in message(tmp_path / "big.npz")
    lying = io.BytesIO()
    np.lib.format.write_array_header_1_0(lying, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)})
    with zipfile.ZipFile(tmp_path / "lying.npz", "w") as file:
        file.writestr("x.npy", lying.getvalue())
        file.writestr("y.npy", lying.getvalue())
    assert "cannot read" in message(tmp_path / "lying.npz")
