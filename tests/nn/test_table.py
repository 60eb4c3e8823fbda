"""The table of layers x properties: each row is a layer, an input, and how its parameter tree looks.

A new layer joins by a row in `tests/rows`. Its properties are those of `dlkit.testing.check_layer`.
"""

import inspect

import jax
import jax.numpy as jnp
import pytest
from rows import ROWS

from dlkit import nn, tree
from dlkit.testing import check_layer

pytestmark = pytest.mark.types


def others(rows):
    """The rows, and a mark on those that show a class again, with other options, or what is composed of others."""
    classes = [type(row.layer) for row in rows]
    again = [row.composed or kind in classes[:i] for i, (row, kind) in enumerate(zip(rows, classes, strict=True))]
    return [pytest.param(row, marks=pytest.mark.thorough if a else ()) for row, a in zip(rows, again, strict=True)]


@pytest.mark.parametrize("row", others(ROWS), ids=lambda row: repr(row.layer)[:60])
def test_properties(row):
    check_layer(row.layer, jax.tree.map(jnp.asarray, row.x), **row.options)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: repr(row.layer)[:60])
def test_tree(row):
    """The parameter tree is what checkpoints and globs rely on: a change here breaks both."""
    params, state = jax.eval_shape(row.layer.init, jax.random.key(0)), jax.eval_shape(row.layer.init_state)
    assert {path: leaf.shape for path, leaf in tree.flatten(params).items()} == row.params
    assert {path: leaf.shape for path, leaf in tree.flatten(state).items()} == row.state


def test_every_layer_has_a_row():
    layers = {
        name for name in nn.__all__ if inspect.isclass(getattr(nn, name)) and issubclass(getattr(nn, name), nn.Layer)
    }
    rows = {type(row.layer).__name__ for row in ROWS}
    assert layers - rows - {"Layer", "Pure"} == set()
