"""Which parameters decay (ask 15), and which a masked transform acts on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlkit import optim, tree

PARAMS = {
    "block": {"norm": {"scale": jnp.ones(2), "shift": jnp.ones(2)}, "w": jnp.ones((2, 2)), "b": jnp.ones(2)},
    "embed": {"table": jnp.ones((3, 2))},
}
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)


def decayed(mask, params=PARAMS):
    """The paths that a decoupled decay with this mask changes."""
    tx = optim.adamw(1.0, weight_decay=0.5, mask=mask)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    return {path for path, u in tree.flatten(updates).items() if np.all(np.asarray(u) == -0.5)}


ALL = set(tree.flatten(PARAMS))
WEIGHTS = {"block/w", "embed/table"}


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, ALL),
        ("**", ALL),
        (optim.WEIGHTS, WEIGHTS),
        (list(optim.WEIGHTS), WEIGHTS),
        ("**/w", {"block/w"}),
        (("block/norm/*", "block/b"), {"block/norm/scale", "block/norm/shift", "block/b"}),
        ({"block": False, "embed": True}, {"embed/table"}),
        (lambda p: jax.tree.map(lambda x: jnp.ndim(x) > 1, p), WEIGHTS),
        (False, set()),
    ],
)
def test_forms_of_masks(mask, expected):
    assert decayed(mask) == expected


def test_weights_excludes_biases_and_norms_and_fits_models_without_tables():
    assert decayed(optim.WEIGHTS, {"head": {"w": jnp.ones(2), "b": jnp.ones(2)}}) == {"head/w"}
    assert decayed(optim.WEIGHTS, {"embed": {"table": jnp.ones(2)}}) == {"embed/table"}


@pytest.mark.parametrize(
    "mask", ["**/weight", ("**/w", "hed/**"), optim.WEIGHTS], ids=["one glob", "one of two globs", "WEIGHTS"]
)
def test_a_glob_that_matches_nothing_is_an_error(mask):
    params = {"head": {"w" if mask != optim.WEIGHTS else "kernel": jnp.ones(2)}}
    for tx in (optim.adamw(0.1, mask=mask), optim.adam(0.1, l2=0.1, mask=mask), optim.masked(optim.sgd(0.1), mask)):
        with pytest.raises(ValueError, match=r"matches none of the 1 paths; .*: head/"):
            tx.init(params)


def test_a_tree_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match=r"^mask: it does not fit[\s\S]*head"):
        optim.adamw(0.1, mask={"hed": True}).init({"head": jnp.ones(2)})


@pytest.mark.parametrize("mask", [{"w": 1}, (), 3, {"w": "**"}])
def test_no_mask_at_all_is_an_error(mask):
    with pytest.raises(TypeError, match="wanted a path glob"):
        optim.adamw(0.1, mask=mask)


def test_masks_are_values():
    """A tree of booleans is held in a hashable form."""
    a, b = (optim.adamw(0.1, mask={"w": True, "b": False}) for _ in range(2))
    assert a == b
    assert hash(a) == hash(b)
    assert a != optim.adamw(0.1, mask={"w": True, "b": True})


def test_masked_equals_optax_and_keeps_state_for_the_chosen_only():
    grads = jax.tree.map(lambda p: 0.1 * p, PARAMS)
    chosen = optim.resolve_mask("block/**", PARAMS)
    ours, theirs = optim.masked(optim.trace(0.9), "block/**"), optax.masked(optax.trace(0.9), chosen)
    a, b = ours.init(PARAMS), theirs.init(PARAMS)
    for _ in range(3):
        got, a = ours.update(grads, a, PARAMS)
        expected, b = theirs.update(grads, b, PARAMS)
        jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert set(tree.flatten(a)) == {f"inner_state/trace/{path}" for path in ALL if path.startswith("block")}


def test_freezing_is_masked_set_to_zero():
    tx = optim.chain(optim.sgd(0.1), optim.masked(optim.set_to_zero(), "embed/**"))
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert {path for path, u in tree.flatten(updates).items() if not u.any()} == {"embed/table"}


def test_scheduled_decay():
    tx = optim.add_decayed_weights(optim.linear_schedule(1.0, 0.0, 2))
    p, seen = jnp.ones(()), []
    state = tx.init(p)
    for _ in range(3):
        u, state = tx.update(jnp.zeros(()), state, p)
        seen.append(float(u))
    assert seen == [1.0, 0.5, 0.0]


def test_decay_without_parameters_is_an_error():
    tx = optim.adamw(0.1)
    with pytest.raises(
        ValueError, match=r"add_decayed_weights: it reads the parameters: call update\(grads, state, params\)"
    ):
        tx.update(ZEROS, tx.init(PARAMS))
