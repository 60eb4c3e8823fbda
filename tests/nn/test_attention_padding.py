"""What a mask hides from every query may hold anything: no output and no gradient, of parameters too, sees it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import nn, tree
from dlkit.nn import EVAL

B, T, S = 2, 4, 5
ROWS, PLACES = np.arange(T) < np.array([4, 2])[:, None], np.arange(S) < np.array([5, 3])[:, None]


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("what", ["memory", "both"])
def test_nan_where_nobody_looks(what, wide):
    """`memory`: padding of a memory. `both`: padding of x in self-attention, hidden as keys and as queries."""
    x, memory = normal(B, T, 8), normal(B, S, 6)
    if what == "memory":
        layer, mask = nn.MultiHeadAttention(8, 2, d_memory=6), PLACES[:, None, None, :]
        mask = np.broadcast_to(mask, (B, 2 if wide else 1, T if wide else 1, S))
        dirty = (x, np.where(PLACES[..., None], memory, np.nan).astype(np.float32))
    else:
        layer, mask = nn.MultiHeadAttention(8, 2), (ROWS[:, None, :, None] & ROWS[:, None, None, :])
        mask = np.broadcast_to(mask, (B, 2, T, T)) if wide else mask
        dirty = (np.where(ROWS[..., None], x, np.nan).astype(np.float32), memory)
    params = layer.init(jax.random.key(0))

    def loss(params, x, memory):
        given = {"memory": memory} if what == "memory" else {}
        y, _ = layer.apply(params, None, x, EVAL, mask=jnp.asarray(mask), **given)
        return jnp.sum(y * jnp.asarray(normal(*y.shape))), y

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    (_, clean_y), clean = run(params, x, memory)
    (_, y), grads = run(params, *dirty)
    np.testing.assert_array_equal(y, clean_y)
    for path, grad in tree.flatten(grads).items():
        np.testing.assert_array_equal(grad, tree.flatten(clean)[path], err_msg=path)
