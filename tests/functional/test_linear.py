"""Affine maps and lookups beside torch; ids outside the table; free leading axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functional.cases import close
from support.reference import reference

from dlkit import functional as F


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_linear_is_torch(lead):
    x, w, b, cotangent = draw(*lead, 5), draw(5, 3, seed=1), draw(3, seed=2), draw(*lead, 3, seed=3)

    def compute():
        import torch

        tx, tw, tb = (torch.tensor(a, requires_grad=True) for a in (x, w, b))
        y = torch.nn.functional.linear(tx, tw.T, tb)
        y.backward(torch.tensor(cotangent))
        return {"y": y.detach(), "x": tx.grad, "w": tw.grad, "b": tb.grad}

    want = reference(f"functional/linear/linear_{len(lead)}", compute)
    for dtype, tolerance in ((jnp.float64, 1e-12), (jnp.float32, 1e-5)):
        y, pull = jax.vjp(F.linear, *(jnp.asarray(a, dtype) for a in (x, w, b)))
        for got, name in zip((y, *pull(jnp.asarray(cotangent, dtype))), "yxwb", strict=True):
            assert got.dtype == dtype
            close(got, want[name], tolerance)


def test_the_weight_gradient_is_one_plain_matrix_product():
    x, w = jnp.ones((2, 3, 5)), jnp.ones((5, 4))
    text = str(jax.make_jaxpr(jax.grad(lambda w: (F.linear(x, w) ** 2).sum()))(w))
    assert "dot_general" in text
    assert "[0, 1], [0, 1]" not in text.replace("(", "[").replace(")", "]")
    direct = str(jax.make_jaxpr(jax.grad(lambda w: ((x @ w) ** 2).sum()))(w))
    assert "[0, 1], [0, 1]" in direct.replace("(", "[").replace(")", "]")  # what flattening avoids


@pytest.mark.usefixtures("x64")
def test_embedding_is_torch_and_repeated_rows_add_up():
    table, cotangent = draw(6, 3), draw(2, 4, 3, seed=1)
    ids = np.array([[0, 5, 5, 2], [1, 5, 0, 0]])

    def compute():
        import torch

        t = torch.tensor(table, requires_grad=True)
        y = torch.nn.functional.embedding(torch.tensor(ids), t)
        y.backward(torch.tensor(cotangent))
        return {"y": y.detach(), "table": t.grad}

    want = reference("functional/linear/embedding", compute)
    y, pull = jax.vjp(lambda t: F.embedding(t, jnp.asarray(ids)), jnp.asarray(table))
    close(y, want["y"], 0)
    close(pull(jnp.asarray(cotangent))[0], want["table"], 1e-12)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int8, jnp.uint8])
def test_ids_outside_the_table_are_seen_and_learn_nothing(dtype):
    table = jnp.ones((200, 2))  # more rows than int8 counts
    bad = -1 if dtype != jnp.uint8 else 255
    ids = jnp.asarray([3, bad], dtype)
    y, pull = jax.vjp(lambda t: F.embedding(t, ids), table)
    np.testing.assert_array_equal(jnp.isnan(y), [[False, False], [True, True]])
    gradient = pull(jnp.ones((2, 2)))[0]
    np.testing.assert_array_equal(gradient.sum(1), np.eye(200)[3] * 2)


def test_one_hot():
    ids = jnp.asarray([[0, 2], [3, -1]])
    got = F.one_hot(ids, 3)
    np.testing.assert_array_equal(got, jax.nn.one_hot(ids, 3))
    assert got.dtype == jnp.float32
    assert F.one_hot(ids, 3, bool).dtype == bool


def test_bfloat16_in_bfloat16_out():
    x, w, b = (jnp.asarray(draw(*shape), jnp.bfloat16) for shape in ((4, 5), (5, 3), (3,)))
    assert F.linear(x, w, b).dtype == F.embedding(w, jnp.arange(2)).dtype == jnp.bfloat16


def test_errors_say_what_is_wrong():
    x = jnp.zeros((2, 5))
    with pytest.raises(ValueError, match=r"x is \[2, 5\] and w is \[4, 3\]"):
        F.linear(x, jnp.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"pass w.T"):
        F.linear(x, jnp.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"b is \[5\].*want b \[3\]"):
        F.linear(x, jnp.zeros((5, 3)), jnp.zeros(5))
