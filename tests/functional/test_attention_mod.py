"""A function on the scores: torch's flex_attention, dense and in blocks, values and gradients, and what it reads.

Tolerance: float64 1e-12, a few roundings of sums of tens of terms of size 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import functional as F
from dlkit import nn
from dlkit.functional.transformer import attention_blockwise

B, H, T, D = 2, 4, 9, 4
RNG = np.random.default_rng(0)
Q, C = RNG.standard_normal((2, B, T, H, D))
K, V = RNG.standard_normal((2, B, T, 2, D))
SLOPES, TABLE, SCALES = RNG.standard_normal(H), RNG.standard_normal((H, 2 * T - 1)), 1 + RNG.random(B)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Blocks of 4 x 4, so that there are several, the last of them padded."""
    monkeypatch.setattr(attention_blockwise, "_block", lambda n: 4)


def torch_mod(slopes, table, scales):
    import torch

    def mod(score, b, h, i, j):
        score = torch.tanh(score) * scales[b] + slopes[h] * (j - i) + table[h, i - j + T - 1]
        return torch.where(i >= j, score, -torch.inf)

    return mod


def torch_case():
    """All of it in one function: of the score, the example, the head, both places, and three arrays that learn.

    On a CPU flex_attention has no backward pass: the gradients are those of the same formula on all scores at once.
    """
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    leaves = [torch.tensor(a, requires_grad=True) for a in (Q, K, V, SLOPES, TABLE, SCALES)]
    q, k, v, slopes, table, scales = leaves

    q, k, v = (a.transpose(1, 2) for a in (q, k, v))
    fixed = slopes.detach(), table.detach(), scales.detach()
    flex = flex_attention(*(a.detach() for a in (q, k, v)), score_mod=torch_mod(*fixed), enable_gqa=True)
    k, v = (a.repeat_interleave(2, 1) for a in (k, v))
    scores = torch_mod(slopes, table, scales)(
        q @ k.mT / D**0.5, *torch.meshgrid(*(torch.arange(n) for n in (B, H, T, T)), indexing="ij")
    )
    y = (torch.softmax(scores, -1) @ v).transpose(1, 2)
    assert torch.allclose(y, flex.transpose(1, 2), rtol=0, atol=1e-13)
    gradients = torch.autograd.grad((y * torch.tensor(C)).sum(), leaves)
    return {"y": y.detach().numpy()} | {f"d{i}": g.numpy() for i, g in enumerate(gradients)}


def mod_of(slopes, table, scales, hide=True):
    def mod(score, b, h, i, j):
        score = jnp.tanh(score) * scales[b] + slopes[h] * (j - i).astype(score.dtype) + table[h, i - j + T - 1]
        return jnp.where(i >= j, score, -jnp.inf) if hide else score

    return mod


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, that it is not compiled
def test_flex_attention(x64):
    want = reference("functional/attention/flex", torch_case)

    def loss(q, k, v, slopes, table, scales, implementation):
        y = F.attention(q, k, v, score_mod=mod_of(slopes, table, scales), implementation=implementation)
        return jnp.sum(C * y), y

    run = jax.value_and_grad(loss, range(6), has_aux=True)
    args = [jnp.asarray(a) for a in (Q, K, V, SLOPES, TABLE, SCALES)]
    for name, ((_, y), gradients) in jax.jit(lambda *a: {i: run(*a, i) for i in ("dense", "blockwise")})(*args).items():
        np.testing.assert_allclose(y, want["y"], rtol=0, atol=1e-12, err_msg=name)
        for i, gradient in enumerate(gradients):
            np.testing.assert_allclose(gradient, want[f"d{i}"], rtol=0, atol=1e-11, err_msg=f"{name} {i}")


def test_with_all_else(x64):
    """Beside bias, softcap, mask, window and offsets of each example; forward over reverse too, and every weight."""
    options = {"causal": True, "window": 5, "softcap": 3.0, "offset": jnp.array([0, 2], jnp.int32)}
    options |= {"mask": jnp.asarray(RNG.random((B, 1, T, T)) < 0.8), "bias": jnp.asarray(RNG.standard_normal((T, T)))}

    def products(implementation):
        def loss(args):
            q, k, v, *read = args
            mod = mod_of(*read, hide=False)
            return jnp.sum(C * F.attention(q, k, v, score_mod=mod, implementation=implementation, **options))

        args = [jnp.asarray(a) for a in (Q, K, V, SLOPES, jnp.pad(TABLE, ((0, 0), (0, 4))), SCALES)]
        along = jax.tree.map(jnp.cos, args)
        return jax.jvp(jax.grad(loss), (args,), (along,))

    wants, gots = jax.jit(lambda: [products(i) for i in ("dense", "blockwise")])()
    for want, got in zip(*map(jax.tree.leaves, (wants, gots)), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-11 * max(1.0, float(jnp.abs(want).max())))


def test_weights_and_cache():
    """Positions are places among the keys: tokens given in pieces see what all at once see. ALiBi is one such mod."""
    slopes = jnp.asarray(F.alibi_slopes(H))
    mod = lambda s, b, h, i, j: s - slopes[h] * jnp.abs(i - j).astype(s.dtype)  # noqa: E731
    q, k = (jnp.asarray(a, jnp.float32) for a in (Q, K))
    places = jnp.arange(T, dtype=jnp.int32)
    want = F.attention_weights(q, k, bias=F.alibi_bias(H, places, places), causal=True)
    np.testing.assert_allclose(F.attention_weights(q, k, score_mod=mod, causal=True), want, atol=1e-6)

    layer = nn.MultiHeadAttention(16, H, causal=True)
    params, x = layer.init(jax.random.key(0)), jnp.asarray(RNG.standard_normal((1, 6, 16)), jnp.float32)

    @jax.jit
    def run(params, x):
        _, cache = layer.apply(params, layer.init_cache(1, 8), x[:, :4], nn.EVAL, score_mod=mod)
        rest, _ = layer.apply(params, cache, x[:, 4:], nn.EVAL, score_mod=mod)
        return [layer.apply(params, None, x, nn.EVAL, score_mod=m)[0] for m in (mod, None)], rest

    (together, plain), rest = run(params, x)
    np.testing.assert_allclose(rest, together[:, 4:], atol=1e-5)
    assert float(jnp.abs(together - plain).max()) > 1e-3


def test_what_it_returns_is_checked():
    q, k = jnp.asarray(Q, jnp.float32), jnp.asarray(K, jnp.float32)
    with pytest.raises(ValueError, match=r"score_mod returned int32\[\] for one score, float32\[\]; want"):
        F.attention(q, k, k, score_mod=lambda s, b, h, i, j: i)
    with pytest.raises(ValueError, match=r"returned float32\[4\]"):
        F.attention(q, k, k, score_mod=lambda s, b, h, i, j: jnp.broadcast_to(s, (4,)))
    with pytest.raises(ValueError, match="cudnn"):
        F.attention(q, k, k, score_mod=lambda s, b, h, i, j: s, implementation="cudnn")
