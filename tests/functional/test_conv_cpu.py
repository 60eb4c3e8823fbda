"""The derivatives of the convolution that a CPU computes fast, beside those that autodiff makes of XLA's own."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from dlkit.functional.convolution import conv_cpu
from dlkit.functional.convolution.conv_cpu import convolve

# x, kernel and c_out, strides, padding, dilations
CASES = {
    "rows": ((5, 8, 7, 4), (3, 3, 4), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "rows, unlike axes": ((4, 9, 7, 3), (3, 2, 2), (1, 2), ((0, 2), (3, 0)), (2, 1)),
    "rows that meet only padding": ((3, 2, 5, 4), (5, 3, 4), (1, 1), ((3, 3), (1, 1)), (1, 1)),
    "places, one channel": ((6, 8, 8, 1), (3, 3, 5), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "places, stride": ((5, 9, 8, 4), (3, 3, 4), (2, 2), ((1, 1), (0, 1)), (1, 1)),
    "places, dilation": ((4, 9, 9, 2), (3, 3, 6), (1, 1), ((2, 2), (2, 2)), (2, 2)),
    "one dimension": ((5, 11, 6), (4, 2), (1,), ((2, 1),), (1,)),
    "three dimensions": ((4, 5, 4, 6, 3), (3, 2, 3, 3), (1, 2, 1), ((1, 1), (0, 0), (1, 1)), (1, 1, 1)),
}


@pytest.fixture(autouse=True)
def two_examples_at_a_time(monkeypatch):
    monkeypatch.setattr(conv_cpu, "in_parts", lambda product, n, x, dw, true=conv_cpu.in_parts: true(product, 2, x, dw))
    conv_cpu._kernel_term.clear_cache()
    yield
    conv_cpu._kernel_term.clear_cache()


def xla(x, w, strides, pads, dilations):
    axes = {1: "W", 2: "HW", 3: "DHW"}[len(strides)]
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    return lax.conv_general_dilated(x, w, strides, pads, rhs_dilation=dilations, dimension_numbers=numbers)


def case(name, dtype="float32", seed=0):
    x, kernel, *how = CASES[name]
    rng = np.random.default_rng(seed)
    w = (*kernel[:-1], x[-1], kernel[-1])
    return jnp.asarray(rng.normal(size=x), dtype), jnp.asarray(rng.normal(size=w), dtype), how


def everything(conv, how, x, w, dx, dw):
    """The value; a cubic loss's gradient and its derivative along (dx, dw), forward over reverse; the tangent."""

    def f(x, w):
        return jnp.sum(conv(x, w, *how) ** 3) / 3

    gradient, second = jax.jvp(jax.grad(f, (0, 1)), (x, w), (dx, dw))
    return conv(x, w, *how), gradient, second, jax.jvp(lambda x, w: conv(x, w, *how), (x, w), (dx, dw))[1]


def assert_close(got, want, tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(abs(b).max()))


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_the_plain_convolution(name):
    x, w, how = case(name)
    dx, dw, _ = case(name, seed=1)
    # Sums of up to 100 products in another order: a few units in the last place of the largest.
    assert_close(
        jax.jit(partial(everything, convolve, how))(x, w, dx, dw),
        jax.jit(partial(everything, xla, how))(x, w, dx, dw),
        1e-5,
    )


@pytest.mark.parametrize("name", ["rows", "places, stride"])
def test_derivatives_in_float64(name, x64):
    x, w, how = case(name, "float64")
    dx, dw, _ = case(name, "float64", seed=1)
    assert_close(
        jax.jit(partial(everything, convolve, how))(x, w, dx, dw),
        jax.jit(partial(everything, xla, how))(x, w, dx, dw),
        1e-12,
    )


@pytest.mark.parametrize("name", ["rows", "places, stride"])
def test_reverse_over_reverse_reverse_over_forward_and_one_argument(name):
    x, w, how = case(name)
    dx, dw, _ = case(name, seed=1)

    def several(conv):
        def f(x, w):
            return jnp.sum(conv(x, w, *how) ** 3) / 3

        def reverse(x, w):
            return sum(jnp.vdot(a, b) for a, b in zip(jax.grad(f, (0, 1))(x, w), (dx, dw), strict=True))

        def forward(x, w):
            return jax.jvp(f, (x, w), (dx, dw))[1]

        second = jax.grad(reverse, (0, 1))(x, w), jax.grad(forward, (0, 1))(x, w)
        return second, jax.grad(f)(x, w), jax.grad(f, 1)(x, w)

    assert_close(jax.jit(partial(several, convolve))(), jax.jit(partial(several, xla))(), 1e-5)


def test_vmap_remat_scan_and_eager():
    x, w, how = case("rows")

    def gradient(conv, x, w):
        return jax.grad(lambda x, w: jnp.sum(jnp.sin(conv(x, w, *how))), (0, 1))(x, w)

    xs, ws = jnp.stack([x, -x, 2 * x]), jnp.stack([w, 2 * w, -w])
    want = jax.vmap(partial(gradient, xla))(xs, ws)
    assert_close(jax.jit(jax.vmap(partial(gradient, convolve)))(xs, ws), want, 1e-5)
    assert_close(jax.jit(lambda xs, ws: lax.map(lambda a: gradient(convolve, *a), (xs, ws)))(xs, ws), want, 1e-5)
    first = jax.tree.map(lambda a: a[0], want)
    assert_close(jax.jit(partial(gradient, jax.checkpoint(convolve, static_argnums=(2, 3, 4))))(x, w), first, 1e-5)
    assert_close(gradient(convolve, x, w), first, 1e-5)


def test_parts_are_summed_in_float32():
    # 1024 examples, two at a time, each with gradient 1: a sum in bfloat16 stops at 512, as 512 + 2 rounds to 512.
    x, w = jnp.ones((1024, 3, 1), jnp.bfloat16), jnp.ones((3, 1, 1), jnp.bfloat16)
    gradient = jax.jit(jax.grad(lambda w: convolve(x, w, (1,), ((0, 0),), (1,)).sum()))(w)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient.ravel().astype(np.float32), [1024, 1024, 1024])


def step(x, w):
    how = CASES["rows"][2:]
    return jax.grad(lambda x, w: jnp.sum(convolve(x, w, *how) ** 2), (0, 1))(x, w)


def test_on_a_cpu_xla_sees_its_own_order_of_axes_in_loops_too():
    x, w, _ = case("rows")
    text = jax.jit(lambda xs: lax.map(lambda x: step(x, w), xs)).lower(jnp.stack([x, x])).compile().as_text()
    assert set(re.findall(r"dim_labels=([\w>-]+)", text)) == {"b01f_01io->b01f"}


def test_elsewhere_the_convolution_is_xla_s():
    x, w, _ = case("rows")
    text = {p: export.export(jax.jit(step), platforms=[p])(x, w).mlir_module() for p in ("cpu", "cuda", "tpu")}
    counts = {
        p: [len(re.findall(op, t)) for op in (r"stablehlo\.convolution", "stablehlo.while")] for p, t in text.items()
    }
    assert counts == {"cpu": [2, 1], "cuda": [3, 0], "tpu": [3, 0]}


def test_what_is_left_to_xla(monkeypatch):
    x, w, how = case("rows")

    def parts(x, w, **kwargs):
        gradient = jax.grad(lambda w: convolve(x, w, *how, **kwargs).sum())
        return str(jax.make_jaxpr(gradient)(w)).count("platform_index")

    assert parts(x, w) == 1
    assert parts(x, w[:, :, :2], groups=2) == 0
    assert parts(x[:0], w) == 0
    monkeypatch.setattr(conv_cpu, "LARGEST", 8 * 7 * 24 * 4)  # the bytes of the windows of an example
    assert parts(x[:4], w) == 1
    monkeypatch.setattr(conv_cpu, "LARGEST", 8 * 7 * 24 * 4 - 1)
    assert parts(x[:3], w) == 0  # another batch: for the same one, the trace is remembered
