"""Transformer blocks with copied weights: values and gradients of torch's layers, under masks; parallel order by hand.

Tolerances: float32 1e-5 relative to the largest value, sums of at most 16 terms through two norms; float64 1e-12.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import nn, tree

D, HEADS, HIDDEN, B, T, S = 8, 2, 12, 2, 5, 4
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
KEEP = np.arange(T) < np.array([[T], [3]])  # the second sequence has three tokens
KEEP_MEMORY = np.arange(S) < np.array([[2], [S]])
CAUSAL = np.tri(T, dtype=bool)

# name: our block, its masks, and torch's layer: class, arguments, masks (there True = do not attend)
CASES = {
    "encoder_post_relu": (nn.transformer_block(D, HEADS, HIDDEN, activation=nn.Relu(), order="post"), "relu", False),
    "encoder_pre_gelu": (nn.transformer_block(D, HEADS, HIDDEN), "gelu", False),
    "causal_pre_relu": (nn.transformer_block(D, HEADS, HIDDEN, activation=nn.Relu(), causal=True), "relu", True),
    "decoder_post_gelu": (
        nn.transformer_block(D, HEADS, HIDDEN, d_memory=D, causal=True, order="post"),
        "gelu",
        True,
    ),
    "decoder_pre_relu": (
        nn.transformer_block(D, HEADS, HIDDEN, activation=nn.Relu(), d_memory=D, causal=True),
        "relu",
        True,
    ),
}


def torch_names(decoder):
    """Our path: torch's name, the third of a joint projection or None."""
    names = {}
    parts = {"attention": "self_attn"} | ({"cross": "multihead_attn"} if decoder else {})
    for ours, theirs in parts.items():
        for leaf, word in (("w", "weight"), ("b", "bias")):
            names |= {f"{ours}/{part}/{leaf}": (f"{theirs}.in_proj_{word}", i) for i, part in enumerate("qkv")}
            names[f"{ours}/out/{leaf}"] = (f"{theirs}.out_proj.{word}", None)
    norms = ["norm1", "norm_cross", "norm2"] if decoder else ["norm1", "norm2"]
    for i, ours in enumerate(norms):
        names |= {f"{ours}/{leaf}": (f"norm{i + 1}.{w}", None) for leaf, w in (("scale", "weight"), ("shift", "bias"))}
    for i, ours in enumerate(["up", "down"]):
        names |= {f"mlp/{ours}/{leaf}": (f"linear{i + 1}.{w}", None) for leaf, w in (("w", "weight"), ("b", "bias"))}
    return names


def run_torch(block, activation, causal, arrays, x, memory, cotangent):
    import torch

    decoder = block.cross is not None
    cls = torch.nn.TransformerDecoderLayer if decoder else torch.nn.TransformerEncoderLayer
    options = {"dropout": 0.0, "activation": activation, "batch_first": True, "norm_first": block.order == "pre"}
    module = cls(D, HEADS, HIDDEN, **options, dtype=torch.tensor(x).dtype)
    names, weights = torch_names(decoder), dict(module.named_parameters())
    with torch.no_grad():
        for path, (name, third) in names.items():
            place = weights[name] if third is None else weights[name][third * D : (third + 1) * D]
            place.copy_(torch.tensor(arrays[path].T))
    t, m = (torch.tensor(a, requires_grad=True) for a in (x, memory))
    mask = torch.tensor(~CAUSAL) if causal else None
    if decoder:
        padding = torch.tensor(~KEEP_MEMORY)
        y = module(t, m, tgt_mask=mask, memory_key_padding_mask=padding, tgt_is_causal=True)
    else:
        y = module(t, src_mask=mask, src_key_padding_mask=torch.tensor(~KEEP))
    (y * torch.tensor(cotangent)).sum().backward()
    found = {"y": y.detach().numpy(), "x": t.grad.numpy()}
    if decoder:
        found["memory"] = m.grad.numpy()
    for path, (name, third) in names.items():
        grad = weights[name].grad.numpy()
        found[path] = (grad if third is None else grad[third * D : (third + 1) * D]).T
    return found


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_torchs(name, dtype):
    block, activation, causal = CASES[name]
    decoder = block.cross is not None
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(block.init, jax.random.key(0))
        arrays = {p: (rng.standard_normal(a.shape) * 0.5).astype(dtype) for p, a in tree.flatten(shapes).items()}
        x, cotangent = (rng.standard_normal((B, T, D)).astype(dtype) for _ in range(2))
        memory = rng.standard_normal((B, S, D)).astype(dtype)
        run = (block, activation, causal, arrays, x, memory, cotangent)
        want = reference(f"nn/transformer/{name}_{dtype}", lambda: run_torch(*run))

        def loss(params, x, memory):
            if decoder:
                inputs = {"memory": memory, "memory_mask": jnp.asarray(KEEP_MEMORY)[:, None, None]}
            else:
                inputs = {"mask": jnp.asarray(KEEP)[:, None, None]}
            y, _ = block.apply(params, None, x, nn.EVAL, **inputs)
            return jnp.sum(y * cotangent), y

        params = tree.map_with_path(lambda path, _: jnp.asarray(arrays[path]), shapes)
        step = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
        (_, y), (grads, grad_x, grad_memory) = step(params, jnp.asarray(x), jnp.asarray(memory))
        got = {"y": y, "x": grad_x, **tree.flatten(grads)} | ({"memory": grad_memory} if decoder else {})
        assert got.keys() == want.keys()
        for key, value in got.items():
            bound = TOLERANCE[dtype] * max(1.0, np.abs(want[key]).max())
            assert np.abs(np.asarray(value) - want[key]).max() <= bound, key


@pytest.mark.parametrize("own_norm", [False, True])
def test_parallel_order(own_norm):
    """Both branches read the block's input: through one norm as in GPT-J, through two as in GPT-NeoX."""
    usual = nn.transformer_block(D, HEADS, HIDDEN, causal=True)
    block = nn.TransformerBlock(
        usual.attention, usual.mlp, nn.LayerNorm(D), nn.LayerNorm(D) if own_norm else None, order="parallel"
    )
    keys = iter(jax.random.split(jax.random.key(0), 50))
    params = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(next(keys), a.shape), block.init(jax.random.key(1)))
    x = jax.random.normal(jax.random.key(2), (B, T, D))
    h = block.norm1(params["norm1"], x)
    want = x + block.attention.apply(params["attention"], None, h, nn.EVAL)[0]
    if own_norm:
        h = block.norm2(params["norm2"], x)
    want = want + block.mlp.apply(params["mlp"], None, h, nn.EVAL)[0]
    np.testing.assert_allclose(block.apply(params, None, x, nn.EVAL)[0], want, atol=1e-6)


def test_dropout_drops_each_branch_apart():
    """At rate 1 in training only the shortcuts are left; and a rate drops whole elements of a branch, not of x."""
    x = jax.random.normal(jax.random.key(2), (B, T, D))
    gone = nn.transformer_block(D, HEADS, HIDDEN, rate=1.0)
    params = gone.init(jax.random.key(0))
    mode = nn.training(jax.random.key(1))
    assert np.array_equal(gone.apply(params, None, x, mode)[0], x)
    half = nn.TransformerBlock(gone.attention, gone.mlp, nn.LayerNorm(D), nn.LayerNorm(D), rate=0.5)
    biased = {**params, "mlp": jax.tree.map(jnp.ones_like, params["mlp"])}  # the branch is its last bias, 1
    biased["attention"] = jax.tree.map(jnp.zeros_like, params["attention"])
    branch = half.apply(biased, None, x, mode)[0] - x
    np.testing.assert_allclose(np.unique(np.round(branch, 4)), [0, 2])


def test_mixed_state_is_kept_by_name():
    """A cache of the attention and the moments of a network that remembers travel together."""
    usual = nn.transformer_block(D, HEADS, causal=True)
    network = nn.Chain(nn.Linear(D, D), nn.BatchNorm(D))
    block = nn.TransformerBlock(usual.attention, network, nn.LayerNorm(D), nn.LayerNorm(D))
    model = nn.Stack(block, 2)
    params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (B, 3, D))
    assert list(model.init_state()) == ["mlp"]
    cache = model.init_cache(B, 6)
    assert sorted(cache) == ["attention", "mlp"]
    _, after = model.apply(params, cache, x, nn.training(jax.random.key(2)))
    assert tree.diff(cache, after) == ""
    assert after["attention"].length.tolist() == [3, 3]
    assert float(jnp.abs(after["mlp"]["batch_norm1"]["mean"]).max()) > 0


USUAL = nn.transformer_block(D, HEADS)
PARTS = (USUAL.attention, USUAL.mlp, USUAL.norm1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.transformer_block(D, HEADS, order="sandwich"), "'pre', 'post' or 'parallel'"),
        (lambda: nn.transformer_block(D, HEADS, norm="batch"), "'layer' or 'rms'"),
        (lambda: nn.transformer_block(D, HEADS, d_memory=D, order="parallel"), "cross attention"),
        (lambda: nn.TransformerBlock(*PARTS), "norm2"),
        (
            lambda: nn.TransformerBlock(USUAL.attention, USUAL.mlp, USUAL.norm1, USUAL.norm1, USUAL.attention),
            "norm_cross",
        ),
        (lambda: run(USUAL, memory=jnp.ones((B, S, D))), "got a memory: set cross"),
        (lambda: run(nn.transformer_block(D, HEADS, d_memory=D)), "got no memory: expected memory="),
    ],
)
def test_errors(make, words, unchecked):
    with pytest.raises(ValueError, match=words):
        make()


def run(block, **inputs):
    return block.apply(block.init(jax.random.key(0)), None, jnp.ones((B, T, D)), nn.EVAL, **inputs)
