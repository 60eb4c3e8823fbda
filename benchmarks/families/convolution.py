"""Families of convolutions, channels last; torch gets its own layout, channels first, without a copy in the timing."""

from collections.abc import Iterator
from typing import Any

import equinox
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from dlkit import nn
from families.case import Case, Timed, array, equinox_run, fill, haiku_run, jax_run, nnx_run, torch_run, weight

FIRST = (0, 3, 1, 2)  # channels last to channels first
LAST = (0, 2, 3, 1)


def cases() -> Iterator[Case]:
    for title, size, (c_in, c_out), kernel, groups in (
        ("Convolution 3x3", 32, (64, 64), 3, 1),
        ("Convolution 1x1", 32, (64, 128), 1, 1),
        ("Depthwise convolution 3x3", 32, (64, 64), 3, 64),
        ("Depthwise convolution 7x7", 32, (64, 64), 7, 64),
    ):
        x = array(32, size, size, c_in)
        w = weight(kernel, kernel, c_in // groups, c_out)
        yield Case(f"{title}, {c_in} to {c_out} channels, x {list(x.shape)}", _runs(x, w, groups))
    x, w = array(32, 16, 16, 64), weight(4, 4, 32, 64)
    transposed = nn.ConvTranspose(64, 32, 4, stride=2, padding=1, bias=False)
    yield Case(
        f"Transposed convolution 4x4, stride 2, 64 to 32 channels, x {list(x.shape)}",
        {
            "dlkit": lambda: jax_run(transposed, {"w": w}, x),
            "nnx": lambda: _nnx(
                nnx.ConvTranspose(
                    64, 32, (4, 4), 2, padding="SAME", use_bias=False, transpose_kernel=True, rngs=nnx.Rngs(0)
                ),
                x,
                w,
            ),
            "torch": lambda: _torch(torch.nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), x, w),
            "torch channels last": lambda: _torch(torch.nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), x, w, True),
        },
    )


def _runs(x: np.ndarray, w: np.ndarray, groups: int) -> dict[str, Any]:
    kernel, (c_in, c_out) = w.shape[:2], (x.shape[-1], w.shape[-1])
    layer = nn.Conv(c_in, c_out, kernel, groups=groups, bias=False)
    of_torch = lambda: torch.nn.Conv2d(c_in, c_out, kernel, 1, "same", groups=groups, bias=False)  # noqa: E731

    def of_nnx() -> Timed:
        made = nnx.Conv(c_in, c_out, kernel, use_bias=False, feature_group_count=groups, rngs=nnx.Rngs(0))
        return _nnx(made, x, w)

    def of_equinox() -> Timed:
        made = equinox.nn.Conv2d(
            c_in, c_out, kernel, padding=kernel[0] // 2, groups=groups, use_bias=False, key=jax.random.key(0)
        )
        made = equinox.tree_at(lambda m: m.weight, made, jnp.asarray(w.transpose(3, 2, 0, 1)))
        return equinox_run(made, x, lambda m, x: jax.vmap(m)(x.transpose(FIRST)).transpose(LAST))

    def of_haiku() -> Timed:
        def fn(x: Any) -> Any:
            return haiku.Conv2D(c_out, kernel, with_bias=False, feature_group_count=groups)(x)

        return haiku_run(fn, x, lambda params: jax.tree.map(lambda _: jnp.asarray(w), params))

    return {
        "dlkit": lambda: jax_run(layer, {"w": w}, x),
        "nnx": of_nnx,
        "equinox": of_equinox,
        "haiku": of_haiku,
        "torch": lambda: _torch(of_torch(), x, w),
        "torch channels last": lambda: _torch(of_torch(), x, w, True),
    }


def _nnx(module: Any, x: np.ndarray, w: np.ndarray) -> Timed:
    module.kernel[...] = jnp.asarray(w)
    return nnx_run(module, x)


def _torch(module: Any, x: np.ndarray, w: np.ndarray, channels_last: bool = False) -> Timed:
    fill(module.weight, w.transpose(3, 2, 0, 1))
    given = np.ascontiguousarray(x.transpose(FIRST))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    module = module.to(memory_format=layout)
    made = torch_run(module, given, memory_format=layout)
    return Timed(made.step, made.wait, made.y.transpose(LAST))
