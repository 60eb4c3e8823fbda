"""Every activation beside torch: value and derivative at many points, at knots, and far out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functional.cases import close
from support.reference import reference

from dlkit import functional as F

# Ordinary points, the knots of the piecewise ones, and points where exp overflows or underflows.
POINTS = np.concatenate(
    [
        np.linspace(-7, 7, 41),
        [-6.0, -3.0, -2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 6.0, 20.0, 19.5, 1e-3, -1e-3],
        [-1e4, -1000.0, -104.0, -50.0, -20.0, 50.0, 104.0, 1000.0, 1e4],
    ]
)

# ours, and torch.nn.functional's as a function of (torch.nn.functional, x)
POINTWISE = {
    "sigmoid": (F.sigmoid, lambda nn, x: nn.sigmoid(x)),
    "tanh": (F.tanh, lambda nn, x: nn.tanh(x)),
    "relu": (F.relu, lambda nn, x: nn.relu(x)),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.1), lambda nn, x: nn.leaky_relu(x, 0.1)),
    "elu": (F.elu, lambda nn, x: nn.elu(x)),
    "elu_alpha": (lambda x: F.elu(x, 0.7), lambda nn, x: nn.elu(x, 0.7)),
    "selu": (F.selu, lambda nn, x: nn.selu(x)),
    "celu": (lambda x: F.celu(x, 2.0), lambda nn, x: nn.celu(x, 2.0)),
    "gelu": (F.gelu, lambda nn, x: nn.gelu(x)),
    "gelu_tanh": (lambda x: F.gelu(x, approximate=True), lambda nn, x: nn.gelu(x, approximate="tanh")),
    "silu": (F.silu, lambda nn, x: nn.silu(x)),
    "swish": (lambda x: F.swish(x, 1.5), lambda nn, x: x * nn.sigmoid(1.5 * x)),
    "mish": (F.mish, lambda nn, x: nn.mish(x)),
    "softplus": (F.softplus, lambda nn, x: nn.softplus(x)),
    "softplus_beta": (lambda x: F.softplus(x, 2.0, 5.0), lambda nn, x: nn.softplus(x, 2.0, 5.0)),
    "softsign": (F.softsign, lambda nn, x: nn.softsign(x)),
    "log_sigmoid": (F.log_sigmoid, lambda nn, x: nn.logsigmoid(x)),
    "relu6": (F.relu6, lambda nn, x: nn.relu6(x)),
    "hard_sigmoid": (F.hard_sigmoid, lambda nn, x: nn.relu6(x + 3) / 6),  # hardsigmoid differentiates to a float32 1/6
    "hard_swish": (F.hard_swish, lambda nn, x: nn.hardswish(x)),
    "hard_tanh": (lambda x: F.hard_tanh(x, -1.0, 2.0), lambda nn, x: nn.hardtanh(x, -1.0, 2.0)),
    "hard_shrink": (F.hard_shrink, lambda nn, x: nn.hardshrink(x)),
    "soft_shrink": (F.soft_shrink, lambda nn, x: nn.softshrink(x)),
    "tanh_shrink": (F.tanh_shrink, lambda nn, x: nn.tanhshrink(x)),
    "threshold": (lambda x: F.threshold(x, 0.5, -2.0), lambda nn, x: nn.threshold(x, 0.5, -2.0)),
    # no such function in torch: the definition, which is exact enough away from cancellation in float64
    "squareplus": (F.squareplus, None),
    "identity": (F.identity, lambda nn, x: x * 1),
}

# [4, 6] to something, with a cotangent
MIXING = {
    "softmax": (F.softmax, lambda nn, x: nn.softmax(x, -1)),
    "softmax_0": (lambda x: F.softmax(x, 0), lambda nn, x: nn.softmax(x, 0)),
    "log_softmax": (F.log_softmax, lambda nn, x: nn.log_softmax(x, -1)),
    "softmin": (F.softmin, lambda nn, x: nn.softmin(x, -1)),
    "logsumexp": (F.logsumexp, lambda nn, x: x.logsumexp(-1)),
    "logsumexp_keep": (lambda x: F.logsumexp(x, 0, keepdims=True), lambda nn, x: x.logsumexp(0, keepdim=True)),
    "glu": (F.glu, lambda nn, x: nn.glu(x, -1)),
    "glu_0": (lambda x: F.glu(x, 0), lambda nn, x: nn.glu(x, 0)),
    "reglu": (F.reglu, lambda nn, x: x[:, :3] * nn.relu(x[:, 3:])),
    "geglu": (F.geglu, lambda nn, x: x[:, :3] * nn.gelu(x[:, 3:])),
    "swiglu": (F.swiglu, lambda nn, x: x[:, :3] * nn.silu(x[:, 3:])),
    "maxout": (lambda x: F.maxout(x, 3), lambda nn, x: x.reshape(4, 2, 3).max(-1).values),
    "crelu": (F.crelu, lambda nn, x: nn.relu(x.new_tensor([1.0, -1.0])[:, None] * x[:, None]).reshape(4, 12)),
}


@functools.partial(jax.jit, static_argnums=0)
def value_and_derivative(fn, x, cotangent):
    y, pull = jax.vjp(fn, x)
    return y, *pull(cotangent)


def beside_torch(name, fn, torch_fn, x, cotangent):
    def compute():
        import torch

        tx = torch.tensor(x, requires_grad=True)
        y = torch_fn(torch.nn.functional, tx)
        y.backward(torch.tensor(cotangent))
        return {"y": y.detach().numpy(), "dx": tx.grad.numpy()}

    want = reference(f"functional/activations/{name}", compute)
    for dtype, tolerance in ((jnp.float64, 1e-12), (jnp.float32, 1e-5)):
        got = value_and_derivative(fn, jnp.asarray(x, dtype), jnp.asarray(cotangent, dtype))
        assert all(a.dtype == dtype for a in got)
        close(got[0], want["y"], tolerance)
        close(got[1], want["dx"], tolerance)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [name for name, (_, torch_fn) in POINTWISE.items() if torch_fn])
def test_pointwise_is_torch(name):
    fn, torch_fn = POINTWISE[name]
    beside_torch(name, fn, torch_fn, POINTS, np.ones_like(POINTS))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MIXING)
def test_mixing_is_torch(name):
    fn, torch_fn = MIXING[name]
    x = np.random.default_rng(0).standard_normal((4, 6)) * 3
    if name == "maxout":
        x = np.round(x / 3)  # ties: the derivative goes to the first
    cotangent = np.random.default_rng(1).standard_normal(jax.eval_shape(fn, x).shape)
    beside_torch(name, fn, torch_fn, x, cotangent)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_prelu_is_torch(channels):
    x = np.random.default_rng(0).standard_normal((4, 5, 3))
    x[0, 0] = 0
    slope = np.array([0.1, 0.25, 0.5][: channels or 1])
    cotangent = np.random.default_rng(1).standard_normal(x.shape)

    def compute():
        import torch

        tx, ts = torch.tensor(x, requires_grad=True), torch.tensor(slope, requires_grad=True)
        y = torch.nn.functional.prelu(tx.movedim(-1, 1), ts).movedim(1, -1)
        y.backward(torch.tensor(cotangent))
        return {"y": y.detach().numpy(), "dx": tx.grad.numpy(), "ds": ts.grad.numpy()}

    want = reference(f"functional/activations/prelu_{channels}", compute)
    ours = jnp.asarray(slope if channels else slope[0])
    y, pull = jax.vjp(F.prelu, jnp.asarray(x), ours)
    dx, ds = pull(jnp.asarray(cotangent))
    for got, expected in ((y, want["y"]), (dx, want["dx"]), (ds.reshape(-1), want["ds"])):
        close(got, expected, 1e-12)


@pytest.mark.usefixtures("x64")
def test_squareplus_is_its_definition():
    x = np.linspace(-7, 7, 29)
    root = np.sqrt(x**2 + 4)
    y, dx = value_and_derivative(F.squareplus, jnp.asarray(x), jnp.ones(29))
    close(y, (x + root) / 2, 1e-12)
    close(dx, (1 + x / root) / 2, 1e-12)
    assert float(F.squareplus(jnp.float32(-1e4))) == pytest.approx(1e-4, rel=1e-5)  # no cancellation


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_finite_far_out_and_the_dtype_stays(dtype):
    x = jnp.asarray([-1e4, -300.0, -88.0, -12.0, 0.0, 12.0, 88.0, 300.0, 1e4], dtype)

    @jax.jit
    def everything(x):
        return {name: (*jax.vjp(fn, x)[1](jnp.ones_like(x)), fn(x)) for name, (fn, _) in POINTWISE.items()}

    for name, (dx, y) in everything(x).items():
        assert y.dtype == dx.dtype == dtype, name
        assert np.isfinite(np.asarray(y, np.float32)).all(), (name, y)
        assert np.isfinite(np.asarray(dx, np.float32)).all(), (name, dx)

    @jax.jit
    def mixed(rows):
        functions = {**{name: fn for name, (fn, _) in MIXING.items()}, "sparsemax": F.sparsemax}
        return {name: (fn(rows), jax.grad(lambda r, fn=fn: fn(r).sum())(rows)) for name, fn in functions.items()}

    rows = jnp.asarray(np.random.default_rng(0).choice([-100.0, 0.0, 100.0], (4, 6)), dtype)
    for name, (y, dx) in mixed(rows).items():
        assert y.dtype == dx.dtype == dtype, name
        assert np.isfinite(np.asarray(y, np.float32)).all(), name
        assert np.isfinite(np.asarray(dx, np.float32)).all(), name


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axis", [-1, 0])
def test_sparsemax_is_the_projection_on_the_simplex(axis):
    x = np.random.default_rng(0).standard_normal((5, 7))
    x[0] = 1.0  # ties: uniform
    p = np.asarray(jax.jit(F.sparsemax, static_argnums=1)(jnp.asarray(x if axis == -1 else x.T), axis))
    p = p if axis == -1 else p.T
    # The conditions that characterize the projection: on the simplex, x - p is constant on the support.
    close(p.sum(-1), 1, 1e-12)
    assert (p >= 0).all()
    assert ((p == 0).sum(-1) > 0).any()
    for row, q in zip(x, p, strict=True):
        tau = (row - q)[q > 0]
        close(tau, tau[0], 1e-12)
        assert (row[q == 0] <= tau[0] + 1e-12).all()
    shifted = jax.jit(F.sparsemax)(jnp.asarray(x[1:] + 1e4))
    close(shifted, p[1:], 1e-11)  # float64 holds x + 1e4 to 1e-12
    # The derivative on the support is the projection that takes out the mean.
    jacobian = jax.jit(jax.jacobian(F.sparsemax))(jnp.asarray(x[1]))
    support = p[1] > 0
    want = np.diag(support * 1.0) - np.outer(support, support) / support.sum()
    close(jacobian, want, 1e-12)


def test_gumbel_softmax():
    x = jnp.log(jnp.array([0.1, 0.2, 0.7]))
    rows = jnp.broadcast_to(x[None], (4000, 3))
    key = jax.random.key(0)
    draw = jax.jit(F.gumbel_softmax, static_argnums=2, static_argnames="hard")
    hard = draw(key, rows, 0.5, hard=True)
    soft = draw(key, rows, 0.5)
    assert set(np.unique(hard)) == {0.0, 1.0}
    np.testing.assert_array_equal(hard.sum(-1), 1)
    np.testing.assert_array_equal(hard.argmax(-1), soft.argmax(-1))
    p = np.array([0.1, 0.2, 0.7])
    assert (np.abs(hard.mean(0) - p) < 3 * np.sqrt(p * (1 - p) / 4000)).all()
    weights = jnp.array([[1.0, 2.0, 4.0]])
    gradients = [
        jax.grad(lambda r, hard=hard: (weights * draw(key, r, 0.5, hard=hard)).sum())(rows[:8])
        for hard in (True, False)
    ]
    close(gradients[0], gradients[1], 1e-6)
    with pytest.raises(ValueError, match="tau is 0"):
        F.gumbel_softmax(key, x, 0.0)


def test_same_name_different_number():
    x = jnp.linspace(-3, 3, 13)
    assert float(jnp.abs(F.gelu(x) - jax.nn.gelu(x)).max()) > 1e-4  # jax.nn defaults to tanh
    close(F.gelu(x, approximate=True), jax.nn.gelu(x), 1e-6)
    with pytest.raises(TypeError, match="negative_slope"):
        F.leaky_relu(x)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.glu(x), r"glu: x is \[4, 5\].*even size"),
        (lambda x: F.swiglu(x, 2), r"swiglu: .*axis 2"),
        (lambda x: F.maxout(x, 2), r"pieces=2"),
        (lambda x: F.prelu(x, jnp.ones(4)), r"slope is \[4\].*one number or \[5\]"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((4, 5)))
