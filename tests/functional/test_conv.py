"""Convolutions beside torch, in values and in the gradients of x, w and b."""

import functools
import itertools
import math

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functional.cases import close, fingerprint, pairwise
from jax import lax
from support.reference import reference

from dlkit import functional as F

FACTORS = {
    "kernel": [1, 2, 3, 4, 5, 6, 7],
    "stride": [1, 2, 3],
    "dilation": [1, 2],
    "groups": [1, 2, 4],
    "padding": ["int", "each", "pairs"],
}
CASES = pairwise(FACTORS)
TRANSPOSED = pairwise({**FACTORS, "padding": ["none", "int", "each"], "output_padding": [0, 1]})
AXES = {1: "W", 2: "HW", 3: "DHW"}


def geometry(case, dims):
    """The case on the first axis; the other axes differ from it, and stay small."""
    k, s, d = case["kernel"], case["stride"], case["dilation"]
    kernel = (k, 1 + k % 3, 2)[:dims]
    stride = s if dims == 1 else (s, 1 + s % 2, 1)[:dims]
    dilation = d if dims < 3 else (d, 1, d)
    each = (0, 1, 1)[:dims]
    pairs = ((1, 2), (0, 1), (2, 0))[:dims]
    padding = {"none": 0, "int": 1, "each": each, "pairs": pairs}[case["padding"]]
    return kernel, stride, dilation, padding


def arrays(kernel, sizes, c_in, w_channels, c_out, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, *sizes, c_in))
    w = rng.standard_normal((*kernel, *w_channels)) / math.sqrt(math.prod(kernel) * c_in)
    return x, w, rng.standard_normal(c_out), rng


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(fn, x, w, b, cotangent):
    y, pull = jax.vjp(fn, x, w, b)
    return y, *pull(cotangent)


def compare(name, fn, torch_fn, x, w, b, y_shape, rng, dtypes):
    """`fn(x, w, b)` and the gradients of `sum(y * cotangent)`, channels last here and channels first in torch."""
    cotangent = rng.standard_normal(y_shape)

    def compute():
        import torch

        dims = x.ndim - 2
        last_to_first = (0, dims + 1, *range(1, dims + 1))
        w_to_torch = (dims + 1, dims, *range(dims))
        tx, tw, tb = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, w, b))
        y = torch_fn(torch, tx.permute(last_to_first), tw.permute(w_to_torch), tb).movedim(1, -1)
        y.backward(torch.tensor(cotangent))
        return {"all": fingerprint(y.detach(), tx.grad, tw.grad, tb.grad)}

    want = reference(f"functional/conv/{name}", compute)["all"]
    for dtype, tolerance in dtypes:
        got = value_and_gradients(fn, *(jnp.asarray(a, dtype) for a in (x, w, b, cotangent)))
        assert all(a.dtype == dtype for a in got)
        close(fingerprint(*got), want, tolerance)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("number", range(len(CASES)))
def test_conv_is_torch(number, dims):
    case = CASES[number]
    kernel, stride, dilation, padding = geometry(case, dims)
    groups, c_in, c_out = case["groups"], 4, 8
    spans = [
        (k - 1) * (d if dims < 3 or i != 1 else 1) + 1
        for i, (k, d) in enumerate(zip(kernel, [case["dilation"]] * dims, strict=True))
    ]
    sizes = [span + extra for span, extra in zip(spans, (4, 1, 1), strict=False)]
    x, w, b, rng = arrays(kernel, sizes, c_in, (c_in // groups, c_out), c_out, number)
    fn = functools.partial(F.conv, stride=stride, padding=padding, dilation=dilation, groups=groups)
    pairs = F.resolve_padding(padding, sizes, kernel, (1,) * dims, (1,) * dims)

    def torch_fn(torch, x, w, b):
        x = torch.nn.functional.pad(x, [n for pair in reversed(pairs) for n in pair])
        run = getattr(torch.nn.functional, f"conv{dims}d")
        return run(x, w, b, stride=stride, dilation=dilation, groups=groups)

    shape = jax.eval_shape(fn, x, w, b).shape
    # 1e-12: float64 rounding of sums of some hundred products; 1e-5 the same in float32, on every seventh.
    dtypes = [(jnp.float64, 1e-12), (jnp.float32, 1e-5)][: 1 + (number % 7 == 0)]
    compare(f"conv{dims}d_{number}", fn, torch_fn, x, w, b, shape, rng, dtypes)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("number", range(len(TRANSPOSED)))
def test_conv_transpose_is_torch(number, dims):
    case = TRANSPOSED[number]
    kernel, stride, dilation, padding = geometry(case, dims)
    groups, c_in, c_out = case["groups"], 4, 8
    # torch allows an output padding below the stride or the dilation of the axis only.
    strides, dilations = np.broadcast_to(stride, dims), np.broadcast_to(dilation, dims)
    output_padding = tuple(
        int(min(case["output_padding"], max(s, d) - 1)) for s, d in zip(strides, dilations, strict=True)
    )
    sizes = (5, 3, 3)[:dims]
    x, w, b, rng = arrays(kernel, sizes, c_in, (c_out // groups, c_in), c_out, number)
    how = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    fn = functools.partial(F.conv_transpose, groups=groups, **how)

    def torch_fn(torch, x, w, b):
        run = getattr(torch.nn.functional, f"conv_transpose{dims}d")
        return run(x, w, b, groups=groups, **how)

    shape = jax.eval_shape(fn, x, w, b).shape
    dtypes = [(jnp.float64, 1e-12), (jnp.float32, 1e-5)][: 1 + (number % 7 == 0)]
    compare(f"conv_transpose{dims}d_{number}", fn, torch_fn, x, w, b, shape, rng, dtypes)


def test_cases_reach_every_value():
    for name, values in FACTORS.items():
        assert {case[name] for case in CASES} == set(values)
    assert {case["output_padding"] for case in TRANSPOSED if case["stride"] > 1} == {0, 1}


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(
    ("dims", "kernel", "stride", "dilation"), [(1, 4, 3, 1), (2, 3, 2, 1), (2, 5, 1, 2), (3, 2, 2, 1), (2, 1, 2, 1)]
)
def test_same_is_that_of_xla(dims, kernel, stride, dilation):
    x, w = draw(2, *(8, 7, 6)[:dims], 3), draw(*(kernel,) * dims, 3, 4)
    numbers = (f"N{AXES[dims]}C", f"{AXES[dims]}IO", f"N{AXES[dims]}C")
    want = lax.conv_general_dilated(
        x, w, (stride,) * dims, "SAME", rhs_dilation=(dilation,) * dims, dimension_numbers=numbers
    )
    got = F.conv(x, w, stride=stride, padding="SAME", dilation=dilation)
    assert got.shape[1:-1] == tuple(-(-n // stride) for n in x.shape[1:-1])
    close(got, want, 1e-5)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_named_padding_is_that_of_flax(padding):
    x = draw(2, 9, 8, 4)
    layer = flax.linen.Conv(6, (3, 2), strides=(2, 1), padding=padding, feature_group_count=2)
    params = layer.init(jax.random.key(0), x)
    w, b = params["params"]["kernel"], params["params"]["bias"]
    close(F.conv(x, w, b, stride=(2, 1), padding=padding.lower(), groups=2), layer.apply(params, x), 1e-5)


def test_same_with_a_stride_is_not_torch_padding():
    x, w = draw(1, 8, 8, 1), draw(3, 3, 1, 1)
    assert float(jnp.abs(F.conv(x, w, stride=2) - F.conv(x, w, stride=2, padding=1)).max()) > 0.1


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (4, 2), (2, 3), (5, 1), (1, 1)])
def test_same_transposed_is_that_of_xla(kernel, stride):
    x, w = draw(2, 5, 4, 3), draw(kernel, kernel, 6, 3)
    want = lax.conv_transpose(
        x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), transpose_kernel=True
    )
    got = F.conv_transpose(x, w, stride=stride, padding="SAME")
    assert got.shape == (2, 5 * stride, 4 * stride, 6)
    close(got, want, 1e-5)


@pytest.mark.parametrize("padding", ["SAME", "VALID", 1, ((0, 1), (2, 1))])
def test_conv_transpose_is_the_adjoint_of_conv(padding):
    w, x = draw(3, 2, 2, 6, seed=1), draw(1, 8, 6, 4, seed=2)
    how = {"stride": (2, 1), "padding": padding, "groups": 2}
    y = F.conv(x, w, **how)
    cotangent = draw(*y.shape, seed=3)
    back = jax.linear_transpose(lambda x: F.conv(x, w, **how), x)(cotangent)[0]
    extra = x.shape[1] - F.conv_transpose(cotangent, w, **how).shape[1]
    got = F.conv_transpose(cotangent, w, **how, output_padding=(extra, 0))
    close(got, back, 1e-5)


def test_a_kernel_larger_than_the_input_of_a_strided_transposed_convolution():
    """As XLA's own operation, this shape ends the process (jaxlib 0.10.2: a failed check of its simplifier)."""
    x, w = draw(2, 4, 3, 4, seed=1), draw(7, 2, 8, 4, seed=2)
    fn = functools.partial(F.conv_transpose, stride=(1, 2), padding=1)
    full = np.zeros((2, 10, 6, 8), np.float32)
    for (i, j), (a, b) in itertools.product(np.ndindex(4, 3), np.ndindex(7, 2)):
        full[:, i + a, 2 * j + b] += np.asarray(x[:, i, j] @ w[a, b].T)
    want = full[:, 1:-1, 1:-1]
    close(fn(x, w), want, 1e-5)
    close(jax.vmap(fn, in_axes=(0, None))(x, w), want, 1e-5)
    y, pull = jax.vjp(fn, x, w)
    close(jnp.vdot(pull(y)[0], x), jnp.vdot(y, y), 1e-4)  # linear in each: <J'y, x> = <y, y>; sums of 10^3 squares
    close(jnp.vdot(pull(y)[1], w), jnp.vdot(y, y), 1e-4)


def test_leading_axes_are_free():
    w, x = draw(3, 3, 2, 4), draw(2, 3, 6, 5, 2)
    for fn, kernel in ((F.conv, w), (F.conv_transpose, w.swapaxes(-1, -2))):
        many = fn(x, kernel, stride=2)
        one = jnp.stack([jnp.stack([fn(image, kernel, stride=2) for image in row]) for row in x])
        close(many, one, 1e-6)
        close(jax.vmap(lambda x, fn=fn, kernel=kernel: fn(x, kernel, stride=2))(x), many, 1e-6)
    assert F.conv(jnp.zeros((0, 6, 5, 2)), w).shape == (0, 6, 5, 4)


def test_one_by_one_takes_any_stride_and_padding():
    x, w, b = draw(2, 5, 6, 3), draw(1, 1, 3, 4), draw(4)
    full = jnp.einsum("bhwi,io->bhwo", x, w[0, 0]) + b[None, None, None]
    close(F.conv(x, w, b, stride=(2, 3)), full[:, ::2, ::3], 1e-5)
    close(F.conv(x, w, b, padding=1)[:, 1:-1, 1:-1], full, 1e-5)
    close(F.conv(x, w, b, padding=1)[:, 0], jnp.broadcast_to(b, (2, 8, 4)), 1e-6)


def test_bfloat16_in_bfloat16_out():
    x, w, b = (a.astype(jnp.bfloat16) for a in (draw(1, 6, 6, 4), draw(3, 3, 2, 4), draw(4)))
    for fn in (F.conv, F.conv_transpose):
        y = fn(x, w, b, groups=2)
        assert y.dtype == jnp.bfloat16
        exact = fn(*(a.astype(jnp.float32) for a in (x, w, b)), groups=2)
        close(y, exact, 0.05)  # bfloat16 keeps 8 bits of sums of 18 products


def image(*channels):
    return jnp.zeros((2, 8, 8, *channels))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.conv(image(3), jnp.zeros((3, 3, 4, 8))), r"3 channels.*wants 4"),
        (lambda: F.conv(jnp.zeros((2, 4, 8, 9)), jnp.zeros((3, 3, 4, 8))), r"channels first.*moveaxis\(x, -3, -1\)"),
        (lambda: F.conv(image(4), jnp.zeros((3, 3, 4, 8)), groups=3), r"groups is 3.*divisor of the 8 output"),
        (lambda: F.conv(image(4), jnp.zeros((3, 3, 4, 8)), groups=2), r"groups=2 wants 8"),
        (lambda: F.conv(image(4), jnp.zeros((3, 3, 4, 8)), groups=0), r"groups is 0"),
        (lambda: F.conv(image(4), jnp.zeros((9, 3, 4, 8)), padding="VALID"), r"kernel \(9, 3\).*larger than"),
        (lambda: F.conv(image(4), jnp.zeros((5, 3, 4, 8)), padding=0, dilation=2), r"larger than the padded input"),
        (lambda: F.conv(image(4), jnp.zeros((3, 3, 4, 8)), padding="FULL"), r"padding is 'FULL'; want \"SAME\""),
        (lambda: F.conv(image(4), jnp.zeros((3, 3, 4, 8)), padding=-1), r"padding is -1"),
        (lambda: F.conv(image(4), jnp.zeros((3, 3, 4, 8)), padding=(1, 1, 1)), r"tuple of 2 ints"),
        (lambda: F.conv(image(4), jnp.zeros((3, 3, 4, 8)), stride=0), r"stride is 0"),
        (lambda: F.conv(image(4), jnp.zeros((3, 3, 4, 8)), dilation=(1, 2, 3)), r"dilation is \(1, 2, 3\)"),
        (lambda: F.conv(image(4), jnp.zeros((3, 3, 4, 8)), jnp.zeros(4)), r"b is \[4\].*want b \[8\]"),
        (lambda: F.conv(image(4), jnp.zeros((4, 8))), r"1, 2 or 3 kernel axes"),
        (lambda: F.conv(jnp.zeros((8, 4)), jnp.zeros((3, 3, 4, 8))), r"at least 3 axes"),
        (lambda: F.conv_transpose(image(3), jnp.zeros((3, 3, 8, 4))), r"3 channels.*wants 4"),
        (lambda: F.conv_transpose(image(4), jnp.zeros((3, 3, 8, 4)), groups=3), r"divisor of the 4 input"),
        (lambda: F.conv_transpose(image(4), jnp.zeros((3, 3, 8, 4)), stride=2, output_padding=2), r"less than"),
        (lambda: F.conv_transpose(image(4), jnp.zeros((1, 1, 8, 4)), padding=4), r"takes away all"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
