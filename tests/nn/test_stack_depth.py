"""Many blocks: scanned or unrolled, what the backward pass keeps, token by token.

Ask 26 (compile time of deep models) is the first three tests, ask 41 (rematerialization) the two about what is kept.
"""

import functools
import re
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO

import jax
import jax.ad_checkpoint
import jax.numpy as jnp
import numpy as np
import pytest
from support import compiling

from dlkit import nn, train, tree

D, HEADS, B, T = 8, 2, 2, 5
BLOCK = nn.transformer_block(D, HEADS, 16, causal=True, rate=0.1)
X = jax.random.normal(jax.random.key(1), (B, T, D))
MODE = nn.training(jax.random.key(2))


def loss(model, params, x=X, mode=MODE):
    y, _ = model.apply(params, None, x, mode)
    return jnp.sum(jnp.sin(y))


def assert_equal_trees(a, b, tolerance):
    for (path, x), y in zip(tree.flatten(a).items(), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=path)


def test_scanned_and_unrolled_are_the_same_model():
    """Outputs and gradients in training, with dropout: 1e-5, as XLA fuses the two programs differently."""
    scanned, unrolled = (nn.Stack(BLOCK, 3, scan=scan) for scan in (True, False))
    params = scanned.init(jax.random.key(0))
    for a, b in zip(*map(jax.tree.leaves, (params, unrolled.init(jax.random.key(0)))), strict=True):
        assert np.array_equal(a, b)
    one, other = (jax.jit(jax.value_and_grad(lambda p, m=m: loss(m, p)))(params) for m in (scanned, unrolled))
    assert_equal_trees(one, other, 1e-5)
    still = nn.Stack(nn.transformer_block(D, HEADS, 16, causal=True), 3)
    assert abs(float(loss(still, params) - one[0])) > 1e-3  # the draws were at work


def test_a_checkpoint_of_one_mode_loads_in_the_other(tmp_path):
    scanned, unrolled = (nn.Stack(BLOCK, 3, scan=scan) for scan in (True, False))
    params = scanned.init(jax.random.key(0))
    path = train.save(tmp_path, 0, {"params": params})
    back, _ = train.restore(path, {"params": jax.eval_shape(unrolled.init, jax.random.key(0))})
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (back["params"], params)), strict=True))


def size(jaxpr):
    """How many equations a program has, those inside of its loops and calls too."""
    return len(re.findall(r"^\s*[\w:,\[\] ]+ = ", str(jaxpr), re.MULTILINE))


def test_the_program_does_not_grow_with_depth():
    """A gradient with 48 blocks is at most 1.3 times that with 4; unrolled it would be about 12 times."""

    def program(depth, scan=True):
        model = nn.Stack(BLOCK, depth, scan=scan)
        params = jax.eval_shape(model.init, jax.random.key(0))
        return size(jax.make_jaxpr(jax.value_and_grad(lambda p: loss(model, p)))(params))

    four = program(4)
    assert program(48) <= 1.3 * four
    assert program(4, scan=False) > 2 * four  # the measure sees what is unrolled


DEPTH = 12


def saved(model, params):
    """The shapes that the backward pass keeps beside arguments and constants, counted: residuals of the whole model."""
    out = StringIO()
    with redirect_stdout(out):
        jax.ad_checkpoint.print_saved_residuals(lambda p: loss(model, p), params)
    kept = Counter()
    for line in out.getvalue().splitlines():
        shape = re.match(r"f32\[([\d,]*)\]", line)
        if shape and "from the argument" not in line and "from a constant" not in line:
            kept[tuple(int(n) for n in shape[1].split(",") if n)] += 1
    return kept


def elements(kept):
    return sum(int(np.prod(shape)) * n for shape, n in kept.items())


@pytest.mark.parametrize("scan", [True, False])
def test_full_keeps_the_inputs_of_the_blocks_and_nothing_else(scan):
    models = {remat: nn.Stack(BLOCK, DEPTH, remat=remat, scan=scan) for remat in ("none", "full", "dots")}
    params = models["none"].init(jax.random.key(0))
    kept = {remat: saved(model, params) for remat, model in models.items()}
    one = B * T * D
    inputs = {shape: n for shape, n in kept["full"].items() if shape[-3:] == (B, T, D)}
    # In all, one of these for each block; the first one's input is a constant, and the loss keeps the last output.
    assert (DEPTH - 1) * one <= elements(inputs) <= (DEPTH + 1) * one, kept["full"]
    # What else there is are the blocks' keys, and no weight or activation.
    assert elements(kept["full"]) - elements(inputs) <= 4 * DEPTH, kept["full"]
    assert elements(kept["full"]) < elements(kept["dots"]) < elements(kept["none"])
    assert elements(kept["none"]) > 10 * elements(kept["full"])


def test_gradients_are_the_same_whatever_is_kept():
    """With dropout: the recomputation draws the same numbers. 1e-5: XLA fuses the programs differently."""
    jit = functools.partial(jax.jit, compiler_options=compiling.AS_USERS_DO)
    params = nn.Stack(BLOCK, DEPTH).init(jax.random.key(0))
    want = jit(jax.grad(lambda p: loss(nn.Stack(BLOCK, DEPTH), p)))(params)
    for remat in ("full", "dots"):
        got = jit(jax.grad(lambda p, r=remat: loss(nn.Stack(BLOCK, DEPTH, remat=r), p)))(params)
        assert_equal_trees(got, want, 1e-5)


def test_token_by_token_is_the_whole():
    """A prompt of two and then single tokens through a stack with caches, compiled once for the tokens."""
    block = nn.transformer_block(D, HEADS, 16, kv_heads=1, causal=True, position=nn.Rope(), gated=True, norm="rms")
    model = nn.Stack(block, 3)
    params = model.init(jax.random.key(0))
    whole, nothing = jax.jit(model.apply)(params, None, X, nn.EVAL)
    assert nothing is None
    traces = []

    @jax.jit
    def step(params, cache, x):
        traces.append(1)
        return model.apply(params, cache, x, nn.EVAL)

    y, cache = step(params, model.init_cache(B, 8), X[:, :2])
    pieces = [y]
    for t in range(2, T):
        y, cache = step(params, cache, X[:, t : t + 1])
        pieces.append(y)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), whole, atol=1e-5)
    assert len(traces) == 2


def test_a_memory_goes_to_every_block():
    """An encoder and a decoder, each a stack; the loss does not see memory that the mask hides, NaN or not."""
    encoder = nn.Stack(nn.transformer_block(D, HEADS, 16), 2)
    decoder = nn.Stack(nn.transformer_block(D, HEADS, 16, causal=True, d_memory=D), 2)
    keys = jax.random.split(jax.random.key(0), 2)
    params = {"encoder": encoder.init(keys[0]), "decoder": decoder.init(keys[1])}
    keep = jnp.arange(4) < 3
    source = jax.random.normal(jax.random.key(3), (B, 4, D))

    @jax.jit
    def run(params, source, target):
        memory, _ = encoder.apply(params["encoder"], None, source, nn.EVAL, mask=keep[None])
        inputs = {"memory": memory, "memory_mask": keep[None]}
        return jnp.sum(jnp.sin(decoder.apply(params["decoder"], None, target, nn.EVAL, **inputs)[0]))

    value, grads = run(params, source, X), jax.grad(run)(params, source, X)
    assert all(np.abs(g).max() > 0 for p, g in tree.flatten(grads).items() if not p.endswith("k/b"))
    hidden = source.at[:, 3].set(7.0)
    assert run(params, hidden, X) == value
    assert abs(float(run(params, source.at[:, 2].set(7.0), X) - value)) > 1e-4
