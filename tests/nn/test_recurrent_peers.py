"""Recurrent layers with the weights of flax and haiku: values and gradients, where torch has no such layer.

Tolerance: float32 1e-5, a few roundings of sums of at most a hundred terms.
"""

import flax.linen as fnn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import nn

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

    want = reference("nn/recurrent_haiku/gru", compute, needs="haiku")
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

    want = reference(f"nn/recurrent_haiku/conv_lstm{dims}", compute, needs="haiku")

    def run(p, x):
        return layer.apply(p, layer.init_cache(2, 3), x, nn.EVAL)

    (y, carry), pull = jax.vjp(run, p, x)
    dp, dx = pull((c, jax.tree.map(jnp.zeros_like, carry)))
    got = {"y": y, "dx": dx, "dhidden": dp["hidden"]["w"], "dinput": dp["input"]["w"]}
    np.testing.assert_array_equal(carry["h"], y[:, -1])
    for key, b in want.items():
        np.testing.assert_allclose(got[key], b, rtol=0, atol=1e-5 * max(1.0, np.abs(b).max()), err_msg=key)
