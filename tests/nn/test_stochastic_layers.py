"""Ask 9: the mode is required of every layer, and a model forwards it to every layer inside.

Which layers draw in training, and which differ from evaluation without a draw, is found from the rows of the table and
stands here; that training then differs from key to key, and evaluation does not, is among the properties of each row.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import ROWS

from dlkit import nn
from dlkit.testing.randomness import recording

KEY = jax.random.key(0)
# They draw in training.
DRAWS = {
    "AlphaDropout", "APPNP", "Chain", "ConvNeXtBlock", "DeepRNN", "DropBlock", "DropConnect", "Dropout", "DropPath",
    "FeatureAlphaDropout", "FeedForward", "GATConv", "GaussianDropout", "GaussianNoise", "MultiHeadAttention",
    "RandomCrop", "RandomFlip", "SpatialDropout", "Stack", "TCNBlock", "TransformerBlock", "VariationalDropout",
    "Zoneout",
}  # fmt: skip
# They measure or update something in training.
MEASURE = {"BasicBlock", "BatchNorm", "Bottleneck", "InvertedResidual", "SpectralNorm", "VectorQuantizerEMA"}


def abstract(row, *mode, **more):
    """The program of the layer of a row in this mode; nothing is computed."""
    params, state = jax.eval_shape(lambda: (row.layer.init(KEY), row.layer.init_state()))
    inputs = {name: jnp.asarray(given) for name, given in row.options.get("inputs", {}).items()}
    x = jax.tree.map(jnp.asarray, row.x)
    return str(jax.make_jaxpr(lambda *args: row.layer.apply(*args, *mode, **inputs, **more))(params, state, x))


CLASSES = {type(row.layer).__name__: row for row in ROWS}


def test_the_mode_is_required_and_other_keywords_are_refused():
    for name, row in CLASSES.items():
        for mode, more, word in (((), {}, "mode"), ((nn.EVAL,), {"deterministic": True}, "deter")):
            with pytest.raises(TypeError, match=word) as error:
                abstract(row, *mode, **more)
            if not mode:  # a Stack gives keywords to its block, which names itself
                assert name in "".join([str(error.value), *error.value.__notes__]), name


def test_training_needs_a_key_where_it_draws_and_evaluation_never():
    draw, measure = set(), set()
    for row in ROWS:
        if isinstance(row.layer, nn.Pure):
            continue  # it is not given the mode
        evaluation, training = abstract(row, nn.EVAL), said(row)
        if isinstance(training, ValueError):
            assert re.match("the draw '[a-z_]+' needs a key in training, but the mode has none: pass tr", str(training))
            assert training.__notes__[0].startswith("in layer ")
            draw.add(type(row.layer).__name__)
        elif training != evaluation:
            measure.add(type(row.layer).__name__)
    assert draw == DRAWS
    assert measure - draw == MEASURE


def said(row):
    """The program of training without a key, or what it raises."""
    try:
        return abstract(row, nn.training(None))
    except ValueError as error:
        return error


PICTURES = {
    "flip": nn.RandomFlip(),
    "crop": nn.RandomCrop(1),
    "block": nn.DropBlock(0.3, block=3),
    "spatial": nn.SpatialDropout(0.3),
    "features": nn.FeatureAlphaDropout(0.3),
    "next": nn.ConvNeXtBlock(4, kernel=3, expansion=2, rate=0.3),
    "norm": nn.BatchNorm(4),
}
SEQUENCES = {
    "alpha": nn.AlphaDropout(0.3),
    "gaussian": nn.GaussianDropout(0.3),
    "noise": nn.GaussianNoise(0.3),
    "connect": nn.DropConnect(nn.Linear(4, 4), 0.3),
    "path": nn.DropPath(0.3),
    "temporal": nn.TCNBlock(4, 4, 2, rate=0.3),
    "variational": nn.VariationalDropout(nn.GRU(4, 4), 0.3, 0.3),
    "zoneout": nn.Zoneout(nn.LSTM(4, 4), 0.3, 0.3),
    "deep": nn.DeepRNN(nn.GRU(4, 4), 2, rate=0.3),
    "stack": nn.Stack(nn.TransformerBlock(nn.MultiHeadAttention(4, 2, rate=0.3), nn.FeedForward(4, 8, rate=0.3),
                                          nn.LayerNorm(4), nn.LayerNorm(4), rate=0.3), 2, drop_path=0.3),
    "drop": nn.Residual(nn.Dropout(0.3)),
}  # fmt: skip
GRAPHS = {"attend": nn.GATConv(4, 4, heads=1, rate=0.3), "hops": nn.APPNP(2, rate=0.3)}
# In each block of the stack, the attention's weights, the hidden units, two branches, and the block itself.
COUNTS = {"variational": 2, "zoneout": 2, "norm": 0, "stack": 2 * 5, "temporal": 2}


def every_layer():
    """A model of pictures, then sequences of their pixels, then a graph of these, and its pictures."""
    ring = np.arange(16, dtype=np.int32)
    graph = nn.functional.Graph.from_edges(ring, (ring + 1) % 16, np.zeros((16, 4), np.float32))
    parts = {
        "pictures": nn.Chain(**PICTURES),
        "sequences": nn.Chain(flat=nn.Reshape((16, 4), dims=3), **SEQUENCES),
        "graphs": nn.Chain(**GRAPHS),
    }

    def apply(params, state, x, mode):
        x, after = parts["pictures"].apply(params["pictures"], state, x, mode.at("pictures"))
        x, _ = parts["sequences"].apply(params["sequences"], None, x, mode.at("sequences"))
        nodes = graph._replace(nodes=x[0])
        y, _ = parts["graphs"].apply(params["graphs"], None, nodes, mode.at("graphs"))
        return (x, y.nodes), after

    return parts, apply


def test_a_model_of_every_stochastic_layer():
    """Two evaluations agree whatever the key, two trainings differ with it, and each draw has a key of its own."""
    parts, apply = every_layer()
    inside = {kind for part in parts.values() for kind in kinds(part)}
    assert inside >= DRAWS | {"BatchNorm"}
    params = {name: part.init(nn.fold_name(KEY, name)) for name, part in parts.items()}
    state = parts["pictures"].init_state()
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 4))
    run = jax.jit(apply)
    drawn: list[tuple[str, bytes]] = []
    evaluated = [run(params, state, x, nn.Mode(jax.random.key(seed), False))[0] for seed in (1, 2)]
    for a, b in zip(*evaluated, strict=True):
        np.testing.assert_array_equal(a, b)
    trained = [run(params, state, x, recording(key, drawn))[0] for key in map(jax.random.key, (1, 2, 1))]
    jax.effects_barrier()
    for a, b, c in zip(*trained, strict=True):
        assert not np.array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    count = sum(COUNTS.get(name, 1) for name in (*PICTURES, *SEQUENCES, *GRAPHS))
    assert len(drawn) == 3 * count
    assert len({bits for _, bits in drawn}) == 2 * count


def kinds(layer):
    return {type(layer).__name__}.union(*map(kinds, layer.children().values()))
