"""Attention against torch's under every mask, what masked places may hold, and what does not depend on what.

Ask 19 (masks: rows that see nothing, shapes, NaN in what is masked, True = attend) is all of this but the last tests.

Tolerances: float64 1e-12 and float32 1e-5, a few roundings of sums of tens of terms of size 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import functional as F
from dlkit.functional.transformer import attention, attention_blockwise, attention_rows

B, D = 2, 4
IMPLEMENTATIONS = ("dense", "blockwise", None)  # None: in rows where they can, by `small`


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """What is chosen for long sequences is chosen for short ones, four queries at a time."""
    monkeypatch.setattr(attention, "_SMALL", 1)
    monkeypatch.setattr(attention_rows, "_rows", lambda t: 4)


def random_mask(*shape, seed=3):
    return np.random.default_rng(seed).random(shape) < 0.5


PADDING = np.array([0, 6])[:, None, None, None] > np.arange(9)  # the first example sees nothing at all
SEGMENTS = np.array([[1, 1, 1, 2, 2, 2, 2, 3, 3], [1, 2, 2, 2, 2, 2, 2, 2, 0]])
POSITIONS = np.arange(9)[:, None], np.arange(9)[None, :]
LAST = POSITIONS[1] <= POSITIONS[0]

# name: T, S, H, H_kv, our options, and the mask that torch gets (True = attend there too).
CASES = {
    "all": (9, 9, 4, 4, {}, None),
    "causal": (9, 9, 4, 2, {"causal": True}, LAST),
    "causal_more_keys": (5, 9, 2, 1, {"causal": True}, LAST[4:]),
    "causal_more_queries": (9, 5, 2, 2, {"causal": True}, POSITIONS[1][:, :5] <= POSITIONS[0] - 4),
    "causal_offset_0": (5, 9, 2, 2, {"causal": True, "offset": 0}, LAST[:5]),
    "window": (9, 9, 2, 2, {"causal": True, "window": 3}, LAST & (POSITIONS[0] - POSITIONS[1] < 3)),
    "window_both": (9, 9, 2, 2, {"window": 2}, abs(POSITIONS[0] - POSITIONS[1]) < 2),
    "padding": (9, 9, 4, 2, {"mask": PADDING}, PADDING),
    "queries_keys": (9, 9, 2, 2, {"mask": random_mask(9, 9)}, random_mask(9, 9)),
    "per_example": (9, 9, 2, 1, {"mask": random_mask(2, 1, 9, 9)}, random_mask(2, 1, 9, 9)),
    "per_head": (9, 9, 4, 2, {"mask": random_mask(2, 4, 9, 9)}, random_mask(2, 4, 9, 9)),
    "causal_and_padding": (9, 9, 4, 1, {"causal": True, "mask": PADDING}, LAST & PADDING),
    "segments": (9, 9, 2, 2, {"segments": SEGMENTS}, (SEGMENTS[:, :, None] == SEGMENTS[:, None, :])[:, None]),
    "bias": (9, 9, 4, 2, {"bias": (1, 4, 9, 9), "scale": 0.3}, None),
    "bias_of_keys": (9, 9, 2, 2, {"bias": (2, 1, 1, 9), "causal": True}, LAST),
}


def arrays(name):
    t, s, h, h_kv, options, _seen = CASES[name]
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((B, n, heads, D)) for n, heads in ((t, h), (s, h_kv), (s, h_kv)))
    c = rng.standard_normal((B, t, h, D))
    bias = rng.standard_normal(options["bias"]) if "bias" in options else None
    return q, k, v, c, bias


def torch_case(name):
    import torch

    *_, options, seen = CASES[name]
    q, k, v, c, bias = (None if a is None else torch.tensor(a) for a in arrays(name))
    leaves = [a.requires_grad_() for a in (q, k, v, bias) if a is not None]
    add = None if seen is None else torch.tensor(seen)
    if bias is not None:
        full = bias.expand(B, q.shape[2], q.shape[1], k.shape[1])
        add = full if add is None else torch.where(add, full, -torch.inf)
    y = torch.nn.functional.scaled_dot_product_attention(
        *(a.transpose(1, 2) for a in (q, k, v)), attn_mask=add, scale=options.get("scale"), enable_gqa=True
    ).transpose(1, 2)
    gradients = torch.autograd.grad((y * c).sum(), leaves)
    names = ("dq", "dk", "dv", "dbias")
    return {"y": y.detach().numpy()} | {n: g.numpy() for n, g in zip(names, gradients, strict=False)}


def ours(name, dtype, monkeypatch):
    """All implementations in one program, the blocks 4 x 4 so that there are several, the last of them padded."""
    monkeypatch.setattr(attention_blockwise, "_block", lambda n: 4)
    options = dict(CASES[name][4])
    q, k, v, c, bias = (None if a is None else jnp.asarray(a, dtype) for a in arrays(name))
    if "segments" in options:
        options["mask"] = F.segment_mask(jnp.asarray(options.pop("segments")))
    elif "mask" in options:
        options["mask"] = jnp.asarray(options["mask"])
    options.pop("bias", None)

    def loss(q, k, v, bias, implementation):
        y = F.attention(q, k, v, bias=bias, implementation=implementation, **options)
        return jnp.sum(c * y), y

    argnums = (0, 1, 2) if bias is None else (0, 1, 2, 3)
    both = jax.jit(
        lambda *args: [jax.value_and_grad(loss, argnums, has_aux=True)(*args, i)[::-1] for i in IMPLEMENTATIONS]
    )
    for implementation, (gradients, (_, y)) in zip(IMPLEMENTATIONS, both(q, k, v, bias), strict=True):
        yield implementation, dict(zip(("y", "dq", "dk", "dv", "dbias"), (y, *gradients), strict=False))


@pytest.mark.parametrize("name", CASES)
def test_torch_float64(name, x64, monkeypatch):
    want = reference(f"functional/attention/{name}", lambda: torch_case(name))
    for implementation, got in ours(name, jnp.float64, monkeypatch):
        assert got.keys() == want.keys()
        for key, value in want.items():
            np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-12, err_msg=f"{implementation} {key}")


@pytest.mark.parametrize("name", ["causal", "causal_and_padding", "bias_of_keys"])
def test_torch_float32(name, monkeypatch):
    want = reference(f"functional/attention/{name}", lambda: torch_case(name))
    for implementation, got in ours(name, jnp.float32, monkeypatch):
        for key, value in want.items():
            np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-5, err_msg=f"{implementation} {key}")


def heads(rng, t=9, s=9, h=2, h_kv=2, dtype=jnp.float32):
    return [jnp.asarray(rng.standard_normal((B, n, k, D)), dtype) for n, k in ((t, h), (s, h_kv), (s, h_kv))]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_queries_that_see_nothing(dtype, implementation):
    """0, and gradients of 0, whatever the other queries see; nothing is NaN."""
    q, k, v = heads(np.random.default_rng(0), dtype=dtype)
    mask = jnp.asarray(random_mask(2, 1, 9, 9)).at[0].set(False).at[1, :, 4].set(False)

    def loss(q, k, v):
        y = F.attention(q, k, v, mask=mask, implementation=implementation)
        return jnp.sum(jnp.square(y).astype(jnp.float32)), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    assert y.dtype == dtype
    assert all(bool(jnp.isfinite(a).all()) for a in (y, *gradients))
    assert not y[0].any()
    assert not y[1, 4].any()
    assert not any(bool(g[0].any()) for g in gradients)
    assert not gradients[0][1, 4].any()
    assert bool((jnp.abs(y[1, 3]) > 0).all())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_masked_places_may_hold_anything(implementation, bad):
    """NaN in keys and values that nobody sees, and in queries that see nothing, changes no number and no gradient."""
    q, k, v = heads(np.random.default_rng(0))
    keys = jnp.asarray([[True] * 6 + [False] * 3, [False] * 2 + [True] * 7])
    queries = jnp.asarray([[True] * 8 + [False], [True] * 9])
    mask = keys[:, None, None, :] & queries[:, None, :, None]

    def run(q, k, v):
        def loss(q, k, v):
            y = F.attention(q, k, v, mask=mask, causal=True, implementation=implementation)
            return jnp.sum(jnp.sin(y)), y

        (_, y), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
        return y, *gradients

    spoil = lambda a, keep: jnp.where(keep[:, :, None, None], a, jnp.float32(bad))  # noqa: E731
    for clean, spoilt in zip(run(q, k, v), run(spoil(q, queries), spoil(k, keys), spoil(v, keys)), strict=True):
        np.testing.assert_array_equal(spoilt, clean)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_true_means_attend(implementation):
    """A mask with one True gives that key's value; inverted, it would give a mean of all others."""
    q, k, v = heads(np.random.default_rng(0))
    y = F.attention(q, k, v, mask=jnp.zeros((9, 9), bool).at[:, 3].set(True), implementation=implementation)
    np.testing.assert_allclose(y, jnp.broadcast_to(v[:, 3:4], y.shape), atol=1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_causal_by_gradient(implementation, monkeypatch):
    """dy_t / dx_s is exactly 0 for s after t, and for s outside of the window; not for those inside."""
    monkeypatch.setattr(attention_blockwise, "_block", lambda n: 4)
    x = heads(np.random.default_rng(0))[0][:1]
    for window in (None, 3):
        y = lambda x: F.attention(x, x, x, causal=True, window=window, implementation=implementation).sum((0, 2, 3))  # noqa: B023, E731
        jacobian = np.abs(jax.jit(jax.jacrev(y))(x)).sum((1, 3, 4))  # [T, S]
        seen = LAST if window is None else LAST & (POSITIONS[0] - POSITIONS[1] < window)
        assert (jacobian[~seen] == 0).all()
        assert (jacobian[seen] > 0).all()


def test_without_positions_order_does_not_matter():
    """Permuted queries permute the output; permuted keys change nothing."""
    q, k, v = heads(np.random.default_rng(0))
    order = np.random.default_rng(1).permutation(9)
    y = F.attention(q, k, v)
    np.testing.assert_allclose(F.attention(q[:, order], k, v), y[:, order], atol=1e-6)
    np.testing.assert_allclose(F.attention(q, k[:, order], v[:, order]), y, atol=1e-6)


def test_weights():
    q, k, v = heads(np.random.default_rng(0), h=4)
    mask = jnp.asarray(random_mask(9, 9)).at[2].set(False)
    p = F.attention_weights(q, k, mask=mask, softcap=5.0)
    np.testing.assert_allclose(
        p.sum(-1), jnp.broadcast_to((jnp.arange(9) != 2).astype(jnp.float32), (B, 4, 9)), atol=1e-6
    )
    y = jnp.einsum("bhts,bshd->bthd", p, jnp.repeat(v, 2, axis=2))
    for implementation in IMPLEMENTATIONS:
        got = F.attention(q, k, v, mask=mask, softcap=5.0, implementation=implementation)
        np.testing.assert_allclose(got, y, atol=1e-6)


def test_softcap_is_its_formula(x64):
    """Values and gradients of the equation, written with nothing of ours, in both implementations."""
    q, k, v = heads(np.random.default_rng(0), dtype=jnp.float64)

    def plain(q, k, v):
        s = 1.5 * jnp.tanh(jnp.einsum("bthd,bshd->bhts", q, k) * 0.5 / 1.5)
        return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(s), v)

    grad = lambda f: jax.jit(jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a))), (0, 1, 2)))(q, k, v)  # noqa: E731
    for implementation in IMPLEMENTATIONS:
        got = grad(lambda *a: F.attention(*a, softcap=1.5, implementation=implementation))  # noqa: B023
        for a, b in zip(got, grad(plain), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_offsets_that_are_data():
    """A number for all, or one for each example: as those that are known."""
    q, k, v = heads(np.random.default_rng(0), t=3)
    known = [F.attention(q, k, v, causal=True, offset=o, implementation="dense") for o in (2, 5)]
    for implementation in IMPLEMENTATIONS:
        run = jax.jit(lambda o: F.attention(q, k, v, causal=True, offset=o, implementation=implementation))  # noqa: B023
        np.testing.assert_allclose(run(jnp.int32(5)), known[1], atol=1e-6)
        each = run(jnp.asarray([2, 5]))
        np.testing.assert_allclose(each[0], known[0][0], atol=1e-6)
        np.testing.assert_allclose(each[1], known[1][1], atol=1e-6)


def test_leading_axes_are_free():
    q, k, v = (a.reshape(2, 1, *a.shape[1:]) for a in heads(np.random.default_rng(0)))
    mask = jnp.asarray(random_mask(2, 1, 1, 9, 9))
    y = F.attention(q, k, v, mask=mask)
    np.testing.assert_array_equal(y[:, 0], F.attention(q[:, 0], k[:, 0], v[:, 0], mask=mask[:, 0]))
    alone = F.attention(q[1, 0], k[1, 0], v[1, 0], mask=mask[1, 0])
    np.testing.assert_allclose(y[1, 0], alone, atol=1e-6)


def test_dropped_weights_are_unbiased(key):
    """The mean over draws is the output without dropout (300 draws: 5 standard errors), and half are dropped."""
    q, k, v = heads(np.random.default_rng(0))
    y = F.attention(q, k, v)
    keys = jax.random.split(key, 300)
    draws = jax.jit(jax.vmap(lambda r: F.attention(q, k, v, rate=0.5, key=r)))(keys)
    assert bool((jnp.abs(draws.mean(0) - y) < 5 * draws.std(0) / 300**0.5 + 1e-6).all())
    one = F.attention(q, k, jnp.ones_like(v), rate=0.5, key=key)
    assert float(one.std()) > 0.1
    np.testing.assert_array_equal(F.attention(q, k, v, rate=0.5), y)


ERRORS = {
    "heads": ({"h": 3, "h_kv": 2}, {}, "multiple"),
    "keys and values": ({"s": 8}, {"v": 9}, "one length"),
    "mask of three axes": ({}, {"mask": np.ones((2, 9, 9), bool)}, r"mask\[:, None\]"),
    "mask": ({}, {"mask": np.ones((9, 8), bool)}, r"want \[9, 9\]"),
    "window": ({}, {"causal": True, "window": 0}, "window"),
    "rate": ({}, {"rate": 1.5}, "rate"),
    "implementation": ({}, {"implementation": "flash"}, "flash"),
    "cudnn": ({}, {"implementation": "cudnn"}, "half precision"),
    "offset": ({}, {"offset": np.zeros(3, np.int32)}, "offset"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name, unchecked):
    shapes, options, words = ERRORS[name]
    q, k, v = heads(np.random.default_rng(0), **shapes)
    options = {n: jnp.asarray(o) if isinstance(o, np.ndarray) else o for n, o in options.items()}
    if "v" in options:
        v = heads(np.random.default_rng(0), s=options.pop("v"))[2]
    with pytest.raises(ValueError, match=words):
        F.attention(q, k, v, **options)


def test_mask_of_numbers(unchecked):
    q, k, v = heads(np.random.default_rng(0))
    with pytest.raises(TypeError, match="True = attend"):
        F.attention(q, k, v, mask=jnp.ones((9, 9)))
