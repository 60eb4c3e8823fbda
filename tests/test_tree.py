import jax
import jax.numpy as jnp
import pytest

from dlkit import tree

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


def test_diff_sees_a_tuple_that_became_a_list():
    assert "containers differ" in tree.diff((jnp.zeros(1),), [jnp.zeros(1)])
