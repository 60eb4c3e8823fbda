"""Instance normalization, local response normalization and unit length beside torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.beside import beside_torch

from dlkit import functional, nn

DTYPES = (np.float32, np.float64)


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def instance(affine, dims):
    layer = nn.InstanceNorm(3, affine=affine, dims=dims)
    arrays = {"x": 2 + 3 * normal(2, *(4, 5, 2)[:dims], 3)}
    if affine:
        arrays |= {"scale": normal(3), "shift": normal(3) + 1}

    def theirs(torch, x, scale=None, shift=None):
        y = torch.nn.functional.instance_norm(x.movedim(-1, 1), weight=scale, bias=shift)
        return y.movedim(1, -1)

    return lambda x, **params: layer(params, x), arrays, theirs


def local_response(size, **options):
    layer = nn.LocalResponseNorm(size, **options)

    def theirs(torch, x):
        return torch.nn.functional.local_response_norm(x.movedim(-1, 1), size, **options).movedim(1, -1)

    return lambda x: layer({}, x), {"x": 2 * normal(2, 3, 4, 7)}, theirs


def unit(shape, axis):
    def theirs(torch, x):
        return torch.nn.functional.normalize(x, dim=axis)

    return lambda x: functional.unit_norm(x, axes=axis), {"x": normal(*shape)}, theirs


CASES = {
    "instance1d": instance(False, 1),
    "instance2d_affine": instance(True, 2),
    "instance3d_affine": instance(True, 3),
    "local_response5": local_response(5, alpha=0.3),
    "local_response4": local_response(4, alpha=0.5, beta=0.6, k=2.0),
    "unit": unit((3, 4, 5), -1),
    "unit_axis": unit((3, 4, 5), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_torch_in_float32(name):
    ours, arrays, theirs = CASES[name]
    beside_torch(f"nn/local_norms/{name}", ours, arrays, theirs, np.float32)


@pytest.mark.parametrize("name", CASES)
def test_torch_in_float64(name, x64):
    ours, arrays, theirs = CASES[name]
    beside_torch(f"nn/local_norms/{name}", ours, arrays, theirs, np.float64)


def test_unit_norm_of_a_zero_vector_has_the_gradient_of_a_division_by_eps():
    y, pull = jax.vjp(lambda x: functional.unit_norm(x, eps=0.5), jnp.zeros((1, 3)))
    assert not y.any()
    np.testing.assert_array_equal(pull(jnp.ones((1, 3)))[0], 2.0)


def test_instance_norm_needs_space():
    with pytest.raises(ValueError, match="at least 2 positions"):
        nn.InstanceNorm(3)({}, jnp.ones((4, 1, 1, 3)))
    with pytest.raises(ValueError, match="1, 2 or 3 spatial axes"):
        nn.InstanceNorm(3, dims=0)
    with pytest.raises(ValueError, match="at least one spatial axis"):
        functional.instance_norm(jnp.ones((4, 3)))


def test_bad_sizes():
    with pytest.raises(ValueError, match="size of at least 1"):
        nn.LocalResponseNorm(0)
    with pytest.raises(ValueError, match="size >= 1"):
        functional.local_response_norm(jnp.ones((2, 3)), 0)
    with pytest.raises(ValueError, match="axes is 2"):
        functional.unit_norm(jnp.ones((2, 3)), axes=2)
