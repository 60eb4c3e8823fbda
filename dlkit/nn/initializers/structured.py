"""Initializers whose elements depend on one another: orthogonal, identity, sparse."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from dlkit.functional.decompositions import one_by_one
from dlkit.nn.initializers.base import Fans, Initializer, wide

__all__ = ["Dirac", "Identity", "Orthogonal", "Sparse"]


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """A uniformly drawn matrix `gain Q` with orthonormal columns (or rows, where they are fewer): `Q^T Q = I`.

    A kernel `[*kernel, c_in, c_out]` is filled as the matrix `[prod(kernel) c_in, c_out]`, as in torch and jax; the
    groups of a grouped convolution are one matrix for this. Gains that keep the variance behind an activation: 1 for
    none, sqrt(2) for ReLU, 5/3 for tanh.

    >>> w = Orthogonal()(jax.random.key(0), (6, 4))
    >>> bool(jnp.allclose(w.T @ w, jnp.eye(4), atol=1e-6))
    True

    Raises:
      ValueError: a shape of fewer than two axes.

    Reference: Saxe, McClelland and Ganguli, Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks, 2014, arXiv:1312.6120.
    """

    gain: float = 1.0

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32, fans: Fans | None = None
    ) -> jax.Array:
        _at_least(self, shape, 2)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        draw = one_by_one(lambda key: jax.random.orthogonal(key, rows, dtype=wide(dtype), m=columns))
        matrix = draw(key)
        return (self.gain * matrix).reshape(shape).astype(dtype)


@dataclass(frozen=True)
class Identity(Initializer):
    """`w = gain` on the diagonal of a matrix `[d_in, d_out]`, 0 elsewhere: as many features as fit pass unchanged.

    torch's `eye_`. For kernels of convolutions see `Dirac`.

    >>> Identity()(jax.random.key(0), (2, 3))
    Array([[1., 0., 0.],
           [0., 1., 0.]], dtype=float32)

    Raises:
      ValueError: a shape that is not a matrix.
    """

    gain: float = 1.0

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32, fans: Fans | None = None
    ) -> jax.Array:
        if len(shape) != 2:
            raise ValueError(f"Identity wants a matrix [d_in, d_out], got shape {tuple(shape)}; for kernels use Dirac")
        return (self.gain * jnp.eye(*shape, dtype=wide(dtype))).astype(dtype)


@dataclass(frozen=True)
class Dirac(Initializer):
    """A kernel `[*kernel, c_in / groups, c_out]` with which a "SAME" convolution of stride 1 is the identity.

    The tap at the centre of the window is the identity matrix of each group (as many channels as fit), the others are
    0. In an even window the centre is the lower of the two middle taps, where "SAME" puts the output; torch's `dirac_`
    takes the upper one. In odd windows they agree.

    >>> Dirac()(jax.random.key(0), (3, 1, 1)).ravel()
    Array([0., 1., 0.], dtype=float32)

    Raises:
      ValueError: a shape of fewer than two axes, or groups that do not divide the outputs.
    """

    groups: int = 1
    gain: float = 1.0

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32, fans: Fans | None = None
    ) -> jax.Array:
        _at_least(self, shape, 2)
        *kernel, c_in, c_out = shape
        if self.groups < 1 or c_out % self.groups:
            raise ValueError(
                f"Dirac: groups={self.groups} does not divide the {c_out} outputs of a kernel {tuple(shape)}"
            )
        tap = np.tile(np.eye(c_in, c_out // self.groups), self.groups)
        filled = np.zeros(shape)
        filled[tuple((k - 1) // 2 for k in kernel)] = self.gain * tap
        return jnp.asarray(filled, dtype)


@dataclass(frozen=True)
class Sparse(Initializer):
    """`w ~ N(0, std^2)`, and in each column of `[d_in, d_out]` `ceil(sparsity d_in)` elements at random are 0.

    So each output starts from a few of the inputs. torch's `sparse_` does the same to the columns of its argument;
    applied to torch's own weights `[d_out, d_in]` these are the outputs that one input reaches.

    >>> w = Sparse(0.75)(jax.random.key(0), (8, 3))
    >>> (w == 0).sum(0).tolist()
    [6, 6, 6]

    Raises:
      ValueError: a sparsity outside [0, 1], a negative `std`, or a shape that is not a matrix.

    Reference: Martens, Deep learning via Hessian-free optimization, ICML 2010.
    """

    sparsity: float
    std: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity <= 1 or not self.std >= 0:
            raise ValueError(f"Sparse wants 0 <= sparsity <= 1 and std >= 0, got {self.sparsity} and {self.std}")

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32, fans: Fans | None = None
    ) -> jax.Array:
        if len(shape) != 2:
            raise ValueError(f"Sparse wants a matrix [d_in, d_out], got shape {tuple(shape)}")
        values, places = jax.random.split(key)
        w = self.std * jax.random.normal(values, shape, wide(dtype))
        row = jnp.broadcast_to(jnp.arange(shape[0])[:, None], shape)
        dropped = jax.random.permutation(places, row, axis=0, independent=True) < math.ceil(self.sparsity * shape[0])
        return jnp.where(dropped, 0.0, w).astype(dtype)


def _at_least(of: Initializer, shape: Sequence[int], axes: int) -> None:
    if len(shape) < axes:
        raise ValueError(f"{type(of).__name__} wants a weight [..., d_in, d_out], got shape {tuple(shape)}")
