"""A part of a checkpoint in another model: ask 24."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import io, nn, train, tree


def model(classes):
    return nn.Chain(body=nn.Linear(4, 8), head=nn.Linear(8, classes))


def bits(params):
    return {path: np.asarray(leaf).tobytes() for path, leaf in tree.flatten(params).items()}


def test_new_head_renamed_prefix_and_no_optimizer_state(tmp_path, key):
    old = model(10).init(key)
    held = {"net": {"trunk": old["body"], "head": old["head"]}, "opt_state": {"mu": old}}
    place = train.save(tmp_path, 7, held)
    fresh = model(5).init(jax.random.key(1))
    rename, skip = [("net/trunk", "body"), ("net", "")], ["opt_state/**"]
    with pytest.raises(io.WeightsError) as failed:
        io.load(fresh, place, rename=rename, skip=skip)
    assert failed.value.report.mismatched == (
        "net/head/b: expected [5], got [10]",
        "net/head/w: expected [8, 5], got [8, 10]",
    )
    assert "net/head/w" in str(failed.value)
    loaded, report = io.load(fresh, place, rename=rename, skip=skip, on_mismatch="keep")
    assert report == io.Report(
        used=("net/trunk/b", "net/trunk/w"),
        skipped=tuple(f"opt_state/mu/{p}" for p in ("body/b", "body/w", "head/b", "head/w")),
        kept=("head/b", "head/w"),
    )
    assert bits(loaded["body"]) == bits(old["body"])
    assert bits(loaded["head"]) == bits(fresh["head"])
    same, report = io.load(fresh, place, rename=rename, skip=[*skip, "head/**"])
    assert bits(same) == bits(loaded)
    assert report.kept == ("head/b", "head/w")


def test_it_raises_by_default(tmp_path, key):
    params = model(3).init(key)
    io.save(tmp_path / "a.safetensors", params)
    loaded, report = io.load(model(3).init(jax.random.key(1)), tmp_path / "a.safetensors")
    assert bits(loaded) == bits(params)
    assert report.complete
    with pytest.raises(io.WeightsError, match="unexpected: 2\n  head/b\n  head/w") as failed:
        io.load({"body": params["body"], "tail": params["head"]}, tmp_path / "a.safetensors")
    assert failed.value.report.missing == ("tail/b", "tail/w")
    with pytest.raises(ValueError, match="matches none"):
        io.load(params, tmp_path / "a.safetensors", skip=["optstate/**"])
    with pytest.raises(TypeError, match="int32"):
        io.load(jax.tree.map(lambda a: a.astype(jnp.int32), params), tmp_path / "a.safetensors")
