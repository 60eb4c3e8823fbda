"""Depthwise convolution as a CPU computes it, beside XLA's own: values, derivatives of both orders, in parts."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from dlkit.functional.convolution import depthwise_cpu
from dlkit.functional.convolution.conv_cpu import convolve

# x, kernel and multiplier, strides, padding, dilations
CASES = {
    "one dimension": ((4, 13, 3), (4, 2), (1,), ((2, 1),), (1,)),
    "one dimension, strided": ((4, 17, 2), (3, 1), (2,), ((0, 2),), (2,)),
    "two dimensions": ((6, 5, 7, 3), (3, 3, 1), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "unlike axes": ((4, 9, 7, 2), (3, 2, 3), (1, 2), ((0, 2), (3, 0)), (2, 1)),
    "only padding": ((2, 2, 5, 2), (5, 3, 1), (1, 1), ((3, 3), (1, 1)), (1, 1)),
    "three dimensions": ((2, 5, 4, 6, 2), (3, 2, 3, 2), (1, 2, 1), ((1, 1), (0, 0), (1, 1)), (1, 1, 2)),
}


@pytest.fixture(params=["whole", "parts"])
def parts(request, monkeypatch):
    """With "parts", the sums of a few elements of a row at a time, which do not divide it."""
    if request.param == "parts":
        monkeypatch.setattr(depthwise_cpu, "_CACHE", 3 * 4 * 2 * 9 * 3)
    depthwise_cpu._kernel_term.clear_cache()
    yield
    depthwise_cpu._kernel_term.clear_cache()


def xla(x, w, strides, pads, dilations, groups):
    axes = {1: "W", 2: "HW", 3: "DHW"}[len(strides)]
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    return lax.conv_general_dilated(
        x, w, strides, pads, rhs_dilation=dilations, dimension_numbers=numbers, feature_group_count=groups
    )


def case(name, dtype="float32", seed=0):
    x, kernel, *how = CASES[name]
    rng = np.random.default_rng(seed)
    w = (*kernel[:-1], 1, x[-1] * kernel[-1])
    return jnp.asarray(rng.normal(size=x), dtype), jnp.asarray(rng.normal(size=w), dtype), (*how, x[-1])


def everything(conv, how, x, w, dx, dw):
    """The value; a cubic loss's gradient and its derivative along (dx, dw), forward over reverse; the tangent."""

    def f(x, w):
        return jnp.sum(conv(x, w, *how) ** 3) / 3

    gradient, second = jax.jvp(jax.grad(f, (0, 1)), (x, w), (dx, dw))
    return conv(x, w, *how), gradient, second, jax.jvp(lambda x, w: conv(x, w, *how), (x, w), (dx, dw))[1]


def assert_close(got, want, tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(abs(b).max()))


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_xla(name, x64):
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):  # sums of up to 100 products in another order
        x, w, how = case(name, dtype)
        dx, dw, _ = case(name, dtype, seed=1)
        got, want = (jax.jit(partial(everything, conv, how))(x, w, dx, dw) for conv in (convolve, xla))
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

    assert_close(jax.jit(partial(several, convolve))(), jax.jit(partial(several, xla))(), 1e-5)


def test_sums_are_in_float32():
    # In bfloat16 256 + 1 is 256: 600 ones sum to 600 only if the sum is wider.
    x, w = jnp.ones((1, 600, 2), jnp.bfloat16), jnp.ones((25, 1, 2), jnp.bfloat16)
    how = ((1,), ((12, 12),), (1,), 2)
    gradient = jax.jit(jax.grad(lambda w: convolve(x, w, *how).astype(jnp.float32).sum()))(w)
    assert gradient.dtype == convolve(x, w, *how).dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient[12, 0].astype(np.float32), [600, 600])


def step(x, w):
    how = CASES["two dimensions"][2:]
    return jax.grad(lambda x, w: jnp.sum(convolve(x, w, *how, 3) ** 2), (0, 1))(x, w)


def test_only_a_cpu_has_its_own():
    x, w, _ = case("two dimensions")
    text = {p: export.export(jax.jit(step), platforms=[p])(x, w).mlir_module() for p in ("cpu", "cuda", "tpu")}
    counts = {
        p: [len(re.findall(op, t)) for op in (r"stablehlo\.convolution", "stablehlo.while")] for p, t in text.items()
    }
    assert counts == {"cpu": [0, 1], "cuda": [3, 0], "tpu": [3, 0]}


def test_what_is_kept_for_the_backward_pass_is_x():
    """Not its windows, nine times as large."""
    x, w, how = case("two dimensions")
    _, pull = jax.vjp(lambda w: convolve(x, w, *how), w)
    kept = [leaf.size for leaf in jax.tree.leaves(pull) if hasattr(leaf, "size")]
    assert sum(kept) <= x.size + w.size
