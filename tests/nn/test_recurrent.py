"""Recurrent layers: against flax, haiku and written-out loops; pieces, directions, lengths, initial weights, errors.

Tolerances: float32 1e-5, a few roundings of sums of at most a hundred terms; float64 1e-12.
"""

import flax.linen as fnn
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


def gates(held, names):
    """The gates of a parameter that lie side by side, by name."""
    return dict(zip(names, np.split(np.asarray(held), len(names), axis=-1), strict=True))


# --- flax: outputs, final carry and all gradients with lengths -------------------------------------------------------


def to_flax(layer, p):
    """Our parameters as flax names them. Where flax has one bias it is the sum of both."""
    if isinstance(layer, nn.LSTM):
        into, hidden = gates(p["input"]["w"], "ifgo"), gates(p["hidden"]["w"], "ifgo")
        b = gates(p["input"]["b"] + p["hidden"]["b"], "ifgo")
        return {f"i{k}": {"kernel": into[k]} for k in "ifgo"} | {
            f"h{k}": {"kernel": hidden[k], "bias": b[k]} for k in "ifgo"
        }
    into, hidden = gates(p["input"]["w"], "rzn"), gates(p["hidden"]["w"], "rzn")
    b_in, b_hidden = gates(p["input"]["b"], "rzn"), gates(p["hidden"]["b"], "rzn")
    return {
        "ir": {"kernel": into["r"], "bias": b_in["r"] + b_hidden["r"]},
        "iz": {"kernel": into["z"], "bias": b_in["z"] + b_hidden["z"]},
        "in": {"kernel": into["n"], "bias": b_in["n"]},
        "hr": {"kernel": hidden["r"]},
        "hz": {"kernel": hidden["z"]},
        "hn": {"kernel": hidden["n"], "bias": b_hidden["n"]},
    }


@pytest.mark.parametrize(
    ("layer", "cell"),
    [
        (nn.LSTM(D_IN, D), fnn.OptimizedLSTMCell(D)),
        (nn.GRU(D_IN, D), fnn.GRUCell(D)),
    ],
    ids=["lstm", "gru"],
)
def test_flax(layer, cell):
    params, x, c = draw(layer), inputs(), inputs(B, T, D)
    theirs = fnn.RNN(cell, return_carry=True)
    valid = (jnp.arange(T)[None] < LENGTHS[:, None])[..., None]

    def ours(params, x):
        y, carry = layer.apply(params, layer.init_cache(B, T), x, nn.EVAL, lengths=LENGTHS)
        return jnp.sum(c * y) + jnp.sum(jnp.sin(carry["h"])), (y, carry["h"])

    def flaxs(written, x):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            carry, y = theirs.apply({"params": {"cell": written}}, x, seq_lengths=LENGTHS)
        h = carry[1] if isinstance(carry, tuple) else carry
        y = jnp.where(valid, y, 0.0)
        return jnp.sum(c * y) + jnp.sum(jnp.sin(h)), (y, h)

    run = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))
    (_, got), (dp, dx) = run(params, x)
    written = jax.tree.map(jnp.asarray, to_flax(layer, params))
    (_, want), (dq, dx_flax) = jax.jit(jax.value_and_grad(flaxs, (0, 1), has_aux=True))(written, x)
    pairs = [(got[0], want[0]), (got[1], want[1]), (dx, dx_flax)]
    names = "ifgo" if isinstance(layer, nn.LSTM) else "rzn"
    for part, letter in (("input", "i"), ("hidden", "h")):
        pairs += [(g, dq[f"{letter}{k}"]["kernel"]) for k, g in gates(dp[part]["w"], names).items()]
        bias = {k: dq[f"{letter}{k}"].get("bias") for k in names}
        pairs += [(g, bias[k]) for k, g in gates(dp[part]["b"], names).items() if bias[k] is not None]
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, float(jnp.abs(b).max())))


# --- haiku: the GRU that resets before, and the ConvLSTM -------------------------------------------------------------


def test_gru_that_resets_before_is_haikus():
    layer = nn.GRU(D_IN, D, reset_after=False, hidden_bias=False)
    p, x, c = draw(layer), inputs(), inputs(B, T, D)
    into, hidden, b = (gates(v, "rzn") for v in (p["input"]["w"], p["hidden"]["w"], p["input"]["b"]))

    def compute():
        import haiku as hk

        # haiku's z weighs the new value, so its weights are those of 1 - z: the negatives.
        theirs = {
            "gru": {
                "w_i": np.concatenate([-into["z"], into["r"], into["n"]], -1),
                "w_h": np.concatenate([-hidden["z"], hidden["r"], hidden["n"]], -1),
                "b": np.concatenate([-b["z"], b["r"], b["n"]]),
            }
        }
        fn = hk.without_apply_rng(
            hk.transform(lambda x: hk.dynamic_unroll(core := hk.GRU(D), x, core.initial_state(B), time_major=False)[0])
        )
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            y, pull = jax.vjp(lambda q, x: fn.apply(q, x), theirs, x)
        dq, dx = pull(c)
        z, r, n = np.split(np.asarray(dq["gru"]["w_h"]), 3, -1)
        return {"y": y, "dx": dx, "dhidden": np.concatenate([r, -z, n], -1)}

    want = reference("nn/recurrent_haiku/gru", compute)
    y, pull = jax.vjp(lambda p, x: layer.apply(p, None, x, nn.EVAL)[0], p, x)
    dp, dx = pull(c)
    for a, b in ((y, want["y"]), (dx, want["dx"]), (dp["hidden"]["w"], want["dhidden"])):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_conv_lstm_is_haikus(dims):
    size = (4, 3, 2)[:dims]
    layer = nn.ConvLSTM(2, 3, 3, dims=dims, size=size)
    p, x, c = draw(layer, scale=0.2), inputs(2, 3, *size, 2), inputs(2, 3, *size, 3)

    def haikus(w):  # gates i, g, f, o; it adds 1 to the forget gate itself
        i, f, g, o = np.split(np.asarray(w), 4, -1)
        return np.concatenate([i, g, f, o], -1)

    def compute():
        import haiku as hk

        name = f"conv{dims}_d_lstm"
        b = np.array(p["input"]["b"])
        b[3:6] -= 1
        theirs = {
            f"{name}/input_to_hidden": {"w": haikus(p["input"]["w"]), "b": haikus(b)},
            f"{name}/hidden_to_hidden": {"w": haikus(p["hidden"]["w"]), "b": np.zeros(12, np.float32)},
        }
        kind = getattr(hk, f"Conv{dims}DLSTM")

        def run(x):
            core = kind(input_shape=size, output_channels=3, kernel_shape=3)
            return hk.dynamic_unroll(core, x, core.initial_state(2), time_major=False)[0]

        fn = hk.without_apply_rng(hk.transform(run))
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            shapes = jax.eval_shape(fn.init, KEY, x)
            names = {k.rsplit("/", 1)[-1]: k for k in shapes}
            theirs = {names[k.rsplit("/", 1)[-1]]: v for k, v in theirs.items()}
            y, pull = jax.vjp(lambda q, x: fn.apply(q, x), theirs, x)
        dq, dx = pull(c)
        dw = {k.rsplit("/", 1)[-1]: v["w"] for k, v in dq.items()}
        return {"y": y, "dx": dx, "dhidden": haikus(dw["hidden_to_hidden"]), "dinput": haikus(dw["input_to_hidden"])}

    want = reference(f"nn/recurrent_haiku/conv_lstm{dims}", compute)

    def run(p, x):
        return layer.apply(p, layer.init_cache(2, 3), x, nn.EVAL)

    (y, carry), pull = jax.vjp(run, p, x)
    dp, dx = pull((c, jax.tree.map(jnp.zeros_like, carry)))
    got = {"y": y, "dx": dx, "dhidden": dp["hidden"]["w"], "dinput": dp["input"]["w"]}
    np.testing.assert_array_equal(carry["h"], y[:, -1])
    for key, b in want.items():
        np.testing.assert_allclose(got[key], b, rtol=0, atol=1e-5 * max(1.0, np.abs(b).max()), err_msg=key)


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
