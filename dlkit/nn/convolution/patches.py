"""Images as sequences: the patch embedding of vision transformers."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_axis, check_float, check_space, describe
from dlkit.nn.convolution.conv import ConvParams, Size
from dlkit.nn.initializers import Initializer, Zeros, compute_fans, lecun_normal
from dlkit.nn.layer import Pure
from dlkit.nn.linear import init_affine

__all__ = ["PatchEmbed"]


@dataclass(frozen=True)
class PatchEmbed(Pure[ConvParams]):
    """Patches without overlap as tokens: images x `[..., H, W, c_in]`, y `[..., N, d]`, `N = (H / patch) (W / patch)`.

        y[n] = b + patch_n w,        patch_n the numbers of the n-th patch, row by row

    One matrix product over flattened patches; the numbers are those of `Conv(c_in, d, patch, stride=patch)` with the
    same parameters, its positions in one axis. `patch` is an int for all `dims` spatial axes, or one an axis: videos
    have three. Positions are not added here.

    Parameters: `w` `[*patch, c_in, d]` (torch: Conv2d's `[d, c_in, *patch]`), `b` `[d]` unless `bias=False`, starting
    as those of `Conv`: variance `1 / (prod(patch) c_in)`, and 0.

    >>> layer = PatchEmbed(3, 64, patch=4)
    >>> params = layer.init(jax.random.key(0))
    >>> params["w"].shape, layer(params, jnp.ones((2, 32, 32, 3))).shape
    ((4, 4, 3, 64), (2, 64, 64))

    Raises:
      ValueError: patches below 1; x without `c_in` channels, or with sizes that the patch does not divide: `Crop` or
      `Pad` it first (torch's convolution leaves out the rest).
      TypeError: x is not floating point, or not of the weights' dtype.

    Reference: Dosovitskiy et al., An image is worth 16x16 words, 2020, arXiv:2010.11929.
    """

    c_in: int
    d: int
    patch: Size
    bias: bool = True
    dims: int = 2
    w_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        if not self.patch_shape or min(self.patch_shape) < 1:
            raise ValueError(f"{describe(self)}: expected a patch of one size of at least 1 for each spatial axis")

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """The size of a patch on each spatial axis."""
        return (self.patch,) * self.dims if isinstance(self.patch, int) else tuple(self.patch)

    def init(self, key: Any) -> ConvParams:
        shape = (*self.patch_shape, self.c_in, self.d)
        return init_affine(key, self, shape, compute_fans(shape))

    def __call__(self, params: ConvParams, x: Array) -> Float[Array, "*lead n {self.d}"]:
        check_space(self, x, "patch")
        check_axis(self, x, -1, self.c_in, f"c_in={self.c_in}")
        check_float(self, x, params["w"])
        return functional.linear(
            functional.patchify(x, self.patch_shape), params["w"].reshape(-1, self.d), params.get("b")
        )
