"""Pooling beside torch, ties and borders included, and beside lax.reduce_window where torch has no such padding."""

import functools

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functional.cases import close, fingerprint
from jax import lax
from support.reference import reference

from dlkit import functional as F

# (dims, window, stride, padding): both formulations (up to 9 places, and more), overlapping or not, padded or not.
CASES = [
    (1, 2, 2, 0),
    (1, 5, 2, 2),
    (1, 3, 1, 1),
    (2, 2, 2, 0),
    (2, 3, 2, 1),
    (2, 5, 2, 2),
    (2, (4, 3), (1, 3), (2, 0)),
    (3, 2, 2, 0),
    (3, 3, 2, 1),
    (3, (1, 2, 3), (2, 1, 2), (0, 1, 1)),
]
SIZES = (9, 8, 7)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(fn, x, cotangent):
    y, pull = jax.vjp(fn, x)
    return y, *pull(cotangent)


def beside_torch(name, fn, torch_name, x, **kwargs):
    """`kwargs` are torch's own arguments; the cotangent is drawn."""
    cotangent = np.random.default_rng(9).standard_normal(jax.eval_shape(fn, x).shape)

    def compute():
        import torch

        tx = torch.tensor(x, requires_grad=True)
        y = getattr(torch.nn.functional, torch_name)(tx.movedim(-1, 1), **kwargs).movedim(1, -1)
        y.backward(torch.tensor(cotangent).reshape(y.shape))
        return {"all": fingerprint(y.detach(), tx.grad)}

    want = reference(f"functional/pooling/{name}", compute)["all"]
    close(fingerprint(*value_and_gradient(fn, jnp.asarray(x), jnp.asarray(cotangent))), want, 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("number", range(len(CASES)))
def test_max_pool_is_torch(number, ties):
    dims, window, stride, padding = CASES[number]
    rng = np.random.default_rng(number)
    shape = (2, *SIZES[:dims], 3)
    x = rng.integers(0, 3, shape).astype(np.float64) if ties else rng.standard_normal(shape)
    fn = functools.partial(F.max_pool, window=window, stride=stride, padding=padding)
    name = f"max{dims}d_{number}{'_ties' * ties}"
    beside_torch(name, fn, f"max_pool{dims}d", x, kernel_size=window, stride=stride, padding=padding)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("count", [True, False])
@pytest.mark.parametrize("number", range(len(CASES)))
def test_avg_pool_is_torch(number, count):
    dims, window, stride, padding = CASES[number]
    x = np.random.default_rng(number).standard_normal((2, *SIZES[:dims], 3))
    fn = functools.partial(F.avg_pool, window=window, stride=stride, padding=padding, count_include_pad=count)
    how = {"kernel_size": window, "stride": stride, "padding": padding, "count_include_pad": count}
    beside_torch(f"avg{dims}d_{number}_{count}", fn, f"avg_pool{dims}d", x, **how)


# (dims, window, stride, padding): a last window that hangs over, one that would start behind x, and none.
CEIL = [(1, 2, 2, 0), (1, 3, 3, 1), (2, 3, 2, 1), (2, (4, 2), (3, 4), (1, 0)), (3, 3, 2, (1, 0, 1)), (1, 10, 2, 0)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("number", range(len(CEIL)))
def test_ceil_mode_is_torch(number):
    dims, window, stride, padding = CEIL[number]
    x = np.random.default_rng(number).standard_normal((2, *SIZES[:dims], 2))
    how = {"stride": stride, "padding": padding, "ceil_mode": True}
    for kind, more in (("max", {}), ("avg", {"count_include_pad": True}), ("avg", {"count_include_pad": False})):
        fn = functools.partial(getattr(F, f"{kind}_pool"), window=window, **how, **more)
        name = f"ceil_{kind}{dims}d_{number}_{more.get('count_include_pad')}"
        beside_torch(name, fn, f"{kind}_pool{dims}d", x, kernel_size=window, **how, **more)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_global_pools_are_torch(dims):
    rng = np.random.default_rng(dims)
    shape = (2, *SIZES[:dims], 3)
    for kind, fn in (("avg", F.global_avg_pool), ("max", F.global_max_pool)):
        x = rng.integers(0, 4, shape).astype(np.float64)  # so that the maximum ties
        beside_torch(f"global_{kind}{dims}d", fn, f"adaptive_{kind}_pool{dims}d", x, output_size=1)


def draw(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, "SAME"), (4, 3, "SAME"), (3, 1, ((0, 2), (1, 0)))])
def test_named_and_uneven_padding_is_that_of_xla(window, stride, padding):
    x = draw(2, 8, 7, 3)
    pads = padding if padding == "SAME" else ((0, 0), *padding, (0, 0))
    args = ((1, window, window, 1), (1, stride, stride, 1), pads)
    close(F.max_pool(x, window, stride, padding), lax.reduce_window(x, -jnp.inf, lax.max, *args), 1e-6)
    total = lax.reduce_window(x, 0.0, lax.add, *args)
    count = lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, *args)
    close(F.avg_pool(x, window, stride, padding), total / window**2, 1e-6)
    close(F.avg_pool(x, window, stride, padding, count_include_pad=False), total / count, 1e-6)


@pytest.mark.parametrize("count", [True, False])
def test_average_at_the_border_is_that_of_flax(count):
    x = jnp.ones((1, 3, 3, 1))
    got = F.avg_pool(x, 3, 1, "SAME", count_include_pad=count)
    with jax.numpy_dtype_promotion("standard"):  # flax divides by an integer array
        want = flax.linen.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=count)
    close(got, want, 1e-6)
    close(got[0, 0, 0, 0], 1.0 if not count else 4 / 9, 1e-6)


def test_ties_go_to_the_first():
    for window in (2, 4):  # 4 takes the axis-by-axis formulation
        total = jax.jit(jax.grad(lambda x, window=window: F.max_pool(x, window).sum()))
        gradient = total(jnp.ones((1, window, window, 1)))
        expected = np.zeros((window, window))
        expected[0, 0] = 1
        np.testing.assert_array_equal(gradient[0, :, :, 0], expected)


def test_nan_and_infinity_are_seen():
    x = draw(1, 4, 4, 1).at[0, 0, 1, 0].set(jnp.nan).at[0, 2:, 2:].set(-jnp.inf)
    for window in ((2, 2), (4, 4)):
        assert bool(jnp.isnan(F.max_pool(x, window)[0, 0, 0, 0]))
    assert F.max_pool(x, 2)[0, 1, 1, 0] == -jnp.inf
    assert bool(jnp.isnan(F.global_max_pool(x)).all())


def test_leading_axes_are_free():
    x = draw(2, 3, 6, 6, 2)
    for fn in (F.max_pool, F.avg_pool):
        each = jnp.stack([jax.jit(fn, static_argnums=1)(row, 2) for row in x])
        close(fn(x, (2, 2)), each, 1e-6)
        close(fn(x, 2, dims=2), each, 1e-6)
        close(fn(x[0, 0], (2, 2)), each[0, 0], 1e-6)
        close(jax.vmap(lambda x, fn=fn: fn(x, 2))(x), each, 1e-6)
    close(F.global_avg_pool(x, dims=2), x.mean((2, 3)), 1e-6)
    close(F.global_max_pool(x, dims=2), x.max((2, 3)), 0)


def test_bfloat16_in_bfloat16_out():
    x = (draw(1, 32, 32, 1) + 3).astype(jnp.bfloat16)
    wide = x.astype(jnp.float32)
    for fn in (lambda x: F.max_pool(x, 2), lambda x: F.avg_pool(x, 16), F.global_avg_pool, F.global_max_pool):
        y = jax.jit(fn)(x)
        assert y.dtype == jnp.bfloat16
        # Exactly the float32 result, rounded once: a sum of 256 numbers in bfloat16 would be far off.
        np.testing.assert_array_equal(y, jax.jit(fn)(wide).astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.max_pool(x, 9), r"window \(9, 9\) is larger"),
        (lambda x: F.max_pool(x, 3, padding=3), r"padding .* is not smaller than the window"),
        (lambda x: F.avg_pool(x, (2, 2, 2, 2)), r"4 spatial axes"),
        (lambda x: F.avg_pool(x, 2, stride=0), r"stride is 0"),
        (lambda x: F.avg_pool(x, 2, padding="FULL"), r"padding is 'FULL'"),
        (lambda x: F.max_pool(x[0, 0], 2), r"spatial axes"),
        (lambda x: F.global_avg_pool(x[0, 0]), r"0 spatial axes"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((2, 8, 8, 3)))
