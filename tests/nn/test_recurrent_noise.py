"""Variational dropout and zoneout beside loops over time in torch with the same masks: values and gradients.

Tolerances: those of `support/beside.py`, float32 1e-5, float64 1e-12.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.beside import beside_torch

from dlkit import functional, nn, tree
from dlkit.nn.recurrence.recurrent import Noise

KEY = jax.random.key(0)
D_IN, D, BATCH, TIME = 3, 4, 3, 5
LENGTHS = np.array([5, 2, 3])
LSTM, GRU = nn.LSTM(D_IN, D), nn.GRU(D_IN, D)

CASES = {
    "lstm": nn.Zoneout(nn.VariationalDropout(LSTM, 0.4, 0.4), 0.3, 0.6),
    "lstm_peephole": nn.Zoneout(nn.VariationalDropout(nn.LSTM(D_IN, D, peephole=True), hidden_rate=0.4), 0.3),
    "gru": nn.Zoneout(nn.VariationalDropout(GRU, 0.4, 0.4), 0.4),
    "gru_reset_before": nn.VariationalDropout(nn.GRU(D_IN, D, reset_after=False), 0.4, 0.4),
    "rnn": nn.VariationalDropout(nn.Zoneout(nn.RNN(D_IN, D), 0.4), hidden_rate=0.4),
}


def plain(layer):
    while not isinstance(layer, nn.RNN | nn.GRU | nn.LSTM):
        layer = layer.layer
    return layer


def cell(torch, layer, p, h, c, x, mask):
    """h' and c' of one time, from the published equations."""
    u = h * mask
    a, s = x @ p["input/w"] + p["input/b"], u @ p["hidden/w"] + p["hidden/b"]
    if isinstance(layer, nn.RNN):
        return torch.tanh(a + s), c
    if isinstance(layer, nn.GRU):
        (a_r, a_z, a_n), (s_r, s_z, s_n) = a.chunk(3, -1), s.chunk(3, -1)
        r, z = torch.sigmoid(a_r + s_r), torch.sigmoid(a_z + s_z)
        if not layer.reset_after:
            s_n = (r * u) @ p["hidden/w"][:, 2 * D :] + p["hidden/b"][2 * D :]
        n = torch.tanh(a_n + (r * s_n if layer.reset_after else s_n))
        return (1 - z) * n + z * h, c
    i, f, g, o = (a + s).chunk(4, -1)
    peep = p.get("peephole/w", torch.zeros(3, D, dtype=h.dtype))
    new = torch.sigmoid(f + peep[1] * c) * c + torch.sigmoid(i + peep[0] * c) * torch.tanh(g)
    return torch.sigmoid(o + peep[2] * new) * torch.tanh(new), new


def loop(torch, layer, noise, p, x):
    """Row by row to its own length; 0 after it."""
    hidden = torch.ones(BATCH, D, dtype=x.dtype) if noise.hidden is None else torch.tensor(noise.hidden)
    rows = []
    for b, length in enumerate(LENGTHS):
        h = c = torch.zeros(D, dtype=x.dtype)
        outs = []
        for t in range(length):
            given = x[b, t] if noise.input is None else x[b, t] * torch.tensor(noise.input[b])
            new = cell(torch, layer, p, h, c, given, hidden[b])
            if noise.keep is not None:
                keep = [torch.tensor(np.broadcast_to(k, (TIME, BATCH, D))[t, b].astype(x.numpy(force=True).dtype))
                        for k in noise.keep]  # fmt: skip
                keep = (keep * 2)[:2]
                new = [k * n + (1 - k) * o for k, n, o in zip(keep, new, (h, c), strict=True)]
            h, c = new
            outs.append(h)
        rows.append(torch.cat([torch.stack(outs), torch.zeros(TIME - length, D, dtype=x.dtype)]))
    return torch.stack(rows)


def cases():
    """The other layers, types and modes are thorough."""
    usual = {("lstm", "float64", "training"), ("gru", "float32", "training"), ("rnn", "float64", "eval")}
    usual |= {("lstm_peephole", "float32", "training")}
    for name in CASES:
        for dtype in (np.float32, np.float64):
            for mode in ("training", "eval"):
                marks = () if (name, dtype.__name__, mode) in usual else pytest.mark.thorough
                yield pytest.param(name, dtype, mode, marks=marks, id=f"{name}-{dtype.__name__}-{mode}")


@pytest.mark.parametrize(("name", "dtype", "mode"), list(cases()))
def test_equals_a_loop_with_the_same_masks(name, dtype, mode):
    layer, run = CASES[name], nn.EVAL if mode == "eval" else nn.training(jax.random.key(3))
    with jax.enable_x64(dtype == np.float64):
        rng = np.random.default_rng(1)
        shapes = tree.flatten(jax.eval_shape(layer.init, KEY))
        arrays = {path: 0.7 * rng.standard_normal(s.shape) for path, s in shapes.items()}
        structure = jax.tree.structure(jax.eval_shape(layer.init, KEY))
        noise = jax.tree.map(np.asarray, layer.draw(run, jnp.zeros((TIME, BATCH, D_IN), dtype)) or Noise())
        x = rng.standard_normal((BATCH, TIME, D_IN))

        def ours(**held):
            x = held.pop("x")
            params = jax.tree.unflatten(structure, [held[path] for path in shapes])
            return layer.apply(params, None, x, run, lengths=jnp.asarray(LENGTHS))[0]

        def theirs(torch, **held):
            return loop(torch, plain(layer), noise, held, held["x"])

        beside_torch(f"nn/recurrent_noise/{name}_{mode}", ours, {**arrays, "x": x}, theirs, dtype)


def test_units_are_kept_as_often_as_the_rate_says():
    """And exactly: 4000 draws of each of h and c, within five standard deviations."""
    layer = nn.Zoneout(LSTM, 0.3, 0.6)
    params, x = layer.init(KEY), jax.random.normal(KEY, (1000, 1, D_IN))
    start = jax.tree.map(lambda a: a + 0.5, layer.init_cache(1000, 1))
    _, after = jax.jit(layer.apply)(params, start, x, nn.training(KEY))
    for name, rate in (("h", 0.3), ("c", 0.6)):
        kept = np.mean(np.asarray(after[name]) == 0.5)
        assert abs(kept - rate) < 5 * np.sqrt(rate * (1 - rate) / 4000), name


def test_one_mask_for_all_times():
    """A unit of x that is dropped has no gradient at any time; others have it at all; sequences differ."""
    layer, x = nn.VariationalDropout(LSTM, input_rate=0.5), jax.random.normal(KEY, (64, TIME, D_IN))
    params = layer.init(KEY)
    grad = jax.jit(jax.grad(lambda x: layer.apply(params, None, x, nn.training(KEY))[0].sum()))(x)
    seen = np.asarray(grad != 0)
    assert np.array_equal(seen.any(1), seen.all(1))
    assert 0.3 < seen.mean() < 0.7
    assert len(np.unique(seen[:, 0], axis=0)) > 4


def test_off_is_the_layer_itself():
    """Bit for bit: rates of 0 in training, variational dropout in evaluation. Parameters are those of the layer."""
    x = jax.random.normal(KEY, (BATCH, TIME, D_IN))
    params = LSTM.init(KEY)
    want = LSTM.apply(params, None, x, nn.EVAL)[0]
    for layer, mode in [
        (nn.Zoneout(LSTM, 0.0), nn.training(KEY)),
        (nn.VariationalDropout(LSTM), nn.training(None)),
        (nn.VariationalDropout(LSTM, 0.5, 0.5), nn.EVAL),
    ]:
        assert not tree.diff(layer.init(KEY), params)
        np.testing.assert_array_equal(layer.apply(params, None, x, mode)[0], want)


def test_deep_and_in_both_directions():
    """Each layer and direction draws for itself; what stands in padding, NaN too, changes nothing."""
    model = nn.DeepRNN(nn.Zoneout(nn.VariationalDropout(LSTM, 0.3, 0.3), 0.2), 2, bidirectional=True)
    params, x = model.init(KEY), jax.random.normal(KEY, (BATCH, TIME, D_IN))
    assert params["layers"][1]["backward"]["input"]["w"].shape == (2 * D, 4 * D)
    there = (np.arange(TIME) < LENGTHS[:, None])[..., None]

    @jax.jit
    def run(x):
        def loss(params, x):
            y, carry = model.apply(
                params, model.init_cache(BATCH, TIME), x, nn.training(KEY), lengths=jnp.asarray(LENGTHS)
            )
            return jnp.sum(jnp.sin(y)), (y, carry)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    for a, b in zip(*(jax.tree.leaves(run(v)) for v in (x, jnp.where(there, x, jnp.nan))), strict=True):
        np.testing.assert_array_equal(a, b)
    one = nn.Bidirectional(nn.Zoneout(nn.RNN(D_IN, D), 0.5))
    held = one.init(KEY)
    same = {"forward": held["forward"], "backward": held["forward"]}
    y, _ = one.apply(same, None, jnp.ones((8, 1, D_IN)), nn.training(KEY))
    assert not np.array_equal(y[..., :D], y[..., D:])


def test_a_step_of_ones_own():
    """`functional.zoneout` in `scan_cell` is the layer in evaluation; its mean over keys is evaluation's."""
    layer = nn.Zoneout(nn.RNN(D_IN, D), 0.4)
    params, x = layer.init(KEY), jax.random.normal(KEY, (BATCH, TIME, D_IN))
    a = jnp.swapaxes(x @ params["input"]["w"], 0, 1) + params["input"]["b"][None, None]

    def step(h, a):
        h = functional.zoneout(None, functional.rnn_step(h, a, params["hidden"]["w"], params["hidden"]["b"]), h, 0.4)
        return h, h

    _, y = functional.scan_cell(step, jnp.zeros((BATCH, D)), a)
    np.testing.assert_allclose(layer.apply(params, None, x, nn.EVAL)[0], jnp.swapaxes(y, 0, 1), rtol=0, atol=1e-6)
    draws = jax.vmap(lambda key: functional.zoneout(key, jnp.ones(4), jnp.zeros(4), 0.4))(jax.random.split(KEY, 2000))
    np.testing.assert_allclose(draws.mean(), 0.6, atol=5 * np.sqrt(0.24 / 8000))


def test_errors(unchecked):
    for make in (lambda held: nn.Zoneout(held, 0.1), nn.VariationalDropout):
        for held in (nn.LRU(D, 3), nn.DeepRNN(LSTM, 2), nn.Linear(2, 3)):
            with pytest.raises(TypeError, match=r"wants an nn.RNN, nn.GRU or nn.LSTM, .*got .*stands inside"):
                make(held)
    with pytest.raises(ValueError, match="rate"):
        nn.Zoneout(LSTM, 1.5)
    with pytest.raises(ValueError, match=r"cell_rate in \[0, 1\], a probability, got -1"):
        nn.Zoneout(LSTM, 0.1, -1)
    with pytest.raises(ValueError, match="hidden_rate"):
        nn.VariationalDropout(LSTM, 0.1, 2.0)
    with pytest.raises(ValueError, match="zoneout"):
        nn.Zoneout(LSTM, 0.1).apply(LSTM.init(KEY), None, jnp.ones((1, 2, D_IN)), nn.training(None))
    with pytest.raises(ValueError, match="zoneout: rate is 2"):
        functional.zoneout(None, jnp.ones(2), jnp.ones(2), 2.0)
