"""A function of a dict of arrays beside the same function in torch: values and the gradient of every array."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from support.reference import reference

# float32: a few roundings of sums of at most a few hundred terms, relative to the largest element; float64 likewise.
TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}


def weights(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """The weights of the scalar whose gradient is taken: all different."""
    size = int(np.prod(shape))
    return np.cos(1.0 + 2.0 * np.arange(size)).reshape(shape).astype(dtype)


def assert_equal(got: Mapping[str, Any], want: Mapping[str, np.ndarray], dtype: Any) -> None:
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].shape == value.shape, name
        bound = TOLERANCE[np.dtype(dtype)] * max(1.0, float(np.abs(value).max(initial=0.0)))
        np.testing.assert_allclose(got[name], value, rtol=0, atol=bound, err_msg=name)


def beside_torch(
    name: str, ours: Callable[..., Any], arrays: dict[str, np.ndarray], theirs: Callable[..., Any], dtype: Any
) -> None:
    """`ours(**arrays)` and `theirs(torch, **tensors)` have equal values, and equal gradients of each array.

    Either gives an array, or a dict of arrays whose `y` the gradient is taken of.
    """
    arrays = {k: np.asarray(v, dtype) for k, v in arrays.items()}

    def named(y: Any) -> dict[str, Any]:
        return y if isinstance(y, dict) else {"y": y}

    def compute() -> dict[str, np.ndarray]:
        import torch

        held = {k: torch.tensor(v, requires_grad=True) for k, v in arrays.items()}
        out = named(theirs(torch, **held))
        (out["y"] * torch.tensor(weights(tuple(out["y"].shape), dtype))).sum().backward()
        values = {k: v.detach().numpy() for k, v in out.items()}
        return values | {f"d{k}": v.grad.numpy() for k, v in held.items()}

    def loss(held: dict[str, jax.Array]) -> Any:
        out = named(ours(**held))
        return jnp.sum(jnp.asarray(weights(out["y"].shape, dtype)) * out["y"]), out

    want = reference(f"{name}_{np.dtype(dtype).name}", compute)
    grads, out = jax.jit(jax.grad(loss, has_aux=True))({k: jnp.asarray(v) for k, v in arrays.items()})
    assert_equal(out | {f"d{k}": g for k, g in grads.items()}, want, dtype)
