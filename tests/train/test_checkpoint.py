"""What goes in comes out: values, containers, types, keys; and what does not fit is said."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from support import training as problem

from dlkit import nn, optim, train
from dlkit.train import files
from dlkit.train.checkpointer import kept, retain


class Pair(NamedTuple):
    a: Any
    b: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Held:
    value: Any


def everything():
    return {
        "f32": jnp.arange(6.0).reshape(2, 3),
        "bf16": jnp.array([1.5, -2.25, jnp.nan, jnp.inf], jnp.bfloat16),
        "f16": jnp.array([0.1], jnp.float16),
        "f8": jnp.array([1.5], jnp.float8_e4m3fn),
        "int8": jnp.array([-3], jnp.int8),
        "uint32": jnp.array([2**32 - 1], jnp.uint32),
        "bool": jnp.array([True, False]),
        "scalar": jnp.float32(3.5),
        "empty": jnp.zeros((0, 3)),
        "nested": Pair((jnp.ones(1), [jnp.zeros(2)]), None),
        "none": None,
        "no leaves": ({}, [], (), Pair({}, None)),
        "dataclass": Held(jnp.int32(7)),
        "threefry": jax.random.key(1),
        "rbg": jax.random.key(2, impl="rbg"),
        "keys": jax.random.split(jax.random.key(3), (2, 3)),
        "legacy": jax.random.PRNGKey(4),
        "numpy": np.arange(3, dtype=np.float64),
        "number": 5,
        "flag": True,
        "weak": jnp.asarray(2.0),
        "odd/../name \u00e9\n": jnp.ones(1),
    }


def test_everything_round_trips(tmp_path):
    """Asks 23 and 28."""
    tree = everything()
    metadata = {"a": [1, 2.5, None, "x"], "b": {"c": True}}
    path = train.save(tmp_path, 12, tree, metadata)
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "state.safetensors"]
    template = jax.tree.map(lambda x: x * 0 if isinstance(x, np.ndarray) else x, everything())
    found, about = train.restore(path, template)
    assert about == metadata
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    assert problem.equal(found, tree)
    for old, new in zip(jax.tree.leaves(tree), jax.tree.leaves(found), strict=True):
        assert type(old) is type(new)
        if isinstance(old, jax.Array):
            assert jax.typeof(old) == jax.typeof(new)  # weak types too
    assert jax.random.key_impl(found["rbg"]) == jax.random.key_impl(tree["rbg"])
    assert found["flag"] is True


def test_float64(tmp_path, x64):
    path = train.save(tmp_path, 1, {"w": jnp.array([0.1, 1e300])})
    found, _ = train.restore(path, {"w": jnp.zeros(2)})
    assert found["w"].dtype == jnp.float64
    assert problem.equal(found, {"w": jnp.array([0.1, 1e300])})


def test_keys_keep_their_implementation(tmp_path):
    """Ask 28: whatever the default is where the template was made."""
    path = train.save(tmp_path, 1, {"key": jax.random.key(7, impl="threefry2x32")})
    with jax.default_prng_impl("threefry2x32"):
        template = {"key": jax.random.key(0)}
    found, _ = train.restore(path, template)
    assert problem.equal(found["key"], jax.random.key(7))
    wide = train.save(tmp_path, 2, {"key": jax.random.key(7, impl="rbg")})
    found, _ = train.restore(wide, {"key": jax.random.key(0, impl="unsafe_rbg")})
    assert str(jax.random.key_impl(found["key"])) == "rbg"
    with pytest.raises(train.CheckpointError, match="a typed PRNG key on one side"):
        train.restore(path, {"key": jax.random.PRNGKey(0)})


def test_a_restored_state_is_not_traced_again(tmp_path):
    """Asks 8 and 23: the compiled step takes it, and `lax.cond` between live and restored type-checks."""
    task, optimizer = problem.task(), problem.optimizer()
    step = train.make_step(task, optimizer, donate=False)
    state, _ = step(train.create_state(task.model, optimizer, jax.random.key(0)), problem.batch())
    path = train.save(tmp_path, 1, state)
    for template in (state, jax.eval_shape(lambda: train.create_state(task.model, optimizer, jax.random.key(0)))):
        restored, _ = train.restore(path, template)
        assert problem.equal(restored, state)
        again, _ = step(restored, problem.batch(seed=1))
        straight, _ = step(state, problem.batch(seed=1))
        assert problem.equal(again, straight)
    assert step.traces == 1
    chosen = jax.lax.cond(True, lambda: state, lambda: restored)
    assert problem.equal(chosen, state)


def test_restored_arrays_can_be_donated(tmp_path):
    task, optimizer = problem.task(), problem.optimizer()
    state = train.create_state(task.model, optimizer, jax.random.key(0))
    restored, _ = train.restore(train.save(tmp_path, 0, state), state)
    step = train.make_step(task, optimizer)
    a, _ = step(restored, problem.batch())
    b, _ = step(state, problem.batch())
    assert problem.equal(a, b)


PLAIN = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3), "n": jnp.int32(1)}
MISFITS = {
    "missing": ({"w": PLAIN["w"], "b": PLAIN["b"]}, "n: unexpected (got int32[])"),
    "extra": (PLAIN | {"c": jnp.ones(1)}, "c: missing (expected float32[1])"),
    "renamed": ({"w": PLAIN["w"], "bias": PLAIN["b"], "n": PLAIN["n"]}, "bias: missing"),
    "transposed": (PLAIN | {"w": jnp.ones((3, 2))}, "w: expected float32[3,2], got float32[2,3]"),
    "rank": (PLAIN | {"b": jnp.zeros((1, 3))}, "b: expected float32[1,3], got float32[3]"),
    "float to int": (PLAIN | {"b": jnp.zeros(3, jnp.int32)}, "b: expected int32[3], got float32[3]"),
    "float to half": (PLAIN | {"w": jnp.ones((2, 3), jnp.bfloat16)}, "w: expected bfloat16[2,3], got float32[2,3]"),
    "int to uint": (PLAIN | {"n": jnp.uint32(1)}, "n: expected uint32[], got int32[]"),
    "another": ({f"layer{i}": {"w": jnp.ones(i)} for i in range(40)}, "more"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_misfits_are_named(tmp_path, name):
    path = train.save(tmp_path, 5, PLAIN)
    template, line = MISFITS[name]
    with pytest.raises(train.CheckpointError) as caught:
        train.restore(path, template)
    message = str(caught.value)
    assert line in message
    assert "step_00000005" in message
    assert len(message.splitlines()) <= 15


def test_another_optimizer_or_model_is_named(tmp_path):
    def state(width, optimizer):
        model = nn.Chain(nn.Linear(2, width), head=nn.Linear(width, 1))
        return jax.eval_shape(lambda: train.create_state(model, optimizer, jax.random.key(0)))

    made = train.create_state(nn.Chain(nn.Linear(2, 4), head=nn.Linear(4, 1)), optim.adam(0.1), jax.random.key(0))
    path = train.save(tmp_path, 1, made)
    with pytest.raises(train.CheckpointError, match="opt_state"):
        train.restore(path, state(4, optim.sgd(0.1)))
    with pytest.raises(train.CheckpointError, match=r"params/head/w: expected float32\[5,1\], got float32\[4,1\]"):
        train.restore(path, state(5, optim.adam(0.1)))


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(train.CheckpointError, match="two leaves have the path 'a/b'"):
        train.save(tmp_path, 1, {"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}})
    with pytest.raises(train.CheckpointError, match="word: leaves of type str"):
        train.save(tmp_path, 1, {"word": "text"})
    with pytest.raises(train.CheckpointError, match="dtype int4 cannot be saved"):
        train.save(tmp_path, 1, {"w": np.zeros(2, ml_dtypes.int4)})
    with pytest.raises(train.CheckpointError, match="metadata of step 1"):
        train.save(tmp_path, 1, {"w": jnp.ones(1)}, {"x": object()})
    with pytest.raises(train.CheckpointError, match="not negative"):
        train.save(tmp_path, -1, {"w": jnp.ones(1)})
    task, optimizer = problem.task(), problem.optimizer()
    state = train.create_state(task.model, optimizer, jax.random.key(0))
    train.make_step(task, optimizer)(state, problem.batch())
    with pytest.raises(train.CheckpointError, match="was donated to a step"):
        train.save(tmp_path, 1, state)
    assert not files.steps(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    files.write_step(tmp_path, 1, {"state.safetensors": b""}, {"format": 99, "versions": {"dlkit": "9.0"}})
    with pytest.raises(train.CheckpointError, match=r"format 99, and this dlkit .* the dlkit that wrote it, 9\.0"):
        train.read(tmp_path / "step_00000001")


def test_names_never_become_paths(tmp_path):
    tree = {"../../escape": jnp.ones(1), "/absolute": jnp.ones(1), "a\0b": jnp.ones(1), "x" * 5000: jnp.ones(1)}
    path = train.save(tmp_path / "run", 1, tree)
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "state.safetensors"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert problem.equal(train.restore(path, tree)[0], tree)


def test_saving_the_same_step_again_replaces_it(tmp_path):
    train.save(tmp_path, 3, {"w": jnp.ones(2)}, {"n": 1})
    path = train.save(tmp_path, 3, {"w": jnp.zeros(2)}, {"n": 2})
    tree, about = train.restore(path, {"w": jnp.ones(2)})
    assert about == {"n": 2}
    assert problem.equal(tree, {"w": jnp.zeros(2)})
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000003"]


def test_a_copy_is_a_checkpoint(tmp_path):
    """Ask 3: copied with plain tools, and under another name."""
    import shutil

    path = train.save(tmp_path / "a", 3, {"w": jnp.ones(2)})
    shutil.copytree(path, tmp_path / "b" / "step_00000003")
    shutil.copytree(path, tmp_path / "keep_this")
    for copy in (train.latest(tmp_path / "b"), tmp_path / "keep_this"):
        assert problem.equal(train.restore(copy, {"w": jnp.zeros(2)})[0], {"w": jnp.ones(2)})


def test_which_steps_stay():
    """Ask 53, worked by hand: minimum, ties to the earlier, NaN last, None never."""
    values = {10: 0.5, 20: 0.2, 30: 0.2, 40: float("nan"), 50: None, 60: 0.4, 70: 0.9}
    rules = {"keep_last": 1, "direction": "min"}
    assert kept(values, keep_best=0, **rules) == {70}
    assert kept(values, keep_best=1, **rules) == {20, 70}
    assert kept(values, keep_best=2, **rules) == {20, 30, 70}
    assert kept(values, keep_best=6, **rules) == {10, 20, 30, 40, 60, 70}
    assert kept(values, keep_best=1, keep_last=2, direction="max") == {60, 70}
    assert kept(values, keep_best=0, keep_every=20, **rules) == {20, 40, 60, 70}
    assert kept({}, keep_best=1, **rules) == set()


def test_retention_after_each_save(tmp_path):
    """After each save exactly the last 2, the best 1 and every 40th remain; the best outlives its successor's save."""
    values, seen = {}, []
    for step, value in {10: 0.9, 20: 0.3, 30: 0.5, 40: 0.4, 50: 0.2, 60: 0.8, 70: float("nan")}.items():
        train.save(tmp_path, step, {"w": jnp.ones(1)}, {"row": {"valid/loss": value}})
        assert {s for s in seen if s in kept(values, keep_last=2, keep_best=1, direction="min")} <= set(
            files.steps(tmp_path)
        )
        values[step] = value
        retain(tmp_path, "valid/loss", keep_last=2, keep_best=1, direction="min", keep_every=40)
        seen = list(files.steps(tmp_path))
        assert set(seen) == kept(values, keep_last=2, keep_best=1, direction="min", keep_every=40)
    assert seen == [40, 50, 60, 70]
    assert train.best_step(tmp_path, "valid/loss") == tmp_path / "step_00000050"
    (tmp_path / "step_00000040" / "manifest.json").unlink()
    train.save(tmp_path, 80, {"w": jnp.ones(1)}, {})
    retain(tmp_path, "valid/loss", keep_last=1, keep_best=1, direction="min")
    assert list(files.steps(tmp_path)) == [40, 50, 80]  # what cannot be read is left alone


def test_sharded_arrays_are_saved_whole(tmp_path):
    """On one device here; `test_evaluate` and `test_resume` have more. The file knows nothing of devices."""
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    w = jax.device_put(jnp.arange(8.0), rows)
    path = train.save(tmp_path, 1, {"w": w})
    found, _ = train.restore(path, {"w": w})
    assert found["w"].sharding == rows
    found, _ = train.restore(path, {"w": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=rows)})
    assert found["w"].sharding == rows
    assert b"sharding" not in (path / "manifest.json").read_bytes()


def test_small_saves_are_quick(tmp_path):
    """A floor, not a benchmark: a state of 1 MB is saved and restored in a fraction of a second."""
    import time

    tree = {f"w{i}": jnp.ones((64, 64)) for i in range(64)}
    begin = time.perf_counter()
    path = train.save(tmp_path, 1, tree)
    train.restore(path, tree)
    assert time.perf_counter() - begin < 2.0


def test_the_model_alone_is_loaded(tmp_path):
    """`load_model` gives what `fit` returned."""
    task, optimizer = problem.task(), problem.optimizer()
    with pytest.raises(train.CheckpointError, match="holds no final model"):
        train.load_model(tmp_path, task.model)
    result = train.fit(task, optimizer, problem.points(), epochs=1, batch_size=32, run_dir=tmp_path)
    for which in ("final", "last"):
        params, state = train.load_model(tmp_path, task.model, which)
        assert problem.equal((params, state), (result.state.params, result.state.state))
    with pytest.raises(train.CheckpointError, match="does not fit"):
        train.load_model(tmp_path, nn.Linear(4, 3))
