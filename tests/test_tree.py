import collections
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from support import compiling

from dlkit import tree
from dlkit.nn import EVAL, Mode, training

PARAMS = {
    "backbone": {"conv1": {"w": jnp.zeros((3, 3, 1, 4)), "b": jnp.zeros(4)}, "norm": {"scale": jnp.ones(4)}},
    "heads": ({"w": jnp.zeros((4, 2))}, {"w": jnp.zeros((4, 3))}),
}


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("**", ["backbone/conv1/b", "backbone/conv1/w", "backbone/norm/scale", "heads/0/w", "heads/1/w"]),
        ("**/w", ["backbone/conv1/w", "heads/0/w", "heads/1/w"]),
        ("*/w", []),
        ("*/*/w", ["backbone/conv1/w", "heads/0/w", "heads/1/w"]),
        ("backbone/**", ["backbone/conv1/b", "backbone/conv1/w", "backbone/norm/scale"]),
        ("heads/[1-9]/w", ["heads/1/w"]),
        ("backbone/**/scale", ["backbone/norm/scale"]),
        ("backbone/conv?/b", ["backbone/conv1/b"]),
    ],
)
def test_globs(pattern, paths):
    assert list(tree.select(PARAMS, pattern, required=False)) == paths


def test_several_patterns_are_a_union():
    chosen = tree.match(PARAMS, ("heads/0/w", "**/b"))
    assert [path for path, hit in tree.flatten(chosen).items() if hit] == ["backbone/conv1/b", "heads/0/w"]
    assert jax.tree.structure(chosen) == jax.tree.structure(PARAMS)


def test_a_pattern_that_matches_nothing_is_an_error_that_shows_what_is_near():
    with pytest.raises(ValueError, match=r"pattern 'backbone/conv2/w' matches none of the 5 paths.*backbone/conv1/w"):
        tree.match(PARAMS, ["heads/**", "backbone/conv2/w"])


def test_count_and_bytes_of_arrays_and_of_shapes():
    abstract = jax.eval_shape(lambda: jax.tree.map(lambda a: a.astype(jnp.bfloat16), PARAMS))
    assert tree.count(PARAMS) == tree.count(abstract) == 36 + 4 + 4 + 8 + 12
    assert tree.nbytes(PARAMS) == 2 * tree.nbytes(abstract) == 4 * 64


def test_diff_of_one_leaf_in_500_is_one_line():
    many = {f"layer{i}": {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)} for i in range(250)}
    other = {**many, "layer77": {"w": jnp.zeros((2, 3)), "b": jnp.zeros(2)}}
    assert tree.diff(many, other) == "layer77/w: expected float32[2,2], got float32[2,3]"
    assert tree.diff(many, many) == ""


def test_diff_names_missing_unexpected_dtype_and_weak_type():
    want = {"a": jnp.zeros(2), "b": jnp.zeros(2), "c": jnp.zeros((), jnp.float32)}
    got = {"a": jnp.zeros(2, jnp.bfloat16), "c": jnp.asarray(0.0), "d": jnp.zeros(1)}
    assert tree.diff(want, got).splitlines() == [
        "a: expected float32[2], got bfloat16[2]",
        "b: missing (expected float32[2])",
        "c: expected float32[], got float32[], weak type",
        "d: unexpected (got float32[1])",
    ]


def test_diff_is_short_however_much_differs():
    lines = tree.diff({f"p{i}": jnp.zeros(1) for i in range(100)}, {}).splitlines()
    assert len(lines) == 9
    assert lines[-1] == "... and 92 more"


MANY = {f"layer{i}": {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)} for i in range(250)}


@pytest.mark.parametrize(
    ("here", "there", "line"),
    [
        ((1.0, 2.0), [1.0, 2.0], "layer77/more: expected tuple, got list"),
        (None, jnp.zeros(2), "layer77/more: expected None, got float32[2]"),
        (jnp.zeros(2), None, "layer77/more: expected float32[2], got None"),
        (1.0, jnp.zeros(3), "layer77/more: expected 1.0, got float32[3]"),
        (jnp.zeros(3), 1.0, "layer77/more: expected float32[3], got 1.0"),
        (jnp.zeros(3), {"w": jnp.zeros(3)}, "layer77/more: expected float32[3], got dict"),
        (training(jax.random.key(0)), EVAL, "layer77/more/key: expected key<fry>[], got None"),
        (1, 1.0, "layer77/more: expected 1, got 1.0"),
        ((), {}, "layer77/more: expected tuple, got dict"),
        ((1.0,), (1.0, 2.0), "layer77/more/1: unexpected (got 2.0)"),
    ],
)
def test_diff_of_one_place_among_500_leaves_is_one_short_line(here, there, line):
    want = {**MANY, "layer77": {**MANY["layer77"], "more": here}}
    got = {**MANY, "layer77": {**MANY["layer77"], "more": there}}
    lines = tree.diff(want, got).splitlines()
    assert line in lines
    assert len(lines) <= 2
    assert all(len(one) < 200 for one in lines)


def test_diff_of_a_none_that_is_missing_or_unexpected():
    assert tree.diff({**MANY, "state": None}, MANY) == "state: missing (expected None)"
    assert tree.diff(MANY, {**MANY, "state": ()}) == "state: unexpected (got an empty tuple)"


def test_diff_of_roots_and_of_static_fields():
    assert tree.diff((jnp.zeros(1),), [jnp.zeros(1)]) == "the root: expected tuple, got list"
    ours, theirs = Mode(None, train=False), Mode(None, train=True)
    assert tree.diff({"mode": ours}, {"mode": theirs}) == "mode: expected Mode(train=False), got Mode(train=True)"
    ordered = [collections.OrderedDict.fromkeys(keys, 1.0) for keys in ("ab", "ba")]
    assert "'a', 'b'" in tree.diff(*ordered)


def test_types_of_one_name_are_shown_with_their_modules():
    kinds = [collections.namedtuple("State", "count", module=module) for module in ("ours", "theirs")]
    assert tree.diff(kinds[0](1), kinds[1](1)) == "the root: expected ours.State, got theirs.State"


def test_lines_of_diff_are_short_whatever_the_paths_and_values():
    class Long:
        def __repr__(self):
            return "x" * 500

    deep = {"k" * 300: {"a": Long(), "b": (1.0,), "c": jnp.zeros((1,) * 40), "d": None}}
    other = {"k" * 300: {"a": jnp.zeros(1), "b": [1.0], "c": jnp.zeros((1,) * 41), "e": None}}
    lines = tree.diff(deep, other).splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) < 200


def test_diff_of_values_reads_all_of_a_long_one():
    want, got = {"a": "x" * 50 + "y"}, {"a": "x" * 50 + "z"}
    assert tree.diff(want, got) == ""
    assert tree.diff(want, got, values=True).startswith("a: expected")
    assert tree.diff(want, want, values=True) == ""


def test_diff_compares_shardings_of_committed_arrays_only():
    program = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from dlkit import tree
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
rows, all_ = (jax.device_put(jnp.zeros(4), NamedSharding(mesh, PartitionSpec(*axes))) for axes in (("data",), ()))
many = {f"p{i}": all_ for i in range(500)}
line = tree.diff(many, {**many, "p77": rows})
assert line == "p77: expected () of {'data': 2} on cpu 0,1, got ('data',) of {'data': 2} on cpu 0,1", line
here, there = (jax.device_put(jnp.zeros(4), device) for device in jax.devices())
assert tree.diff(here, there) == "the root: expected on cpu 0, got on cpu 1"
same = jax.device_put(jnp.zeros(4), NamedSharding(mesh, PartitionSpec(None)))
for other in (all_, same, jnp.zeros(4), np.zeros(4, np.float32), jax.eval_shape(lambda: all_)):
    assert tree.diff(all_, other) == "", other
jax.jit(lambda x: print(tree.diff(x, rows)))(all_)  # a traced value has no place
"""
    flags = {"XLA_FLAGS": compiling.devices(2), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env={**os.environ, **flags})


def test_one_path_for_two_leaves_is_an_error():
    with pytest.raises(ValueError, match="two leaves have the path 'a/b'"):
        tree.flatten({"a/b": 1, "a": {"b": 2}})


def test_of_weights_one_glob_is_enough_and_of_others_each_must_match():
    table, dense, other = {"table": 1.0}, {"w": 1.0, "b": 1.0}, {"kernel": 1.0}
    assert tree.match_weights(table) == {"table": True}
    assert tree.match_weights(dense, list(tree.WEIGHTS)) == {"w": True, "b": False}
    assert tree.match_weights(dense, "b") == {"w": False, "b": True}
    for params, patterns in (
        (other, tree.WEIGHTS),
        (dense, ("**/w", "**/tabel")),
        (dense, ("**/w", "**/table", "b/c")),
    ):
        with pytest.raises(ValueError, match="matches none of the"):
            tree.match_weights(params, patterns)
