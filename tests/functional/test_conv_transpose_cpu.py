"""The derivatives of the transposed convolution that a CPU computes fast, beside those that autodiff makes of XLA's."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from dlkit.functional.convolution import conv_cpu, conv_transpose_cpu
from dlkit.functional.convolution.conv_transpose_cpu import convolve_transposed

# x, kernel and c_out, strides, ends, dilations
CASES = {
    "two dimensions": ((5, 4, 3, 4), (4, 4, 3), (2, 2), ((2, 2), (2, 2)), (1, 1)),
    "unlike axes": ((4, 5, 4, 3), (3, 2, 2), (1, 3), ((2, 4), (1, 2)), (2, 1)),
    "cut": ((3, 6, 5, 2), (5, 1, 4), (2, 1), ((0, 1), (-1, -2)), (1, 1)),
    "one dimension": ((5, 7, 6), (5, 2), (3,), ((2, 3),), (1,)),
    "three dimensions": ((4, 3, 2, 3, 3), (3, 2, 3, 2), (1, 2, 2), ((1, 1), (1, 0), (2, 1)), (1, 1, 1)),
}


@pytest.fixture(autouse=True)
def two_examples_at_a_time(monkeypatch):
    true = conv_cpu.in_parts
    monkeypatch.setattr(conv_cpu, "in_parts", lambda product, n, x, dw: true(product, 2, x, dw))
    conv_transpose_cpu._kernel_term.clear_cache()
    yield
    conv_transpose_cpu._kernel_term.clear_cache()


def xla(x, w, strides, ends, dilations):
    dims = len(strides)
    axes = {1: "W", 2: "HW", 3: "DHW"}[dims]
    numbers = (f"N{axes}C", f"{axes}OI", f"N{axes}C")
    return lax.conv_general_dilated(
        x,
        jnp.flip(w, range(dims)),
        (1,) * dims,
        ends,
        lhs_dilation=strides,
        rhs_dilation=dilations,
        dimension_numbers=numbers,
    )


def case(name, dtype="float32", seed=0):
    x, kernel, *how = CASES[name]
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=x), dtype), jnp.asarray(rng.normal(size=(*kernel, x[-1])), dtype), how


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
def test_derivatives_are_those_of_xla(name, x64):
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):  # sums of up to 100 products in another order
        x, w, how = case(name, dtype)
        dx, dw, _ = case(name, dtype, seed=1)
        got, want = (jax.jit(partial(everything, conv, how))(x, w, dx, dw) for conv in (convolve_transposed, xla))
        assert_close(got, want, tolerance)


def test_reverse_over_reverse_vmap_map_and_remat():
    x, w, how = case("two dimensions")
    dx, dw, _ = case("two dimensions", seed=1)

    def several(conv):
        def f(x, w):
            return jnp.sum(jnp.sin(conv(x, w, *how)))

        def reverse(x, w):
            return sum(jnp.vdot(a, b) for a, b in zip(jax.grad(f, (0, 1))(x, w), (dx, dw), strict=True))

        xs, ws = jnp.stack([x, 2 * x]), jnp.stack([w, -w])
        each = jax.vmap(jax.grad(f, (0, 1)))(xs, ws), lax.map(lambda a: jax.grad(f, (0, 1))(*a), (xs, ws))
        return jax.grad(reverse, (0, 1))(x, w), each, jax.grad(jax.checkpoint(f), 1)(x, w)

    assert_close(jax.jit(partial(several, convolve_transposed))(), jax.jit(partial(several, xla))(), 1e-5)


def step(x, w):
    how = CASES["two dimensions"][2:]
    return jax.grad(lambda x, w: jnp.sum(convolve_transposed(x, w, *how) ** 2), (0, 1))(x, w)


def test_on_a_cpu_xla_sees_its_own_order_of_axes_in_loops_too():
    _, w, _ = case("two dimensions")
    x = jnp.ones((2, 9, 8, 4))  # where the kernel is larger than the image, XLA exchanges the two
    text = jax.jit(lambda xs: lax.map(lambda x: step(x, w), xs)).lower(jnp.stack([x, x])).compile().as_text()
    assert set(re.findall(r"dim_labels=([\w>-]+)", text)) == {"b01f_01io->b01f"}


def test_only_a_cpu_has_its_own():
    x, w, _ = case("two dimensions")
    text = {p: export.export(jax.jit(step), platforms=[p])(x, w).mlir_module() for p in ("cpu", "cuda", "tpu")}
    counts = {
        p: [len(re.findall(op, t)) for op in (r"stablehlo\.convolution", "stablehlo.while")] for p, t in text.items()
    }
    assert counts == {"cpu": [2, 1], "cuda": [3, 0], "tpu": [3, 0]}
