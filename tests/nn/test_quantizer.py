"""Vector quantizers beside haiku's, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.beside import assert_equal, weights
from support.reference import reference

from dlkit import functional, nn
from dlkit.nn import EVAL, training

SIZE, D = 6, 3
TRAIN = training(None)


def inputs(dtype=np.float32):
    rng = np.random.default_rng(8)
    return rng.standard_normal((SIZE, D)).astype(dtype), rng.standard_normal((4, 2, 5, D)).astype(dtype)


def test_haiku_values_and_gradients():
    """haiku's loss is the mean of ours; the gradient of a scalar of y and the loss, for the table and x."""
    table, xs = inputs()
    x, c = xs[0], weights(xs[0].shape, np.float32)

    def compute():
        import haiku as hk

        def forward(x):
            made = hk.nets.VectorQuantizer(D, SIZE, commitment_cost=0.3)(x, is_training=True)
            return {k: made[k] for k in ("quantize", "loss", "encoding_indices", "perplexity")}

        model = hk.without_apply_rng(hk.transform(forward))

        def loss(table, x):
            out = model.apply({"vector_quantizer": {"embeddings": table.T}}, x)
            return jnp.sum(c * out["quantize"]) + 7 * out["loss"], out

        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            grads, out = jax.grad(loss, (0, 1), has_aux=True)(jnp.asarray(table), jnp.asarray(x))
        return {"y": out["quantize"], "loss": out["loss"], "ids": out["encoding_indices"],
                "perplexity": out["perplexity"], "dtable": grads[0], "dx": grads[1]}  # fmt: skip

    layer = nn.VectorQuantizer(SIZE, D, commitment=0.3)

    def loss(table, x):
        out = layer({"table": table}, x)
        return jnp.sum(c * out.y) + 7 * out.loss.mean(), out

    grads, out = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(jnp.asarray(table), jnp.asarray(x))
    used = functional.perplexity(out.ids, SIZE)
    got = {"y": out.y, "loss": out.loss.mean(), "ids": out.ids, "perplexity": used, "dtable": grads[0], "dx": grads[1]}
    assert_equal(got, reference("nn/quantizer/plain", compute, needs="haiku"), np.float32)


def test_haiku_with_moving_averages_over_training():
    table, xs = inputs()

    def compute():
        import haiku as hk

        def forward(x):
            return hk.nets.VectorQuantizerEMA(D, SIZE, commitment_cost=0.3, decay=0.8)(x, is_training=True)

        model = hk.without_apply_rng(hk.transform_with_state(forward))
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            params, state = model.init(jax.random.key(0), jnp.asarray(xs[0]))
            # init has already seen a batch: the averages start anew, the table from ours.
            state = jax.tree.map(jnp.zeros_like, state)
            (name,) = (n for n in state if n.endswith("vector_quantizer_ema"))
            state[name]["embeddings"] = jnp.asarray(table.T)
            found = {}
            for i, x in enumerate(xs):
                out, state = model.apply(params, state, jnp.asarray(x))
                found |= {f"y{i}": out["quantize"], f"loss{i}": out["loss"], f"table{i}": state[name]["embeddings"].T}
        return found

    layer = nn.VectorQuantizerEMA(SIZE, D, commitment=0.3, decay=0.8)
    state = {**layer.init_state(), "table": jnp.asarray(table)}
    step, got = jax.jit(layer.apply), {}
    for i, x in enumerate(xs):
        out, state = step({}, state, jnp.asarray(x), TRAIN)
        got |= {f"y{i}": out.y, f"loss{i}": out.loss.mean(), f"table{i}": state["table"]}
    assert_equal(got, reference("nn/quantizer/averaged", compute, needs="haiku"), np.float32)
    out, after = layer.apply({}, state, jnp.asarray(xs[0]), EVAL)
    assert after is state


def test_the_nearest_code_by_hand(x64):
    table, xs = inputs(np.float64)
    x = xs[0]
    want = np.argmin(((x[..., None, :] - table) ** 2).sum(-1), -1)
    y, loss, ids = functional.quantize(jnp.asarray(x), jnp.asarray(table), commitment=0.5)
    np.testing.assert_array_equal(ids, want)
    np.testing.assert_array_equal(y, table[want])
    np.testing.assert_allclose(loss, 1.5 * ((x - table[want]) ** 2).mean(-1), rtol=1e-12)


def test_gradients_go_straight_through(x64):
    table, xs = inputs(np.float64)
    c = weights(xs[0].shape, np.float64)
    dx, dtable = jax.grad(lambda x, t: jnp.sum(c * functional.quantize(x, t)[0]), (0, 1))(
        jnp.asarray(xs[0]), jnp.asarray(table)
    )
    np.testing.assert_array_equal(dx, c)
    assert not dtable.any()


def test_averages_find_clusters():
    """Codes end at the means of well separated clusters."""
    rng = np.random.default_rng(0)
    centers = np.array([[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0]], np.float32)
    layer = nn.VectorQuantizerEMA(3, 2, decay=0.9)
    state = {**layer.init_state(), "table": jnp.asarray(0.3 * centers)}
    step = jax.jit(layer.apply)
    for _ in range(60):
        x = centers[rng.integers(3, size=30)] + 0.1 * rng.standard_normal((30, 2)).astype(np.float32)
        _, state = step({}, state, jnp.asarray(x), TRAIN)
    np.testing.assert_allclose(state["table"], centers, atol=0.1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.VectorQuantizer(0, 2), "at least 1"),
        (lambda: nn.VectorQuantizer(3, 2, commitment=-1.0), "commitment"),
        (lambda: nn.VectorQuantizerEMA(3, 2, decay=1.0), r"decay in \[0, 1\)"),
        (lambda: functional.nearest(jnp.ones((2, 3)), jnp.ones((4, 2))), r"want \[..., d\] and \[K, d\]"),
    ],
)
def test_what_is_refused(make, words, unchecked):
    with pytest.raises(ValueError, match=words):
        make()
