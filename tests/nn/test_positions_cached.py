"""Positions that are added to embeddings go on where the last call ended, as the cache of attention does.

Tolerance: 1e-5 relative to logits of order 1; the same sums, of other shapes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import nn

IDS = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 6)), jnp.int32)


@pytest.mark.parametrize(
    "layer", [nn.LearnedPositions(8, 16, nn.initializers.Normal(1.0)), nn.SinusoidalPositions()], ids=["table", "waves"]
)
def test_a_chain_of_tokens_generates_what_it_computes_at_once(layer):
    block = nn.transformer_block(16, 2, causal=True)
    model = nn.Chain(nn.Embedding(11, 16), positions=layer, blocks=nn.Stack(block, 2), head=nn.Linear(16, 11))
    params = model.init(jax.random.key(0))
    want, nothing = model.apply(params, None, IDS, nn.EVAL)
    assert nothing is None
    step = jax.jit(model.apply)
    cache = model.init_cache(2, 8)
    pieces, t = [], 0
    for size in (3, 1, 1, 1):
        y, cache = step(params, cache, IDS[:, t : t + size], nn.EVAL)
        pieces.append(y)
        t += size
    np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), want, atol=1e-5)
    assert int(cache["positions"]["length"]) == 6


def test_given_positions_are_used_with_a_cache_too():
    layer, x = nn.LearnedPositions(8, 4), jnp.zeros((2, 3, 4))
    params, at = layer.init(jax.random.key(0)), jnp.array([5, 0, 2])
    y, cache = layer.apply(params, layer.init_cache(2, 8), x, nn.EVAL, positions=at)
    np.testing.assert_array_equal(y[1], params["table"][at])
    assert int(cache["length"]) == 3


def test_a_position_after_the_table_is_seen():
    layer = nn.LearnedPositions(4, 2)
    params, cache = layer.init(jax.random.key(0)), layer.init_cache(1, 8)
    _, cache = layer.apply(params, cache, jnp.zeros((1, 3, 2)), nn.EVAL)
    y, _ = layer.apply(params, cache, jnp.zeros((1, 2, 2)), nn.EVAL)
    assert np.isfinite(y[0, 0]).all()
    assert np.isnan(y[0, 1]).all()


def test_places_are_integers(unchecked):
    bias = nn.RelativeBias(2)
    with pytest.raises(TypeError, match="got x of dtype float32: expected integers because they are places of tokens"):
        bias(bias.init(jax.random.key(0)), jnp.arange(3.0))
