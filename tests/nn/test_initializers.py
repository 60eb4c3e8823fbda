"""Initializers: the distributions of torch and jax, fans that keep variances, values that compare and pickle."""

import math
import pickle

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from support.reference import reference

from dlkit import functional
from dlkit.nn import initializers as inits

KEY = jax.random.key(0)
DENSE, KERNEL = (256, 1024), (3, 3, 32, 256)
EVERY = [
    inits.Zeros(),
    inits.Ones(),
    inits.Constant(0.3),
    inits.Uniform(-0.2, 0.3),
    inits.Normal(0.02),
    inits.TruncatedNormal(0.02),
    inits.VarianceScaling(2.0, "fan_geo_avg", "uniform"),
    inits.xavier_normal(),
    inits.xavier_uniform(),
    inits.he_normal("fan_avg"),
    inits.he_uniform(),
    inits.lecun_normal(),
    inits.lecun_uniform(),
    inits.Orthogonal(),
    inits.Identity(),
    inits.Dirac(),
    inits.Sparse(0.5),
    inits.scaled_residual(12),
    inits.torch_weight(),
    inits.torch_bias(),
]


@pytest.fixture
def unchecked():
    """Without the types of signatures enforced, so that dlkit's own message is what is raised, as for a user."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def statistics(w):
    w = np.asarray(w, np.float64)
    return {"mean": w.mean(), "std": w.std(), "low": w.min(), "high": w.max()}


def assert_same_statistics(got, want, bounded, tolerance=0.02):
    """Within 2 % of the standard deviation (of the bounds, for distributions that have some).

    A sample of n = 2.6e5 has a standard error of 1/sqrt(n) = 0.2 % in the mean and less in the standard deviation.
    """
    unit = max(float(want["std"]), 1e-12)
    for name in ("mean", "std"):
        assert abs(got[name] - want[name]) <= tolerance * unit, (name, got, want)
    if bounded:
        for name in ("low", "high"):
            assert abs(got[name] - want[name]) <= tolerance * abs(want[name]) + 1e-12, (name, got, want)


# --- against torch ---------------------------------------------------------------------------------------------------

# name: ours, the function of torch.nn.init and its arguments, whether the distribution has bounds
TORCH = {
    "zeros": (inits.Zeros(), "zeros_", {}, True),
    "ones": (inits.Ones(), "ones_", {}, True),
    "constant": (inits.Constant(0.3), "constant_", {"val": 0.3}, True),
    "uniform": (inits.Uniform(-0.2, 0.3), "uniform_", {"a": -0.2, "b": 0.3}, True),
    "normal": (inits.Normal(0.02, mean=0.1), "normal_", {"mean": 0.1, "std": 0.02}, False),
    # torch's std is that before the tails are cut off, its bounds are absolute
    "trunc_normal": (
        inits.TruncatedNormal(0.02 * 0.87962566),
        "trunc_normal_",
        {"std": 0.02, "a": -0.04, "b": 0.04},
        True,
    ),
    "xavier_normal": (inits.xavier_normal(1.7, truncated=False), "xavier_normal_", {"gain": 1.7}, False),
    "xavier_uniform": (inits.xavier_uniform(1.7), "xavier_uniform_", {"gain": 1.7}, True),
    "he_normal": (inits.he_normal(truncated=False), "kaiming_normal_", {}, False),
    "he_normal_out": (
        inits.he_normal("fan_out", 0.2, truncated=False),
        "kaiming_normal_",
        {"mode": "fan_out", "a": 0.2},
        False,
    ),
    "he_uniform": (inits.he_uniform(negative_slope=0.2), "kaiming_uniform_", {"a": 0.2}, True),
    "he_uniform_out": (inits.he_uniform("fan_out"), "kaiming_uniform_", {"mode": "fan_out"}, True),
    "torch_weight": (inits.torch_weight(), "kaiming_uniform_", {"a": math.sqrt(5)}, True),
    "orthogonal": (inits.Orthogonal(2.0), "orthogonal_", {"gain": 2.0}, False),
}


@pytest.mark.parametrize("shape", [DENSE, KERNEL], ids=["dense", "kernel"])
@pytest.mark.parametrize("name", TORCH)
def test_the_distribution_is_torchs(name, shape):
    ours, theirs, arguments, bounded = TORCH[name]

    def compute():
        import torch

        torch.manual_seed(0)
        w = torch.empty(*shape[::-1])  # [out, in, *kernel]
        getattr(torch.nn.init, theirs)(w, **arguments)
        return statistics(w.numpy())

    got = statistics(ours(KEY, shape))
    assert_same_statistics(got, reference(f"nn/initializers/{name}_{len(shape)}", compute), bounded)


def test_sparse_is_torchs():
    def compute():
        import torch

        torch.manual_seed(0)
        w = torch.nn.init.sparse_(torch.empty(256, 1024), 0.3, 0.05).numpy()
        return {**statistics(w[w != 0]), "zeros": np.unique((w == 0).sum(0))}

    want = reference("nn/initializers/sparse", compute)
    w = np.asarray(inits.Sparse(0.3, 0.05)(KEY, DENSE))
    assert_same_statistics(statistics(w[w != 0]), want, bounded=False)
    assert np.array_equal(np.unique((w == 0).sum(0)), want["zeros"])
    assert len({tuple(column) for column in (w == 0).T}) == DENSE[1]  # each column has places of its own


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("kernel", [(3,), (5, 3), (3, 1, 3)], ids=str)
def test_dirac_is_torchs(kernel, groups):
    def compute():
        import torch

        w = torch.nn.init.dirac_(torch.empty(6, 4, *kernel), groups)
        return {"w": np.moveaxis(w.numpy(), (0, 1), (-1, -2)).astype(np.int8)}

    want = reference(f"nn/initializers/dirac_{'_'.join(map(str, kernel))}_{groups}", compute)["w"]
    np.testing.assert_array_equal(inits.Dirac(groups)(KEY, (*kernel, 4, 6)), want)


@pytest.mark.parametrize(("kernel", "groups"), [((3,), 1), ((4, 3), 1), ((2, 2), 3), ((2, 3, 1), 1)], ids=str)
def test_dirac_is_the_identity_of_a_same_convolution(kernel, groups):
    x = jax.random.normal(KEY, (2, *range(5, 5 + len(kernel)), 6))
    w = inits.Dirac(groups)(KEY, (*kernel, 6 // groups, 6))
    np.testing.assert_array_equal(functional.conv(x, w, groups=groups), x)


# --- against jax -----------------------------------------------------------------------------------------------------

J = jax.nn.initializers
JAX = {
    "xavier_normal": (inits.xavier_normal(), J.xavier_normal()),
    "xavier_uniform": (inits.xavier_uniform(), J.xavier_uniform()),
    "he_normal": (inits.he_normal(), J.he_normal()),
    "he_uniform": (inits.he_uniform(), J.he_uniform()),
    "lecun_normal": (inits.lecun_normal(), J.lecun_normal()),
    "lecun_uniform": (inits.lecun_uniform(), J.lecun_uniform()),
    "fan_out": (inits.he_normal("fan_out"), J.variance_scaling(2.0, "fan_out", "truncated_normal")),
    "fan_avg": (inits.VarianceScaling(1.5, "fan_avg", "normal"), J.variance_scaling(1.5, "fan_avg", "normal")),
    "geometric": (
        inits.VarianceScaling(1.5, "fan_geo_avg", "uniform"),
        J.variance_scaling(1.5, "fan_geo_avg", "uniform"),
    ),
    "normal": (inits.Normal(0.02), J.normal(0.02)),
    "orthogonal": (inits.Orthogonal(1.5), J.orthogonal(1.5)),
    # jax does not divide out what cutting the tails takes away
    "truncated": (inits.TruncatedNormal(0.02 * 0.87962566), J.truncated_normal(0.02)),
}


@pytest.mark.parametrize("shape", [(64, 128), (3, 3, 16, 32)], ids=["dense", "kernel"])
@pytest.mark.parametrize("name", JAX)
def test_the_draws_are_those_of_jax(name, shape):
    """Not only the distribution: the same key gives the same numbers, up to the rounding of one product (1e-6)."""
    ours, theirs = JAX[name]
    want = np.asarray(theirs(KEY, shape, jnp.float32))
    np.testing.assert_allclose(ours(KEY, shape), want, rtol=1e-6, atol=1e-6 * want.std())


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_aliases_are_the_same_recipes():
    assert inits.glorot_normal is inits.xavier_normal
    assert inits.glorot_uniform is inits.xavier_uniform
    assert inits.kaiming_normal is inits.he_normal
    assert inits.kaiming_uniform is inits.he_uniform
    assert inits.scaled_residual(12).std == 0.02 / math.sqrt(24)


@pytest.mark.parametrize(("low", "high"), [(-2.0, 2.0), (-1.0, 1.0), (-3.0, 0.5)])
def test_truncated_normal_has_the_std_that_it_says(low, high):
    from scipy.stats import truncnorm

    w = np.asarray(inits.TruncatedNormal(0.1, low, high)(KEY, (512, 512)), np.float64)
    scale = 0.1 / truncnorm.std(low, high)
    # 2.6e5 draws: the standard error of the standard deviation is about 0.15 %
    assert abs(w.std() - 0.1) < 0.001
    assert w.min() >= low * scale * (1 + 1e-6)
    assert w.max() <= high * scale * (1 + 1e-6)
    assert w.max() > 0.98 * high * scale


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 3, 2, 5), (3, 3, 2, 40)], ids=str)
def test_orthogonal(shape):
    w = np.asarray(inits.Orthogonal(2.0)(KEY, shape)).reshape(-1, shape[-1])
    gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=5e-6)


def test_identity_passes_the_features_that_fit():
    np.testing.assert_array_equal(inits.Identity(2.0)(KEY, (3, 5)), 2 * np.eye(3, 5))


def test_fans():
    assert inits.compute_fans((5, 7)) == (5, 7)
    assert inits.compute_fans((3, 3, 8, 16)) == (72, 144)
    assert inits.compute_fans((3, 3, 2, 16), groups=4) == (18, 36)
    assert inits.compute_fans((5, 1, 32), groups=32) == (5, 5)
    assert inits.compute_fans((3, 3, 16, 8), transposed=True) == (72, 144)
    assert inits.compute_fans((3, 3, 16, 8), stride=(2, 1)) == (144, 36)
    assert inits.compute_fans((3, 16, 8), transposed=True, stride=2) == (12, 48)


# --- variances: weights of variance 1 / fan keep that of a unit input, or of a unit gradient -------------------------

# kernel, c_in, c_out, groups, further arguments of the convolution: enough weights for a standard error below 2 %
CONVOLUTIONS = {
    "plain": ((3, 3), 64, 64, 1, {}),
    "one_dimension": ((7,), 64, 64, 1, {}),
    "grouped": ((3, 3), 128, 64, 4, {}),
    "depthwise": ((3, 3), 512, 512, 512, {}),
    "depthwise_multiplied": ((3, 3), 256, 512, 256, {}),
    "dilated": ((3, 3), 64, 64, 1, {"dilation": 2}),
    "strided": ((3, 3), 64, 64, 1, {"stride": 2}),
}
TRANSPOSED = {
    "plain": ((3, 3), 64, 64, 1, {}),
    "divisible": ((4, 4), 64, 64, 1, {"stride": 2}),
    "indivisible": ((3, 3), 64, 64, 1, {"stride": 2}),  # the mean over the four kinds of positions
    "grouped": ((4, 4), 128, 128, 4, {"stride": 2}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_keeps_the_variance(name):
    kernel, c_in, c_out, groups, rest = CONVOLUTIONS[name]
    shape = (*kernel, c_in // groups, c_out)
    fans = inits.compute_fans(shape, groups, stride=rest.get("stride", 1))
    # Only inputs so far from the border that every output they could reach exists have the full variance backward.
    margin = (kernel[0] - 1) * rest.get("dilation", 1)
    x = jax.random.normal(
        jax.random.key(1), (1024 // c_in if len(kernel) == 2 else 64, *(2 * margin + 4,) * len(kernel), c_in)
    )
    w_in = inits.lecun_normal()(KEY, shape, fans=fans)
    w_out = inits.VarianceScaling(1.0, "fan_out", "normal")(KEY, shape, fans=fans)

    @jax.jit
    def variances(x, w_in, w_out):
        def run(x, w):
            return functional.conv(x, w, groups=groups, padding="VALID", **rest)

        y, pullback = jax.vjp(lambda x: run(x, w_out), x)
        (dx,) = pullback(jax.random.normal(jax.random.key(2), y.shape))
        inside = dx[(slice(None), *(slice(margin, margin + 4),) * len(kernel))]
        return jnp.var(run(x, w_in)), jnp.var(inside)

    forward, backward = variances(x, w_in, w_out)
    assert abs(float(forward) - 1) < 0.05
    assert abs(float(backward) - 1) < 0.05


@pytest.mark.parametrize("name", TRANSPOSED)
def test_a_transposed_convolution_keeps_the_variance(name):
    kernel, c_in, c_out, groups, rest = TRANSPOSED[name]
    shape = (*kernel, c_out // groups, c_in)
    fans = inits.compute_fans(shape, groups, transposed=True, stride=rest.get("stride", 1))
    x = jax.random.normal(jax.random.key(1), (4, 12, 12, c_in))
    w = inits.lecun_normal()(KEY, shape, fans=fans)
    y = functional.conv_transpose(x, w, groups=groups, padding="VALID", **rest)[:, 4:-4, 4:-4]
    even = y.shape[1] // 2 * 2  # as many positions of each kind
    assert abs(float(jnp.var(y[:, :even, :even])) - 1) < 0.05


def test_layers_pass_their_fans():
    from dlkit import nn

    grouped = nn.Conv(64, 512, 3, groups=16, w_init=inits.he_uniform("fan_out"), b_init=inits.torch_bias())
    params = grouped.init(KEY)
    assert abs(float(jnp.abs(params["w"]).max()) / math.sqrt(6 / (9 * 512 / 16)) - 1) < 0.01
    assert abs(float(jnp.abs(params["b"]).max()) / math.sqrt(1 / (9 * 4)) - 1) < 0.01


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", EVERY, ids=lambda init: type(init).__name__)
def test_they_are_values_and_deterministic(init):
    shape, fans = (4, 6), (4, 6)
    twin = pickle.loads(pickle.dumps(init))  # noqa: S301  (our own bytes)
    assert twin == init
    assert hash(twin) == hash(init)
    assert repr(init).startswith(f"{type(init).__name__}(")
    again = eval(repr(init), vars(inits))  # noqa: S307  (our own text)
    assert again == init
    w = init(KEY, shape, fans=fans)
    assert w.shape == shape
    assert w.dtype == jnp.float32
    assert not w.weak_type
    np.testing.assert_array_equal(again(KEY, shape, fans=fans), w)
    np.testing.assert_array_equal(jax.jit(lambda k: init(k, shape, fans=fans))(KEY).shape, w.shape)
    np.testing.assert_array_equal(init(KEY, shape, jnp.bfloat16, fans), w.astype(jnp.bfloat16))  # rounded once


def test_float64_is_drawn_in_float64(x64):
    for init in EVERY:
        assert init(KEY, (4, 6), jnp.float64).dtype == jnp.float64
        assert init(KEY, (4, 6)).dtype == jnp.float32
    w = inits.Normal(1.0)(KEY, (64, 64), jnp.float64)
    assert not np.array_equal(w, np.asarray(w, np.float32))  # more digits than float32 has
    gram = inits.Orthogonal()(KEY, (6, 4), jnp.float64)
    np.testing.assert_allclose(gram.T @ gram, np.eye(4), atol=1e-12)


def test_keys_matter_and_are_used_once():
    with jax.debug_key_reuse(True):
        for init in EVERY[3:14]:
            assert not np.array_equal(init(jax.random.key(1), (4, 6)), init(jax.random.key(2), (4, 6)))


def test_what_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"a weight of shape \(3,\) has no fans.*for a bias pass fans"):
        inits.lecun_normal()(KEY, (3,))
    with pytest.raises(ValueError, match="groups=5 does not divide the last axis"):
        inits.compute_fans((3, 3, 2, 16), groups=5)
    with pytest.raises(ValueError, match="got mode='fan'; expected one of fan_in, fan_out"):
        inits.VarianceScaling(1.0, "fan")  # pyright: ignore
    with pytest.raises(ValueError, match="got distribution='gauss'; expected one of normal"):
        inits.VarianceScaling(1.0, "fan_in", "gauss")  # pyright: ignore
    with pytest.raises(ValueError, match="VarianceScaling wants scale >= 0, got -1"):
        inits.VarianceScaling(-1.0)
    with pytest.raises(ValueError, match="Normal wants std >= 0, got -1"):
        inits.Normal(-1.0)
    with pytest.raises(ValueError, match="low <= high, got low=1"):
        inits.Uniform(1.0, 0.0)
    with pytest.raises(ValueError, match="low < high"):
        inits.TruncatedNormal(1.0, 2.0, 2.0)
    with pytest.raises(ValueError, match=r"Orthogonal wants a weight \[..., d_in, d_out\], got shape \(3,\)"):
        inits.Orthogonal()(KEY, (3,))
    with pytest.raises(ValueError, match="for kernels use Dirac"):
        inits.Identity()(KEY, (3, 3, 4, 4))
    with pytest.raises(ValueError, match="groups=4 does not divide the 6 outputs"):
        inits.Dirac(4)(KEY, (3, 2, 6))
    with pytest.raises(ValueError, match="0 <= sparsity <= 1"):
        inits.Sparse(1.5)
    with pytest.raises(ValueError, match="Sparse wants a matrix"):
        inits.Sparse(0.5)(KEY, (3, 4, 5))
    with pytest.raises(ValueError, match="depth of at least 1, got 0"):
        inits.scaled_residual(0)
    with pytest.raises(TypeError, match="Initializer does not say what it draws"):
        inits.Initializer()(KEY, (3, 4))
