"""Matrix decompositions that may stand under `vmap` on CPUs: there a batch is decomposed one matrix after the other.

Given a batch, jaxlib's LAPACK calls on CPU cut it into tasks for XLA's pool of threads, and wait for them within a
thread of that pool. As many such calls at once as the pool has threads, and each waits for ever for a thread that never
gets free: two, on two cores. Two leaves of SOAP or Shampoo under `vmap` are enough. A call with a single matrix never
waits. Accelerators are given the whole batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Shaped

__all__ = []

_matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose batches under `vmap` are a loop on CPU. It has no reverse mode."""
    in_turn = jax.custom_batching.sequential_vmap(function)

    def chosen(*args: Any) -> Any:
        return jax.lax.platform_dependent(*args, cpu=in_turn, default=function)

    return chosen


def _over_stacks(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`function` of one matrix, of any stack of them."""

    def of_stack(x: Any) -> Any:
        return function(x) if x.ndim <= 2 else jax.vmap(of_stack)(x)

    return of_stack


def _adjoint(x: Any) -> Any:
    return x.T.conj()


@jax.custom_jvp
def _eigh(x: Any) -> Any:
    return one_by_one(lambda x: tuple(jnp.linalg.eigh(x, symmetrize_input=False)))(x)


@_eigh.defjvp
def _eigh_jvp(primals: Any, tangents: Any) -> Any:
    values, vectors = out = _eigh(*primals)
    inner = _matmul(_adjoint(vectors), _matmul(tangents[0], vectors))
    return out, (jnp.diagonal(inner).real, _matmul(vectors, _turned(inner, values)))


def _turned(inner: Any, values: Any) -> Any:
    """inner_ij / (values_j - values_i), and 0 on the diagonal."""
    same = jnp.eye(len(values), dtype=bool)
    apart = jnp.where(same, jnp.ones_like(values), values[None] - values[:, None])
    return jnp.where(same, jnp.zeros_like(inner), inner / apart.astype(inner.dtype))


def eigh(x: Inexact[Array, "*batch d d"]) -> tuple[Shaped[Array, "*batch d"], Inexact[Array, "*batch d d"]]:
    """Eigenvalues, the smallest first, and eigenvectors in columns, of (x + x^H) / 2: as `jnp.linalg.eigh`."""
    return _over_stacks(_eigh)((x + jnp.swapaxes(x, -1, -2).conj()) / 2)


@jax.custom_jvp
def _svd(x: Any) -> Any:
    return one_by_one(lambda x: tuple(jnp.linalg.svd(x, full_matrices=False)))(x)


@_svd.defjvp
def _svd_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    u, s, vh = out = _svd(x)
    uh, v, scale = _adjoint(u), _adjoint(vh), s.astype(x.dtype)
    inner = _matmul(uh, _matmul(dx, v))
    du, dv = (
        _matmul(basis, _turned(side + _adjoint(side), s * s))
        for basis, side in ((u, inner * scale[None]), (v, scale[:, None] * inner))
    )
    du = du + u * jnp.diagonal((inner - _adjoint(inner)) / (2 * scale[None]))[None]
    if x.shape[0] > x.shape[1]:
        along = _matmul(dx, v)
        du = du + (along - _matmul(u, _matmul(uh, along))) / scale[None]
    if x.shape[1] > x.shape[0]:
        along = _matmul(_adjoint(dx), u)
        dv = dv + (along - _matmul(v, _matmul(vh, along))) / scale[None]
    return out, (du, jnp.diagonal(inner).real, _adjoint(dv))


def svd(
    x: Inexact[Array, "*batch m n"],
) -> tuple[Inexact[Array, "*batch m k"], Shaped[Array, "*batch k"], Inexact[Array, "*batch k n"]]:
    """U, s and V^H of x = U diag(s) V^H, without the columns that s does not reach: as `jnp.linalg.svd`."""
    return _over_stacks(_svd)(x)


@jax.custom_jvp
def _largest(x: Any) -> Any:
    return one_by_one(lambda x: jnp.max(jnp.linalg.svd(x, compute_uv=False), initial=0.0))(x)


@_largest.defjvp
def _largest_jvp(primals: Any, tangents: Any) -> Any:
    u, s, vh = _svd(*primals)
    inner = _matmul(_adjoint(u), _matmul(tangents[0], _adjoint(vh)))
    return s[0], inner[0, 0].real


def spectral_norm(x: Inexact[Array, "*batch m n"]) -> Shaped[Array, "*batch"]:
    """The largest singular value."""
    return _over_stacks(_largest)(x)


def _triangular(a: Any, b: Any, trans: int) -> Any:
    return one_by_one(partial(jax.scipy.linalg.solve_triangular, trans=trans))(a, b)


def solve_triangular(a: Inexact[Array, "d d"], b: Inexact[Array, "d n"], trans: int = 0) -> Inexact[Array, "d n"]:
    """The x of A x = b (with `trans=1`, of A^T x = b) of an upper triangular A."""
    a = jnp.triu(a)
    of, other = (a.T, 0) if trans else (a, 1)
    return jax.lax.custom_linear_solve(
        lambda x: _matmul(of, x), b,
        solve=lambda _, b: _triangular(a, b, trans),
        transpose_solve=lambda _, b: _triangular(a, b, other),
    )  # fmt: skip


@jax.custom_jvp
def _qr(x: Any) -> Any:
    return one_by_one(lambda x: tuple(jnp.linalg.qr(x)))(x)


@_qr.defjvp
def _qr_jvp(primals: Any, tangents: Any) -> Any:
    q, r = out = _qr(*primals)
    scaled = solve_triangular(r, tangents[0].T, trans=1).T  # dx R^-1
    inner = _matmul(_adjoint(q), scaled)
    below = jnp.tril(inner, -1)
    turn = below - _adjoint(below)
    if jnp.iscomplexobj(inner):
        turn = turn + jnp.diag(jnp.diagonal(inner - _adjoint(inner)) / 2)
    return out, (_matmul(q, turn - inner) + scaled, _matmul(inner - turn, r))


def qr(x: Inexact[Array, "m n"]) -> tuple[Inexact[Array, "m n"], Inexact[Array, "n n"]]:
    """Q and R of x = Q R, at least as high as wide: as `jnp.linalg.qr`."""
    return _qr(x)
