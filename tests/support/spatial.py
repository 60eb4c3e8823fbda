"""A function of arrays, channels last, beside the same in torch: values, and the gradient of every argument."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from functional.cases import close, fingerprint

from support.reference import reference

# float64: rounding of sums of some hundred terms. float32: the same, with 29 bits less.
BOTH = ((np.float64, 1e-12), (np.float32, 1e-5))


def beside_torch(
    name: str,
    fn: Callable[..., Any],
    torch_fn: Callable[..., Any],
    *arrays: np.ndarray,
    dtypes: Sequence[tuple[Any, float]] = BOTH,
) -> None:
    """`fn(*arrays)` and `torch_fn(torch, *tensors)`, and the gradients of `sum(y * cotangent)`; needs `x64`.

    torch computes in float64; both give y in the same layout.
    """
    cotangent = np.random.default_rng(9).standard_normal(jax.eval_shape(fn, *arrays).shape)

    def compute():
        import torch

        tensors = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
        y = torch_fn(torch, *tensors)
        assert y.shape == cotangent.shape, (y.shape, cotangent.shape)
        y.backward(torch.tensor(cotangent))
        return {"all": fingerprint(y.detach(), *(t.grad for t in tensors))}

    want = reference(name, compute)["all"]

    @jax.jit
    def run(cotangent, *arrays):
        y, pull = jax.vjp(fn, *arrays)
        return y, *pull(cotangent)

    for dtype, tolerance in dtypes:
        got = run(*(jnp.asarray(a, dtype) for a in (cotangent, *arrays)))
        assert all(a.dtype == dtype for a in got)
        close(fingerprint(*got), want, tolerance)


def first(t: Any) -> Any:
    """`[B, *spatial, C]` to torch's `[B, C, *spatial]`."""
    return t.movedim(-1, 1)


def last(t: Any) -> Any:
    return t.movedim(1, -1)


def kernel(t: Any) -> Any:
    """`[*kernel, c_in / groups, c_out]` to torch's `[c_out, c_in / groups, *kernel]`."""
    return t.movedim((-1, -2), (0, 1))
