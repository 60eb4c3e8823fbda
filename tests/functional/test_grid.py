"""Spatial transformers beside torch, in values and in the gradients of image, grid and theta."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functional.cases import close
from support.spatial import beside_torch, first, last

from dlkit import functional as F

SIZES = (5, 6, 4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("align_corners", [False, True])
def test_affine_grid_is_torchs(dims, align_corners):
    theta = np.random.default_rng(0).standard_normal((2, dims, dims + 1))
    size = SIZES[:dims]

    def torch_fn(torch, theta):
        return torch.nn.functional.affine_grid(theta, (2, 1, *size), align_corners=align_corners)

    fn = functools.partial(F.affine_grid, size=size, align_corners=align_corners)
    beside_torch(f"functional/grid/affine_{dims}_{align_corners}", fn, torch_fn, theta)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("outside", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_grid_sample_is_torchs(method, outside, align_corners, dims):
    rng = np.random.default_rng(1)
    x, grid = rng.standard_normal((2, *SIZES[:dims], 3)), 2 * rng.uniform(-1, 1, (2, *(3, 4, 2)[:dims], dims))

    def torch_fn(torch, x, grid):
        mode = "bilinear" if method == "linear" else method
        run = torch.nn.functional.grid_sample
        return last(run(first(x), grid, mode=mode, padding_mode=outside, align_corners=align_corners))

    fn = functools.partial(F.grid_sample, method=method, outside=outside, align_corners=align_corners)
    beside_torch(f"functional/grid/{method}_{outside}_{align_corners}_{dims}", fn, torch_fn, x, grid)


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_identity_gives_the_image_and_a_flip_flips_it(align_corners):
    x = jax.random.normal(jax.random.key(0), (5, 6, 2))
    for theta, want in (([[1, 0, 0], [0, 1, 0]], x), ([[-1, 0, 0], [0, 1, 0]], x[:, ::-1])):
        grid = F.affine_grid(jnp.asarray(theta, jnp.float32), (5, 6), align_corners=align_corners)
        close(F.grid_sample(x, grid, outside="border", align_corners=align_corners), want, 1e-5)


def test_leading_axes_places_and_nan():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4, 2))
    grid = jax.random.uniform(jax.random.key(1), (2, 3, 7, 2), minval=-1, maxval=1)
    each = jnp.stack(
        [jnp.stack([F.grid_sample(*pair) for pair in zip(*rows, strict=True)]) for rows in zip(x, grid, strict=True)]
    )
    close(F.grid_sample(x, grid), each, 1e-6)
    signal = jnp.array([[1.0], [2.0], [jnp.nan]])
    assert F.grid_sample(signal, jnp.array([[-2 / 3], [-5.0], [5.0]])).ravel().tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.grid_sample(x, x[..., :2], "bilinear"), "method is 'bilinear'"),
        (lambda x: F.grid_sample(x, x[..., :2], outside="wrap"), "outside 'wrap'"),
        (lambda x: F.grid_sample(x, x[:1, ..., :2]), "the same leading axes"),
        (lambda x: F.affine_grid(x[0], (4, 4)), r"want theta \[..., 2, 3\]"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((2, 8, 8, 3)))
