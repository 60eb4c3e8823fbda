"""Real data, where it is: a graph convolutional network on the citations of Cora, as in Kipf and Welling (81.5 %)."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import nn, optim
from dlkit.functional import Graph, to_undirected

CORA = Path(os.environ.get("DLKIT_DATA", "")) / "cora" / "cora.npz"


@pytest.mark.skipif("DLKIT_DATA" not in os.environ or not CORA.exists(), reason="DLKIT_DATA has no cora/cora.npz")
def test_two_layers_learn_cora():
    """Their settings: 16 hidden units, dropout 0.5, Adam at 0.01, 5e-4 on the first layer; half of their epochs."""
    with np.load(CORA, allow_pickle=False) as held:
        data = dict(held)
    x = np.zeros(data["feature_shape"], np.float32)
    x[data["feature_rows"], data["feature_cols"]] = data["feature_values"]
    x /= np.maximum(x.sum(1, keepdims=True), 1)
    senders, receivers = data["edges"].T
    graph = to_undirected(Graph.from_edges(senders, receivers, x))
    labels, train, test = (jnp.asarray(data[name]) for name in ("labels", "train", "test"))

    model = nn.Chain(
        nn.OnNodes(nn.Dropout(0.5)),
        nn.GCNConv(1433, 16),
        nn.OnNodes(nn.Relu()),
        nn.OnNodes(nn.Dropout(0.5)),
        nn.GCNConv(16, 7),
    )
    params = model.init(jax.random.key(0))
    tx = optim.adam(1e-2)

    def loss(params, graph, key):
        out, _ = model.apply(params, None, graph, nn.training(key))
        logp = jax.nn.log_softmax(out.nodes)[train]
        decay = sum(jnp.sum(w**2) for w in jax.tree.leaves(params["gcnconv1"]))
        return -jnp.mean(jnp.take_along_axis(logp, labels[train][:, None], 1)) + 2.5e-4 * decay

    @jax.jit
    def step(params, state, graph, key):
        updates, state = tx.update(jax.grad(loss)(params, graph, key), state, params)
        return jax.tree.map(jnp.add, params, updates), state

    state = tx.init(params)
    for key in jax.random.split(jax.random.key(1), 100):
        params, state = step(params, state, graph, key)
    out, _ = jax.jit(model.apply)(params, None, graph, nn.EVAL)
    accuracy = jnp.mean(out.nodes.argmax(1)[test] == labels[test])
    assert accuracy > 0.79
