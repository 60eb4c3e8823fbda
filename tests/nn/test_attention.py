"""MultiHeadAttention against torch's and flax's with copied weights, and given in pieces against given at once.

Tolerances: float64 1e-12, float32 1e-5, a few roundings of sums of tens of terms.
"""

import dataclasses
from functools import partial

import flax.linen as fnn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import functional, nn, tree
from dlkit.nn import EVAL

B, T, S, D, H = 2, 6, 5, 8, 2
CAUSAL = np.tri(T, dtype=bool)
PADDING = np.arange(T) < np.array([6, 3])[:, None]

# name: the layer, our keywords, and torch's options and masks (True = ignore).
CASES = {
    "plain": (nn.MultiHeadAttention(D, H), {}, {}, {}),
    "no_bias": (nn.MultiHeadAttention(D, 4, bias=False), {}, {"bias": False}, {}),
    "masked": (
        nn.MultiHeadAttention(D, H, causal=True),
        {"mask": PADDING[:, None, None, :]},
        {},
        {"attn_mask": ~CAUSAL, "key_padding_mask": ~PADDING},
    ),
    "cross": (nn.MultiHeadAttention(D, H, d_memory=6), {"memory": (B, S, 6)}, {"kdim": 6, "vdim": 6}, {}),
}


def problem(layer, dtype=np.float64, shape=(B, T, D)):
    rng = np.random.default_rng(7)
    shapes = tree.flatten(jax.eval_shape(layer.init, jax.random.key(0)))
    params = {path: rng.standard_normal(s.shape).astype(dtype) / 2 for path, s in sorted(shapes.items())}
    x, c = (rng.standard_normal(shape).astype(dtype) for _ in "xc")
    return params, x, c, rng


def unflatten(flat):
    nested = {}
    for path, leaf in flat.items():
        *lead, last = path.split("/")
        held = nested
        for name in lead:
            held = held.setdefault(name, {})
        held[last] = jnp.asarray(leaf)
    return nested


def memory_of(name, rng):
    shape = CASES[name][1].get("memory")
    return None if shape is None else rng.standard_normal(shape)


def torch_case(name):
    import torch

    layer, _, options, masks = CASES[name]
    params, x, c, rng = problem(layer)
    module = torch.nn.MultiheadAttention(D, layer.heads, batch_first=True, dtype=torch.float64, **options)
    state = {"out_proj.weight": params["out/w"].T}
    if "kdim" in options:
        state |= {f"{n}_proj_weight": params[f"{n}/w"].T for n in "qkv"}
    else:
        state["in_proj_weight"] = np.concatenate([params[f"{n}/w"].T for n in "qkv"])
    if layer.bias:
        state |= {"in_proj_bias": np.concatenate([params[f"{n}/b"] for n in "qkv"]), "out_proj.bias": params["out/b"]}
    module.load_state_dict({n: torch.tensor(np.ascontiguousarray(a)) for n, a in state.items()})
    x = torch.tensor(x, requires_grad=True)
    memory = memory_of(name, rng)
    memory = x if memory is None else torch.tensor(memory, requires_grad=True)
    y, _ = module(x, memory, memory, need_weights=False, **{n: torch.tensor(m) for n, m in masks.items()})
    (y * torch.tensor(c)).sum().backward()
    result = {"y": y.detach().numpy(), "dx": x.grad.numpy(), "dout/w": module.out_proj.weight.grad.numpy().T}
    if memory is not x:
        result["dmemory"] = memory.grad.numpy()
        result |= {f"d{n}/w": getattr(module, f"{n}_proj_weight").grad.numpy().T for n in "qkv"}
    else:
        result |= {f"d{n}/w": g.T for n, g in zip("qkv", module.in_proj_weight.grad.numpy().reshape(3, D, D))}  # noqa: B905
    if layer.bias:
        result |= {f"d{n}/b": g for n, g in zip("qkv", module.in_proj_bias.grad.numpy().reshape(3, D))}  # noqa: B905
        result["dout/b"] = module.out_proj.bias.grad.numpy()
    return result


@pytest.mark.parametrize("name", CASES)
def test_torch(name, x64):
    layer, keywords, _, _ = CASES[name]
    params, x, c, rng = problem(layer)
    memory = memory_of(name, rng)
    mask = jnp.asarray(keywords["mask"]) if "mask" in keywords else None

    def loss(params, x, memory):
        y, _ = layer.apply(params, None, x, EVAL, mask=mask, memory=memory)
        return jnp.sum(c * y), y

    memory = None if memory is None else jnp.asarray(memory)
    argnums = (0, 1) if memory is None else (0, 1, 2)
    run = jax.jit(jax.value_and_grad(loss, argnums, has_aux=True))
    (_, y), (dp, dx, *dm) = run(unflatten(params), jnp.asarray(x), memory)
    got = {"y": y, "dx": dx, **{f"d{path}": g for path, g in tree.flatten(dp).items()}}
    got |= {"dmemory": dm[0]} if dm else {}
    want = reference(f"nn/attention/{name}", lambda: torch_case(name))
    assert got.keys() == want.keys()
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-12, err_msg=key)


def test_flax():
    """Values and gradients in float32, with a causal mask."""
    layer = nn.MultiHeadAttention(D, H, causal=True)
    flat, x, c, _ = problem(layer, np.float32)
    theirs = fnn.MultiHeadDotProductAttention(H)
    names = {"q": "query", "k": "key", "v": "value"}
    params = {
        names[n]: {"kernel": flat[f"{n}/w"].reshape(D, H, D // H), "bias": flat[f"{n}/b"].reshape(H, D // H)}
        for n in names
    }
    params["out"] = {"kernel": flat["out/w"].reshape(H, D // H, D), "bias": flat["out/b"]}

    def loss(params, x):
        y = theirs.apply({"params": params}, x, mask=jnp.asarray(CAUSAL)[None, None])
        return jnp.sum(c * y), y

    def our_loss(params, x):
        y, _ = layer.apply(params, None, x, EVAL)
        return jnp.sum(c * y), y

    with jax.numpy_rank_promotion("allow"):
        (_, want), (dp, dx) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)
    run = jax.jit(jax.value_and_grad(our_loss, (0, 1), has_aux=True))
    (_, y), (our_dp, our_dx) = run(unflatten(flat), jnp.asarray(x))
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-5)
    np.testing.assert_allclose(our_dx, dx, rtol=0, atol=1e-5)
    for n, other in (*names.items(), ("out", "out")):
        w = our_dp[n]["w"]
        np.testing.assert_allclose(w, dp[other]["kernel"].reshape(w.shape), rtol=0, atol=1e-5)


def llama_case():
    """The attention of a Llama with query-key norms, in torch's own pieces: projections, RMS norms, rotation, SDPA."""
    import torch

    params, x, c, _ = problem(LLAMA)
    p = {n: torch.tensor(a, requires_grad=True) for n, a in params.items()}
    x = torch.tensor(x, requires_grad=True)
    angle = torch.arange(T, dtype=torch.float64)[:, None, None] * 100.0 ** (
        -torch.arange(0, 4, 2, dtype=torch.float64) / 4
    )

    def rotate(a):
        half = torch.cat([-a[..., 2:], a[..., :2]], -1)
        return a * torch.cat([angle, angle], -1).cos() + half * torch.cat([angle, angle], -1).sin()

    def normed(a, name):
        return torch.nn.functional.rms_norm(a, (4,), p[f"{name}_norm/scale"], 1e-5)

    q, k, v = ((x @ p[f"{n}/w"]).reshape(B, T, -1, 4) for n in "qkv")
    q, k = rotate(normed(q, "q")), rotate(normed(k, "k"))
    y = torch.nn.functional.scaled_dot_product_attention(
        *(a.transpose(1, 2) for a in (q, k, v)), is_causal=True, enable_gqa=True
    )
    y = y.transpose(1, 2).reshape(B, T, -1) @ p["out/w"]
    (y * torch.tensor(c)).sum().backward()
    return {"y": y.detach().numpy(), "dx": x.grad.numpy(), **{f"d{n}": a.grad.numpy() for n, a in p.items()}}


LLAMA = nn.MultiHeadAttention(
    D, 4, kv_heads=2, head_dim=4, causal=True, position=nn.Rope(base=100.0), qk_norm=True, bias=False
)


def test_grouped_queries_with_rope_and_norms(x64):
    params, x, c, _ = problem(LLAMA)

    def loss(params, x):
        y, _ = LLAMA.apply(params, None, x, EVAL)
        return jnp.sum(c * y), y

    (_, y), (dp, dx) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(unflatten(params), jnp.asarray(x))
    got = {"y": y, "dx": dx, **{f"d{path}": g for path, g in tree.flatten(dp).items()}}
    want = reference("nn/attention/llama", llama_case)
    assert got.keys() == want.keys()
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-12, err_msg=key)


CACHED = {
    "causal": nn.MultiHeadAttention(D, H, causal=True),
    "llama": LLAMA,
    "window": nn.MultiHeadAttention(D, H, causal=True, window=3),
    "alibi": nn.MultiHeadAttention(D, H, causal=True, position=nn.Alibi(H)),
    "t5": nn.MultiHeadAttention(D, H, causal=True, position=nn.RelativeBias(H, 8, 6, bidirectional=False)),
}


@pytest.mark.parametrize("name", CACHED)
def test_in_pieces_as_at_once(name):
    """A prompt of 3 tokens, then 3 single ones in a compiled scan, in a cache with room to spare, which is donated."""
    layer = CACHED[name]
    params = layer.init(jax.random.key(0))
    x = jnp.asarray(problem(layer, np.float32)[1])

    @partial(jax.jit, donate_argnums=0)
    def generate(cache, x):
        first, cache = layer.apply(params, cache, x[:, :3], EVAL)

        def step(cache, token):
            y, cache = layer.apply(params, cache, token[:, None], EVAL)
            return cache, y[:, 0]

        cache, rest = jax.lax.scan(step, cache, x[:, 3:].swapaxes(0, 1))
        return jnp.concatenate([first, rest.swapaxes(0, 1)], 1), cache

    want, none = layer.apply(params, None, x, EVAL)
    assert none is None
    got, cache = generate(layer.init_cache(B, 9), x)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    assert int(cache.length) == T
    assert jax.tree.map(jnp.shape, cache) == jax.tree.map(jnp.shape, layer.init_cache(B, 9))


def test_a_mask_covers_the_places_of_the_cache():
    """Prompts of different lengths, padded on the left: as each alone, positions counted from its first token."""
    layer = LLAMA
    params, x = layer.init(jax.random.key(0)), jnp.asarray(problem(layer, np.float32)[1])
    pad = jnp.asarray([0, 2])
    mask = (jnp.arange(8)[None, :] >= pad[:, None])[:, None, None, :]
    cache, parts = layer.init_cache(B, 8), []
    for a, b in ((0, 4), (4, 6)):
        positions = jnp.arange(a, b)[None] - pad[:, None]
        y, cache = layer.apply(params, cache, x[:, a:b], EVAL, mask=mask, positions=positions)
        parts.append(y)
    got = jnp.concatenate(parts, 1)
    for i, n in enumerate((0, 2)):
        alone, _ = layer.apply(params, None, x[i : i + 1, n:], EVAL)
        np.testing.assert_allclose(got[i, n:], alone[0], rtol=0, atol=1e-5)
    assert not got[1, :2].any()  # padding sees nothing


def test_a_full_cache():
    layer = CACHED["causal"]
    params, x = layer.init(jax.random.key(0)), jnp.ones((B, 3, D))
    with pytest.raises(ValueError, match="room for 2 tokens"):
        layer.apply(params, layer.init_cache(B, 2), x, EVAL)
    _, cache = layer.apply(params, layer.init_cache(B, 4), x, EVAL)
    with pytest.raises(ValueError, match=r"room for 4 tokens and holds 3"):
        layer.apply(params, cache, x, EVAL)
    y, cache = jax.jit(layer.apply)(params, cache, x, EVAL)
    assert bool(jnp.isnan(y).all())


def test_a_memory_once_or_every_time():
    layer = CASES["cross"][0]
    params = layer.init(jax.random.key(0))
    _, x, _, rng = problem(layer, np.float32)
    memory = jnp.asarray(rng.standard_normal((B, S, 6)), jnp.float32)
    y, _ = layer.apply(params, None, jnp.asarray(x), EVAL, memory=memory)
    held = layer.remember(params, memory)
    np.testing.assert_allclose(layer.apply(params, None, jnp.asarray(x), EVAL, memory=held)[0], y, atol=1e-6)
    assert layer.init_cache(B, 4) is None


def test_no_cache_where_all_is_seen_at_once():
    layer = CASES["plain"][0]
    assert layer.init_cache(B, 4) is None
    with pytest.raises(ValueError, match="not causal"):
        layer.apply(layer.init(jax.random.key(0)), CACHED["causal"].init_cache(B, 4), jnp.ones((B, 3, D)), EVAL)


def test_a_query_that_sees_nothing_gives_the_bias():
    layer = nn.MultiHeadAttention(D, H, b_init=nn.initializers.Constant(0.5))
    mask = jnp.ones((B, 1, T, T), bool).at[:, :, 2].set(False)
    y, _ = layer.apply(layer.init(jax.random.key(0)), None, jnp.ones((B, T, D)), EVAL, mask=mask)
    np.testing.assert_array_equal(y[:, 2], jnp.full((B, D), 0.5))


def test_bias_keyword_and_positions_of_both_kinds_add_up():
    layer, plain = CACHED["t5"], CACHED["causal"]
    params, x = layer.init(jax.random.key(0)), jnp.asarray(problem(layer, np.float32)[1])
    bias = jnp.asarray(np.random.default_rng(0).standard_normal((T, T)), jnp.float32)
    y, _ = layer.apply(params, None, x, EVAL, bias=bias)
    total = bias[None, None] + layer.position(params["position"], jnp.arange(T))
    rest = {n: p for n, p in params.items() if n != "position"}
    np.testing.assert_allclose(y, plain.apply(rest, None, x, EVAL, bias=total)[0], atol=1e-6)


def test_implementations_are_one_function():
    layers = [dataclasses.replace(LLAMA, implementation=i) for i in ("dense", "blockwise")]
    params, x, _, _ = problem(LLAMA, np.float32)
    dense, blockwise = (layer.apply(unflatten(params), None, jnp.asarray(x), EVAL)[0] for layer in layers)
    np.testing.assert_allclose(dense, blockwise, atol=1e-5)


def torch_start():
    import torch

    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(256, 4)
    w, out = module.in_proj_weight.detach().numpy(), module.out_proj.weight.detach().numpy()
    numbers = [w.std(), abs(w).max(), out.std(), abs(out).max()]
    return {"numbers": np.array(numbers), "biases": np.array([module.in_proj_bias.abs().max().item()])}


def test_torch_preset_starts_as_torch_does():
    """Standard deviation and bound within 2 %: 65,000 draws a matrix."""
    params = nn.init_preset(nn.MultiHeadAttention(256, 4), "torch").init(jax.random.key(0))
    want = reference("nn/attention/start", torch_start)
    for name, (std, top) in {"q": want["numbers"][:2], "v": want["numbers"][:2], "out": want["numbers"][2:]}.items():
        w = np.asarray(params[name]["w"])
        np.testing.assert_allclose([w.std(), abs(w).max()], [std, top], rtol=0.02)
        assert abs(np.asarray(params[name]["b"])).max() == want["biases"][0] == 0


ERRORS = {
    "heads": (lambda: nn.MultiHeadAttention(D, 3), "divide d=8"),
    "kv_heads": (lambda: nn.MultiHeadAttention(D, 4, kv_heads=3), "divide heads=4"),
    "position": (lambda: nn.MultiHeadAttention(D, 4, position=nn.Alibi(2)), "heads=4"),
    "window": (lambda: nn.MultiHeadAttention(D, 4, window=0), "window"),
    "rate": (lambda: nn.MultiHeadAttention(D, 4, rate=2.0), "rate"),
    "causal memory": (lambda: nn.MultiHeadAttention(D, 4, d_memory=3, causal=True), "another sequence"),
    "no memory": (lambda: apply(CASES["cross"][0]), "expected memory="),
    "memory": (lambda: apply(CASES["plain"][0], memory=jnp.ones((B, S, D))), "set d_memory"),
    "mask": (lambda: apply(CASES["plain"][0], mask=jnp.ones((B, T), bool)), "mask"),
    "cache": (lambda: CACHED["causal"].init_cache(3, 9).append(*[jnp.ones((B, T, H, 4))] * 2), "init_cache"),
}


def apply(layer, **keywords):
    return layer.apply(layer.init(jax.random.key(0)), None, jnp.ones((B, T, D)), EVAL, **keywords)


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name, unchecked):
    call, words = ERRORS[name]
    with pytest.raises(ValueError, match=words):
        call()


def test_dropped_weights_in_training_only(key):
    layer = nn.MultiHeadAttention(D, H, rate=0.5)
    params, x = layer.init(key), jnp.asarray(problem(layer, np.float32)[1])
    still = [layer.apply(params, None, x, EVAL)[0] for _ in "ab"]
    np.testing.assert_array_equal(*still)
    moving, _ = layer.apply(params, None, x, nn.training(key))
    assert float(jnp.abs(moving - still[0]).max()) > 0.01


@pytest.mark.parametrize("layer", [nn.SinusoidalPositions(), nn.LearnedPositions(12, D)], ids=["waves", "learned"])
def test_positions_that_are_given(layer):
    """A piece of the sequence with its positions is that piece of the whole; outside of the table is NaN."""
    params, x = layer.init(jax.random.key(0)), jnp.asarray(problem(layer, np.float32)[1])
    np.testing.assert_allclose(layer(params, x[:, 2:], positions=jnp.arange(2, T)), layer(params, x)[:, 2:], atol=1e-6)
    each = jnp.stack([jnp.arange(T), jnp.arange(T) + 3])
    np.testing.assert_allclose(layer(params, x, positions=each)[0], layer(params, x)[0], atol=1e-6)
    if isinstance(layer, nn.LearnedPositions):
        assert bool(jnp.isnan(layer(params, x, positions=jnp.arange(T) + 7)[:, -1]).all())
        with pytest.raises(ValueError, match="length=12"):
            layer(params, jnp.ones((1, 13, D)))
    else:
        waves = functional.sinusoidal(T, D)
        np.testing.assert_allclose(layer(params, x) - x, jnp.broadcast_to(waves, x.shape), atol=1e-6)
