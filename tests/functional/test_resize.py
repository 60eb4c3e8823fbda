"""Resizing and adaptive pooling beside torch, in values and gradients; the positions beside jax.image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functional.cases import close
from support.reference import reference
from support.spatial import beside_torch, first, last

from dlkit import functional as F

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
SIZES = (7, 5, 4)
# (dims, method, align_corners, size or None, scale or None)
CASES = {
    "nearest_1d": (1, "nearest", False, 10, None),
    "nearest_scale": (2, "nearest", False, None, 2),
    "nearest_smaller": (2, "nearest", False, (3, 2), None),
    "nearest_odd_scale": (2, "nearest", False, None, (1.7, 0.6)),
    "nearest_3d": (3, "nearest", False, (7, 9, 2), None),
    "exact_1d": (1, "nearest-exact", False, 10, None),
    "exact_2d": (2, "nearest-exact", False, (3, 8), None),
    "exact_scale": (3, "nearest-exact", False, None, (0.7, 1.3, 2.0)),
    "linear_1d": (1, "linear", False, 12, None),
    "linear_1d_corners": (1, "linear", True, 12, None),
    "linear_2d": (2, "linear", False, (3, 9), None),
    "linear_2d_corners": (2, "linear", True, (1, 9), None),
    "linear_2d_scale": (2, "linear", False, None, 2),
    "linear_2d_odd_scale": (2, "linear", False, None, (1.7, 0.6)),
    "linear_2d_scale_corners": (2, "linear", True, None, (1.7, 0.6)),
    "linear_3d": (3, "linear", False, (3, 8, 4), None),
    "linear_3d_corners": (3, "linear", True, (9, 3, 4), None),
    "cubic": (2, "cubic", False, (4, 9), None),
    "cubic_scale": (2, "cubic", False, None, (1.7, 3)),
    "cubic_corners": (2, "cubic", True, (12, 2), None),
    "linear_3d_whole": (3, "linear", False, None, (2, 3, 1)),
    "cubic_whole": (2, "cubic", False, (21, 10), None),
    "area": (2, "area", False, (3, 8), None),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_resize_is_torchs_interpolate(name):
    dims, method, align_corners, size, scale = CASES[name]
    x = np.random.default_rng(0).standard_normal((2, *SIZES[:dims], 3))
    mode = {"linear": LINEAR[dims], "cubic": "bicubic"}.get(method, method)
    corners = align_corners if method in ("linear", "cubic") else None

    def torch_fn(torch, x):
        scale_factor = tuple(map(float, scale)) if isinstance(scale, tuple) else scale
        run = torch.nn.functional.interpolate
        return last(run(first(x), size, scale_factor, mode=mode, align_corners=corners))

    fn = functools.partial(F.resize, size=size, scale=scale, method=method, align_corners=align_corners)
    beside_torch(f"functional/resize/{name}", fn, torch_fn, x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("method", "size", "scale"), [("linear", (3, 9), None), ("cubic", None, (0.6, 1.7))])
def test_antialias_is_torchs(method, size, scale):
    x = np.random.default_rng(1).standard_normal((2, *SIZES[:2], 3))
    mode = {"linear": "bilinear", "cubic": "bicubic"}[method]

    def torch_fn(torch, x):
        return last(torch.nn.functional.interpolate(first(x), size, scale, mode=mode, antialias=True))

    fn = functools.partial(F.resize, size=size, scale=scale, method=method, antialias=True)
    beside_torch(f"functional/resize/antialias_{method}", fn, torch_fn, x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_antialias_is_jax_images(method):
    x = jnp.asarray(np.random.default_rng(2).standard_normal((2, 12, 5, 3)))
    want = jax.image.resize(x, (2, 5, 8, 3), method, antialias=True)
    # jax.image computes the positions in float32 whatever the dtype of x.
    np.testing.assert_allclose(F.resize(x, (5, 8), method=method, antialias=True), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"method": "nearest"}, {"method": "linear", "align_corners": True}])
def test_antialias_without_meaning_is_refused(options):
    with pytest.raises(ValueError, match="antialias"):
        F.resize(jnp.ones((1, 4, 4, 1)), 2, antialias=True, **options)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 64, 100, 223])
def test_nearest_takes_the_pixels_of_torch(n):
    """Every pair of sizes is a row of places; float32 decides where a place falls on an edge."""
    x = np.arange(n, dtype=np.float32)
    outs = (1, 3, 7, 20, 33, 99, 128)

    def compute():
        import torch

        run = torch.nn.functional.interpolate
        t = torch.tensor(x)[None, None]
        return {
            f"{mode}_{out}": run(t, out, mode=mode)[0, 0].to(torch.int16).numpy()
            for out in outs
            for mode in ("nearest", "nearest-exact")
        }

    want = reference(f"functional/resize/places_{n}", compute)

    @jax.jit
    def run(x):
        each = {key: key.rsplit("_", 1) for key in want}
        return {key: F.resize(x[:, None], (int(out),), method=mode)[:, 0] for key, (mode, out) in each.items()}

    for key, places in run(jnp.asarray(x)).items():
        np.testing.assert_array_equal(places, want[key], err_msg=key)


@pytest.mark.parametrize(("method", "theirs"), [("nearest-exact", "nearest"), ("linear", "linear")])
def test_enlarging_is_that_of_jax_image(method, theirs):
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 3))
    close(F.resize(x, (8, 15), method=method), jax.image.resize(x, (2, 8, 15, 3), theirs, antialias=False), 1e-5)


def test_a_line_stays_a_line():
    """With linear; cubic at a = -0.75 keeps constants only, up to the border."""
    x = jnp.linspace(0.0, 1.0, 9)[:, None]
    close(F.resize(x, (33,), method="linear", align_corners=True)[:, 0], np.linspace(0, 1, 33), 1e-5)
    close(F.resize(jnp.ones((9, 1)), (20,), method="cubic"), np.ones((20, 1)), 1e-6)


def test_nearest_keeps_numbers_and_dtype():
    x = jnp.array([[1.0], [jnp.inf], [jnp.nan]], jnp.bfloat16)
    wide = F.resize(x, (6,)).astype(jnp.float32)
    np.testing.assert_array_equal(wide[:, 0], [1, 1, np.inf, np.inf, np.nan, np.nan])
    assert F.resize(x, (6,), method="linear").dtype == jnp.bfloat16
    assert F.resize(x, (3,), method="linear").dtype == jnp.bfloat16


ADAPTIVE = {
    "1d": ((9,), 4),
    "1d_divides": ((9,), 3),
    "1d_more": ((3,), 5),
    "2d": ((7, 5), (3, 2)),
    "2d_keeps": ((7, 5), (None, 3)),
    "2d_one": ((7, 6), (1, 4)),
    "3d": ((5, 4, 3), (2, 3, 3)),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_pooling_is_torchs(name, kind):
    sizes, out = ADAPTIVE[name]
    rng = np.random.default_rng(1)
    shape = (2, *sizes, 3)
    x = rng.standard_normal(shape) if kind == "avg" else rng.integers(0, 4, shape).astype(float)  # maxima that tie

    def torch_fn(torch, x):
        return last(getattr(torch.nn.functional, f"adaptive_{kind}_pool{len(sizes)}d")(first(x), out))

    fn = functools.partial(getattr(F, f"adaptive_{kind}_pool"), size=out)
    beside_torch(f"functional/resize/adaptive_{kind}_{name}", fn, torch_fn, x)


def test_adaptive_windows_hold_nan_and_infinity_in():
    x = jnp.arange(5.0).at[0].set(jnp.nan).at[4].set(jnp.inf)[:, None]
    np.testing.assert_array_equal(F.adaptive_avg_pool(x, (3,))[:, 0], [jnp.nan, 2.0, jnp.inf])
    np.testing.assert_array_equal(F.adaptive_max_pool(x, (3,))[:, 0], [jnp.nan, 3.0, jnp.inf])
    x = x.astype(jnp.bfloat16)
    assert F.adaptive_avg_pool(x, (3,)).dtype == F.adaptive_max_pool(x, (3,)).dtype == jnp.bfloat16


def test_leading_axes_are_free():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4, 2))
    for fn in (F.adaptive_avg_pool, F.adaptive_max_pool, functools.partial(F.resize, method="linear")):
        each = jnp.stack([jnp.stack([fn(image, (3, 2)) for image in row]) for row in x])
        close(fn(x, (3, 2)), each, 1e-6)
    close(F.adaptive_avg_pool(x, 2, dims=2), F.adaptive_avg_pool(x, (2, 2)), 0)
    close(F.resize(x, scale=2, dims=2), F.resize(x, scale=(2, 2)), 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.resize(x, 4, method="bilinear"), "method is 'bilinear'; want one of 'nearest'"),
        (lambda x: F.resize(x), "size is None and scale None"),
        (lambda x: F.resize(x, 4, 2.0), "size is 4 and scale 2.0"),
        (lambda x: F.resize(x, 4, align_corners=True), "align_corners with method 'nearest'"),
        (lambda x: F.resize(x, (4, 4, 4, 4)), r"one size a spatial axis"),
        (lambda x: F.resize(x, 0), "sizes of at least 1"),
        (lambda x: F.resize(x, scale=0.01), "sizes of at least 1"),
        (lambda x: F.resize(x, scale=-1.0), "a positive number"),
        (lambda x: F.resize(x, scale=(2, 2, 2, 2)), "one a spatial axis"),
        (lambda x: F.adaptive_avg_pool(x, (2, 0)), "sizes of at least 1"),
        (lambda x: F.adaptive_max_pool(x, (2,), dims=2), "one size a spatial axis"),
        (lambda x: F.adaptive_max_pool(x[0, 0], 2), "one size a spatial axis"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((2, 8, 8, 3)))
