"""Recurrent layers: against written-out loops; pieces, directions, lengths, initial weights, errors.

Tolerance: float32 1e-5, a few roundings of sums of at most a hundred terms.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import nn, tree

KEY, B, T, D_IN, D = jax.random.key(0), 3, 5, 3, 4
LENGTHS = jnp.array([5, 2, 3])


def draw(layer, seed=0, scale=0.5):
    """Parameters that are not the defaults."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: jnp.asarray((scale * rng.standard_normal(s.shape)).astype(np.float32)),
        jax.eval_shape(layer.init, KEY),
    )


def inputs(*shape):
    return jnp.asarray(np.random.default_rng(9).standard_normal(shape or (B, T, D_IN)).astype(np.float32))


# --- formulas --------------------------------------------------------------------------------------------------------


def test_peepholes_are_their_formula():
    """In NumPy, gate by gate; the gradient against the same loop in JAX."""
    layer = nn.LSTM(D_IN, D, peephole=True)
    p, x = draw(layer), inputs()

    def loop(p, x, xp):
        def sigmoid(v):
            return 1 / (1 + xp.exp(-v))

        w, u = (dict(zip("ifgo", xp.split(p[part]["w"], 4, axis=-1), strict=True)) for part in ("input", "hidden"))
        b = dict(zip("ifgo", xp.split(p["input"]["b"] + p["hidden"]["b"], 4), strict=True))
        h = c = xp.zeros((B, D), np.float32)
        ys = []
        for t in range(T):
            z = {k: x[:, t] @ w[k] + h @ u[k] + b[k][None] for k in "ifgo"}
            peep = p["peephole"]["w"]
            i, f = sigmoid(z["i"] + peep[0][None] * c), sigmoid(z["f"] + peep[1][None] * c)
            c = f * c + i * xp.tanh(z["g"])
            h = sigmoid(z["o"] + peep[2][None] * c) * xp.tanh(c)
            ys.append(h)
        return xp.stack(ys, 1)

    got = layer.apply(p, None, x, nn.EVAL)[0]
    np.testing.assert_allclose(got, loop(jax.tree.map(np.asarray, p), np.asarray(x), np), rtol=0, atol=1e-5)
    ours = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(layer.apply(p, None, x, nn.EVAL)[0]))))(p)
    want = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(loop(p, x, jnp)))))(p)
    for path, value in tree.flatten(want).items():
        np.testing.assert_allclose(tree.flatten(ours)[path], value, rtol=0, atol=1e-5, err_msg=path)


def test_the_order_of_the_gates():
    """With every weight 0, a bias of 50 or -50 opens or shuts one gate by itself."""
    x, one = jnp.zeros((1, 1, D_IN)), jnp.ones((1, D))

    def after(layer, **open_gates):
        p = jax.tree.map(jnp.zeros_like, layer.init(KEY))
        names = "ifgo" if isinstance(layer, nn.LSTM) else "rzn"
        p["input"]["b"] = jnp.concatenate([jnp.full((D,), float(open_gates.get(k, 0))) for k in names])
        carry = dict.fromkeys(layer.carry_sizes(), one)
        return {k: float(v[0, 0]) for k, v in layer.apply(p, carry, x, nn.EVAL)[1].items()}

    lstm = nn.LSTM(D_IN, D)
    assert after(lstm, i=-50, f=50)["c"] == pytest.approx(1)  # kept
    assert after(lstm, i=50, f=-50, g=50)["c"] == pytest.approx(1)  # replaced by the candidate
    assert after(lstm, i=-50, f=50, o=-50)["h"] == pytest.approx(0)
    gru = nn.GRU(D_IN, D)
    assert after(gru, z=50)["h"] == pytest.approx(1)  # kept
    assert after(gru, z=-50, n=50)["h"] == pytest.approx(1)
    assert after(gru, z=-50)["h"] == pytest.approx(0)


# --- properties ------------------------------------------------------------------------------------------------------

LAYERS = {
    "rnn": nn.RNN(D_IN, D),
    "gru": nn.GRU(D_IN, D),
    "gru_before": nn.GRU(D_IN, D, reset_after=False),
    "lstm": nn.LSTM(D_IN, D),
    "lstm_peephole_projection": nn.LSTM(D_IN, D, peephole=True, projection=2),
    "deep": nn.DeepRNN(nn.GRU(D_IN, D), 2),
    "lru": nn.LRU(D_IN, 5, r_min=0.5, r_max=0.99),
    "conv": nn.ConvLSTM(2, 3, 3, dims=1, size=(D_IN,)),
}


def given(name):
    return inputs(B, T, D_IN, 2) if name == "conv" else inputs()


@pytest.mark.parametrize("name", LAYERS)
def test_pieces_and_single_steps_are_the_whole(name):
    layer, x = LAYERS[name], given(name)
    p = layer.init(KEY) if name == "lru" else draw(layer)
    run = jax.jit(lambda state, x: layer.apply(p, state, x, nn.EVAL))
    whole, final = run(layer.init_cache(B, T), x)
    without, nothing = layer.apply(p, None, x, nn.EVAL)
    assert nothing is None
    np.testing.assert_allclose(without, whole, rtol=0, atol=1e-5)
    for sizes in ((2, 3), (1,) * T):
        carry, ys, start = layer.init_cache(B, T), [], 0
        for size in sizes:
            y, carry = run(carry, x[:, start : start + size])
            ys.append(y)
            start += size
        np.testing.assert_allclose(jnp.concatenate(ys, 1), whole, rtol=0, atol=1e-5)
        for a, b in zip(jax.tree.leaves(carry), jax.tree.leaves(final), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_each_row_is_run_to_its_own_length_whatever_the_padding_holds(name):
    """Outputs, final carry and gradients, forward and in reverse, against every row by itself."""
    layer, x = LAYERS[name], given(name)
    p = layer.init(KEY) if name == "lru" else draw(layer)
    inside = (jnp.arange(T)[None] < LENGTHS[:, None]).reshape(B, T, *(1,) * (x.ndim - 2))
    padded = jnp.where(inside, x, jnp.nan)
    for reverse in (False, True):

        def loss(p, x, lengths=LENGTHS, reverse=reverse):
            y, carry = layer.apply(p, layer.init_cache(x.shape[0], T), x, nn.EVAL, lengths=lengths, reverse=reverse)
            return jnp.sum(jnp.sin(y)) + sum(jnp.sum(jnp.cos(one)) for one in jax.tree.leaves(carry)), (y, carry)

        (_, (y, carry)), (dp, dx) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(p, padded)
        assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves((dp, dx)))
        assert bool((jnp.where(inside, 0.0, dx) == 0).all())
        assert bool((jnp.where(inside, 0.0, y) == 0).all())
        for row, size in ((0, T), (1, 2)):
            _, (want, last) = loss(p, x[row : row + 1, :size], None)
            np.testing.assert_allclose(y[row, :size], want[0], rtol=0, atol=1e-5)
            for a, b in zip(jax.tree.leaves(carry), jax.tree.leaves(last), strict=True):
                np.testing.assert_allclose(a[row], b[0], rtol=0, atol=1e-5)


def test_both_directions_mirror_each_other():
    """Reversing the input and exchanging the directions reverses the output and exchanges its halves."""
    layer, x = nn.Bidirectional(nn.LSTM(D_IN, D)), inputs()
    p = draw(layer)
    y, _ = layer.apply(p, None, x, nn.EVAL)
    mirrored, _ = layer.apply({"forward": p["backward"], "backward": p["forward"]}, None, x[:, ::-1], nn.EVAL)
    np.testing.assert_allclose(jnp.roll(mirrored[:, ::-1], D, axis=-1), y, rtol=0, atol=1e-6)
    summed, _ = nn.Bidirectional(nn.LSTM(D_IN, D), "sum").apply(p, None, x, nn.EVAL)
    np.testing.assert_allclose(summed, y[..., :D] + y[..., D:], rtol=0, atol=1e-6)


def test_two_stacks_in_both_directions():
    model = nn.Bidirectional(nn.DeepRNN(nn.RNN(D_IN, D), 2))
    p, x = draw(model), inputs()
    y, _ = model.apply(p, None, x, nn.EVAL, lengths=LENGTHS)
    deep = nn.DeepRNN(nn.RNN(D_IN, D), 2)
    np.testing.assert_allclose(y[..., :D], deep.apply(p["forward"], None, x, nn.EVAL, lengths=LENGTHS)[0], atol=1e-6)


def test_dropout_is_between_layers_only():
    """At rate 1 the second layer sees zeros in training, and one layer alone drops nothing."""
    x, mode = inputs(), nn.training(KEY)
    one = nn.DeepRNN(nn.GRU(D_IN, D), 1, rate=1.0)
    p = draw(one)
    np.testing.assert_array_equal(one.apply(p, None, x, mode)[0], one.apply(p, None, x, nn.EVAL)[0])
    two = nn.DeepRNN(nn.GRU(D_IN, D), 2, rate=1.0)
    p = draw(two)
    second = two.layers()[1].apply(p["layers"][1], None, jnp.zeros((B, T, D)), nn.EVAL)[0]
    np.testing.assert_allclose(two.apply(p, None, x, mode)[0], second, rtol=0, atol=1e-6)


def test_batch_axes_are_free():
    layer, x = nn.GRU(D_IN, D), inputs(2, 3, T, D_IN)
    p = draw(layer)
    lengths = jnp.array([[5, 1, 0], [2, 3, 4]])
    y, _ = layer.apply(p, None, x, nn.EVAL, lengths=lengths)
    flat, _ = layer.apply(p, None, x.reshape(6, T, D_IN), nn.EVAL, lengths=lengths.reshape(6))
    np.testing.assert_allclose(y.reshape(6, T, D), flat, rtol=0, atol=1e-6)
    alone, _ = layer.apply(p, None, x[0, 0], nn.EVAL)
    np.testing.assert_allclose(alone, y[0, 0], rtol=0, atol=1e-6)


def test_initial_weights():
    layer = nn.LSTM(6, 8)
    p = layer.init(KEY)
    for w in np.split(np.asarray(p["hidden"]["w"]), 4, axis=1):
        np.testing.assert_allclose(w.T @ w, np.eye(8), atol=1e-5)
    np.testing.assert_array_equal(p["input"]["b"], np.repeat([0, 1, 0, 0], 8))
    assert not p["hidden"]["b"].any()
    assert not nn.LSTM(6, 8, forget_bias=0.0).init(KEY)["input"]["b"].any()
    assert tree.flatten(nn.LSTM(6, 8, hidden_bias=False).init(KEY)).keys() == {"input/w", "input/b", "hidden/w"}

    def compute():
        import torch

        torch.manual_seed(0)
        held = torch.nn.LSTM(16, 64).named_parameters()
        return {name.removesuffix("_l0"): np.array([v.std().item(), v.abs().max().item()]) for name, v in held}

    want = reference("nn/recurrent/initial_weights", compute)
    p = nn.init_preset(nn.LSTM(16, 64), "torch").init(KEY)
    for path, value in tree.flatten(p).items():
        part, leaf = path.split("/")
        name = f"{'weight' if leaf == 'w' else 'bias'}_{'ih' if part == 'input' else 'hh'}"
        got = np.array([np.std(value), np.abs(value).max()])
        np.testing.assert_allclose(got, want[name], rtol=0.1, err_msg=path)  # 256 draws of a bias: 5 %
    assert nn.init_preset(nn.LSTM(6, 8), "flax").forget_bias == 0
    modes = nn.LRU(4, 200, r_min=0.8, r_max=0.95).init(KEY)
    size = np.exp(-np.exp(modes["nu"]))
    assert size.min() >= 0.8 - 1e-5
    assert size.max() <= 0.95 + 1e-5
    np.testing.assert_allclose(np.exp(modes["gamma"]), np.sqrt(1 - size**2), rtol=1e-4)


def test_errors_say_what_was_wanted(unchecked):
    layer, x = nn.LSTM(D_IN, D), inputs()
    p = layer.init(KEY)
    cases = [
        (lambda: layer.apply(p, None, x[0, 0], nn.EVAL), r"expected \[\.\.\., T, 3\]"),
        (lambda: layer.apply(p, None, x, nn.EVAL, lengths=jnp.array([1, 2])), r"integers of shape \(3,\)"),
        (lambda: layer.apply(p, None, x, nn.EVAL, lengths=jnp.ones(3)), "dtype float32: expected integers"),
        (
            lambda: layer.apply(p, layer.init_cache(2, T), x, nn.EVAL),
            r"\(2, 4\): expected shape \(3, 4\)",
        ),
        (lambda: layer.apply(p, {"h": jnp.zeros((3, 4))}, x, nn.EVAL), "'c' is missing"),
        (lambda: nn.LSTM(3, 0), "expected sizes of at least 1, got d_in 3, d_out 0"),
        (lambda: nn.RNN(2, 3, "gelu"), "expected 'tanh' or 'relu'"),
        (lambda: nn.DeepRNN(nn.GRU(2, 3), 0), "depth of at least 1"),
        (lambda: nn.Bidirectional(nn.GRU(2, 3), "max"), "expected 'concat' or 'sum'"),
        (lambda: nn.ConvLSTM(2, 3, 3).init_cache(2, 3), "size of the images"),
        (lambda: nn.LRU(2, 3, r_min=0.9, r_max=0.5), "0 <= r_min < r_max <= 1"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="'h' is bfloat16: expected float32"):
        layer.apply(p, layer.init_cache(B, T, jnp.bfloat16), x, nn.EVAL)
    for call in (lambda: nn.Bidirectional(nn.Linear(2, 3)), lambda: nn.DeepRNN(nn.Linear(2, 3), 2)):
        with pytest.raises(TypeError, match=r"wants a recurrent layer such as nn\.LSTM"):
            call()
