"""What each relative of dropout draws and keeps: statistics in closed form, and torch's numbers where it has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import functional as F
from dlkit import nn
from dlkit.nn import EVAL, training

KEY = jax.random.key(0)
MODE = training(KEY)
ONES = jnp.ones((64, 6, 5, 8))


def trained(layer, x, key=KEY, params=None):
    return layer.apply({} if params is None else params, None, x, training(key))[0]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_alpha_dropout_has_torchs_numbers(rate):
    """A kept x becomes a x + b, a dropped one a constant: the same three numbers as torch's."""
    x = np.random.default_rng(0).standard_normal(4000).astype(np.float32)

    def numbers(y):
        dropped = _mode(y)
        kept = ~np.isclose(y, dropped, atol=1e-6)
        a, b = np.polyfit(x[kept].astype(np.float64), y[kept].astype(np.float64), 1)
        return {"numbers": np.array([a, b, dropped])}

    def compute():
        import torch

        torch.manual_seed(0)
        return numbers(torch.nn.functional.alpha_dropout(torch.tensor(x), rate, training=True).numpy())

    want = reference(f"nn/dropout_family/alpha_{rate}", compute)["numbers"]
    got = numbers(np.asarray(F.alpha_dropout(KEY, jnp.asarray(x), rate)))["numbers"]
    np.testing.assert_allclose(got, want, atol=1e-5)


def _mode(y):
    """The value that comes most often."""
    values, counts = np.unique(y, return_counts=True)
    return values[counts.argmax()]


def test_alpha_dropout_keeps_mean_and_variance():
    x = jax.random.normal(jax.random.key(1), (200_000,))
    for rate in (0.1, 0.5):
        y = F.alpha_dropout(KEY, x, rate)
        assert abs(y.mean()) < 0.01
        assert abs(y.var() - 1) < 0.02


@pytest.mark.parametrize(("layer", "kept"), [(nn.SpatialDropout(0.4), 1 / 0.6), (nn.FeatureAlphaDropout(0.4), None)])
def test_whole_channels_share_a_draw(layer, kept):
    y = np.asarray(trained(layer, ONES))
    assert (y == y[:, :1, :1]).all()
    seen = np.unique(y)
    assert len(seen) == 2
    dropped = (y[:, 0, 0] == seen.min()).mean()
    assert abs(dropped - 0.4) < 0.1  # 512 channels: five standard errors
    if kept is not None:
        np.testing.assert_allclose(seen, [0, kept], rtol=1e-6)


def test_spatial_dropout_of_sequences_and_volumes():
    for dims, shape in ((1, (32, 7, 8)), (3, (32, 2, 3, 2, 8))):
        y = np.asarray(trained(nn.SpatialDropout(0.5, dims=dims), jnp.ones(shape))).reshape(32, -1, 8)
        assert (y == y[:, :1]).all()
        assert len(np.unique(y)) == 2


def test_gaussian_dropout_and_noise_have_their_variance():
    x = 2 * jnp.ones(100_000)
    y = trained(nn.GaussianDropout(0.2), x)
    np.testing.assert_allclose([y.mean(), y.std()], [2.0, 2 * (0.2 / 0.8) ** 0.5], atol=0.02)
    y = trained(nn.GaussianNoise(0.3), x)
    np.testing.assert_allclose([y.mean(), y.std()], [2.0, 0.3], atol=0.01)


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
    x = jax.random.normal(jax.random.key(1), (2000, 3, 2)) + 3
    y = np.asarray(trained(nn.DropPath(0.3), x))
    ratio = y / np.asarray(x)
    gone = (y == 0).all((1, 2))
    np.testing.assert_allclose(ratio[~gone], 1 / 0.7, rtol=1e-5)
    assert (y[gone] == 0).all()
    assert abs(gone.mean() - 0.3) < 0.05
    assert len(np.unique(trained(nn.DropPath(0.5, batch_axes=0), jnp.ones((50, 2))))) == 1
    assert not np.any(trained(nn.DropPath(1.0), x))
    np.testing.assert_array_equal(nn.DropPath(0.3).apply({}, None, x, EVAL)[0], x)


def test_linear_rates():
    np.testing.assert_allclose(F.linear_rates(0.3, 4), [0, 0.1, 0.2, 0.3])
    assert F.linear_rates(0.3, 1) == (0.3,)
    for wrong in ((1.5, 3), (0.1, 0)):
        with pytest.raises(ValueError, match="linear_rates"):
            F.linear_rates(*wrong)


BLOCK = nn.Residual(nn.Chain(nn.Linear(4, 4), nn.Tanh()))


def test_a_stack_drops_paths_with_linear_rates_scanned_as_unrolled():
    stack = nn.Stack(BLOCK, 3, drop_path=0.6)
    params, x = stack.init(KEY), jax.random.normal(KEY, (512, 4))
    y = stack.apply(params, None, x, MODE)[0]
    loop = nn.Stack(BLOCK, 3, drop_path=0.6, scan=False).apply(params, None, x, MODE)[0]
    np.testing.assert_allclose(y, loop, atol=1e-6)
    # By hand, from the masks that the three blocks draw.
    h, rates = x, (0.0, 0.3, 0.6)
    for i, rate in enumerate(rates):
        f = BLOCK(jax.tree.map(lambda p: p[i], params), h) - h  # noqa: B023
        uniform = jax.random.uniform(MODE.at(i).rng("stack/drop_path"), (512, 1))
        h = h + jnp.where(uniform < 1 - rate, f / (1 - rate), 0.0)
        assert abs(float((uniform >= 1 - rate).mean()) - rate) < 0.1
    np.testing.assert_allclose(y, h, atol=1e-5)


def test_a_stack_that_drops_paths_is_the_plain_one_in_evaluation():
    params, x = nn.Stack(BLOCK, 3).init(KEY), jnp.ones((5, 4))
    stack = nn.Stack(BLOCK, 3, drop_path=0.6)
    np.testing.assert_array_equal(stack.apply(params, None, x, EVAL)[0], nn.Stack(BLOCK, 3)(params, x))
    assert not nn.is_pure(stack)
    with pytest.raises(TypeError, match="its drop_path"):
        stack(params, x)
    with pytest.raises(ValueError, match="rate is 2"):
        nn.Stack(BLOCK, 3, drop_path=2.0)


def test_drop_connect_drops_weights_for_the_whole_batch():
    layer = nn.DropConnect(nn.Linear(30, 20, bias=False), 0.25)
    params = layer.init(KEY)
    y = trained(layer, jnp.eye(30), params=params)  # rows of the weight in use
    ratio = np.asarray(y / params["layer"]["w"])
    np.testing.assert_allclose(ratio[ratio != 0], 1 / 0.75, rtol=1e-5)
    assert abs((ratio == 0).mean() - 0.25) < 0.08
    np.testing.assert_allclose(layer.apply(params, None, jnp.eye(30), EVAL)[0], params["layer"]["w"], atol=1e-6)


def test_drop_block_drops_squares():
    x = jnp.ones((3000, 6, 6, 1))
    y = np.asarray(trained(nn.DropBlock(0.15, block=3), x))[..., 0]
    gone = y == 0
    np.testing.assert_allclose(y.mean(), 1.0, atol=1e-4)
    # Every dropped position lies in some square of dropped ones.
    squares = np.lib.stride_tricks.sliding_window_view(gone, (3, 3), axis=(1, 2)).all((-1, -2))
    covered = np.zeros_like(gone)
    for i in range(3):
        for j in range(3):
            covered[:, i : i + 4, j : j + 4] |= squares
    assert (covered == gone).all()
    # P(a position is dropped) = 1 - (1 - gamma)^(squares that hold it), in closed form.
    gamma = 0.15 * 36 / (9 * 16)
    rows = np.minimum(np.minimum(np.arange(6) + 1, 3), 6 - np.arange(6))
    want = 1 - (1 - gamma) ** np.outer(rows, rows)
    np.testing.assert_allclose(gone.mean(0), want, atol=0.035)  # five standard errors of 3000 draws


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.SpatialDropout(1.2), r"SpatialDropout wants a rate in \[0, 1\]"),
        (lambda: nn.DropPath(-0.1), r"DropPath wants a rate"),
        (lambda: nn.GaussianDropout(1.0), r"rate in \[0, 1\)"),
        (lambda: nn.GaussianNoise(-1.0), "standard deviation"),
        (lambda: nn.SpatialDropout(0.5).apply({}, None, jnp.ones((3, 4)), MODE), "at least 3 axes"),
        (
            lambda: nn.DropBlock(0.5).apply({}, None, jnp.ones((1, 4, 4, 2)), MODE),
            "H and W of at least 7 because block=7",
        ),
        (lambda: F.drop_path(KEY, jnp.ones(3), 0.5, batch_axes=2), "batch_axes=2"),
        (lambda: F.alpha_dropout(KEY, jnp.ones(3), 0.5, broadcast_axes=(1,)), "broadcast_axes"),
        (lambda: nn.DropPath(0.5).apply({}, None, jnp.ones((3, 4)), training(None)), "needs a key"),
    ],
)
def test_what_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
