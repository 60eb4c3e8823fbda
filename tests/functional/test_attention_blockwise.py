"""Attention in blocks: memory linear in T, equal to all at once at real sizes, and what it can be differentiated by.

Tolerance 1e-5 of the largest element: float32, sums of a thousand terms in another order.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import functional as F
from dlkit.functional.transformer import attention_blockwise


def heads(t, h=1, h_kv=1, d=8):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal((1, t, n, d)), jnp.float32) for n in (h, h_kv, h_kv)]


def gradient(implementation, **options):
    def loss(q, k, v):
        return jnp.sum(jnp.sin(F.attention(q, k, v, implementation=implementation, **options)))

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))


@pytest.mark.parametrize("causal", [True, False])
def test_memory_is_linear(causal):
    """What the compiled gradient keeps beside inputs and outputs, at T = 1024, 2048, 4096, beyond one block."""

    def temporary(implementation, t):
        compiled = gradient(implementation, causal=causal).lower(*heads(t, h=2)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    sizes = [temporary("blockwise", t) for t in (1024, 2048, 4096)]
    first, second = np.diff(sizes)
    assert 1.8 * first <= second <= 2.2 * first  # linear: twice the difference for twice the step
    assert sizes[2] < 3 * sizes[0]
    assert sizes[2] < temporary("dense", 4096) / 8


@pytest.mark.parametrize("options", [{"causal": True}, {"causal": True, "window": 100}, {"window": 300}, {}], ids=str)
def test_dense_at_real_sizes(options):
    """600 and 1100 places: blocks of three sizes, the last of them padded."""
    q, k, v = heads(600, h=2)[0], *heads(1100)[1:]
    for a, b in zip(*(jax.tree.leaves(gradient(i, **options)(q, k, v)) for i in ("dense", "blockwise")), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * max(1.0, float(jnp.abs(a).max())))


def test_blocks_that_nothing_sees_are_left_out():
    plan = {"t": 1024, "s": 1024, "rows": 256, "columns": 256, "heads": 1, "scale": 1.0, "softcap": None}
    pairs = lambda **how: attention_blockwise._Plan(**plan, **how).pairs()  # noqa: E731
    assert len(pairs(causal=False, window=None, offset=0)) == 16
    assert len(pairs(causal=True, window=None, offset=0)) == 10
    assert len(pairs(causal=True, window=2, offset=0)) == 7
    assert len(pairs(causal=False, window=2, offset=0)) == 10
    assert len(pairs(causal=True, window=2, offset=None)) == 16  # an offset that is data hides nothing beforehand
    assert len(pairs(causal=True, window=None, offset=-1024)) == 0


@pytest.mark.parametrize("implementation", ["blockwise", None])
def test_every_mode(implementation):
    """Forward mode, both modes over reverse and reverse over forward are those of the dense form."""
    t = 24 if implementation else 130  # None: in rows, from 128
    x, c = heads(t)[0], jnp.cos(jnp.arange(8 * t, dtype=jnp.float32)).reshape(1, t, 1, 8)
    options = {"causal": True, "mask": jnp.asarray(np.random.default_rng(1).random((t, t)) < 0.7)}
    if implementation:
        options |= {"softcap": 2.0, "bias": jnp.cos(jnp.arange(t * t, dtype=jnp.float32)).reshape(t, t)}

    def products(implementation):
        f = lambda x: jnp.sin(F.attention(x, 2 * x, x, implementation=implementation, **options))  # noqa: E731
        gradient = jax.grad(lambda x: f(x).sum())
        forward = jax.jvp(f, (x,), (c,))[1]
        over = jax.grad(lambda x: jnp.sum(jnp.square(jax.jvp(f, (x,), (c,))[1])))(x)
        return forward, over, jax.jvp(gradient, (x,), (c,))[1], jax.grad(lambda x: jnp.vdot(gradient(x), c))(x)

    wants, gots = (jax.jit(lambda i=i: products(i))() for i in ("dense", implementation))
    for want, got in zip(wants, gots, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * float(jnp.abs(want).max()))


def test_forward_mode_is_linear_in_memory():
    def temporary(t):
        run = lambda x: jax.jvp(lambda x: F.attention(x, x, x, implementation="blockwise"), (x,), (x,))  # noqa: E731
        return jax.jit(run).lower(heads(t, h=2, h_kv=2)[0]).compile().memory_analysis().temp_size_in_bytes

    assert temporary(4096) < 3 * temporary(2048)


def test_vmap_is_a_loop():
    q, k, v = (jnp.stack([a, 2 * a, -a]) for a in heads(20, h=2))
    run = lambda q, k, v: F.attention(q, k, v, causal=True, implementation="blockwise")  # noqa: E731
    together = jax.jit(jax.vmap(run))(q, k, v)
    for i in range(3):
        np.testing.assert_allclose(together[i], run(q[i], k[i], v[i]), atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"causal": True}, {"causal": True, "offset": 9}, {"mask": np.arange(700) % 3 > 0}, {}], ids=str
)
def test_rows_at_real_sizes(options):
    """300 places and 700: two parts, the last of them shorter."""
    if "mask" in options:
        options = {"mask": jnp.asarray(options["mask"])[None]}
    q, k, v = heads(300, h=4)[0], *heads(700, h_kv=2)[1:]
    for a, b in zip(*(jax.tree.leaves(gradient(i, **options)(q, k, v)) for i in ("dense", None)), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * max(1.0, float(jnp.abs(a).max())))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(dtype):
    """Scores and sums in float32: within two roundings of the result of the same numbers in float32."""
    q, k, v = (a.astype(dtype) for a in heads(300, h=2))
    want = gradient("dense", causal=True)(*(a.astype(jnp.float32) for a in (q, k, v)))[1]
    got = gradient("blockwise", causal=True)(q, k, v)[1]
    for a, b in zip(got, want, strict=True):
        assert a.dtype == dtype
        tolerance = 4 * float(jnp.finfo(dtype).eps) * float(jnp.abs(b).max())
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("options", [{"causal": True}, {"causal": True, "window": 100}, {"window": 300}], ids=str)
def test_tangent_in_bands(options):
    """From 512 queries on, each quarter of them meets only the keys that it may see."""
    q, k, v = heads(600, h=2)[0], *heads(700)[1:]

    def forward(implementation):
        run = lambda *args: F.attention(*args, implementation=implementation, **options)  # noqa: E731
        return jax.jvp(run, (q, k, v), (jnp.cos(q), jnp.sin(k), jnp.cos(v)))[1]

    want, got = jax.jit(lambda: (forward("dense"), forward("blockwise")))()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * max(1.0, float(jnp.abs(want).max())))
