"""Ask 31: every combination of kernel, stride, dilation, groups and padding beside torch, in values.

Many convolutions are compiled as one program. Gradients, on combinations that cover all pairs: test_conv.py.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functional.test_conv import FACTORS, geometry
from support.reference import reference

from dlkit import functional as F

C_IN, C_OUT = 4, 8
TRANSPOSED = {**FACTORS, "padding": ["none", "int", "each"], "output_padding": [0, 1]}


def product(factors, **fixed):
    """All combinations, as dicts."""
    return [dict(zip(factors, values, strict=True)) | fixed for values in itertools.product(*factors.values())]


def arguments(case, dims):
    """What both libraries are given: (options, kernel, sizes of x)."""
    kernel, stride, dilation, padding = geometry(case, dims)
    how = {"stride": stride, "dilation": dilation, "padding": padding, "groups": case["groups"]}
    strides, dilations = np.broadcast_to(stride, dims), np.broadcast_to(dilation, dims)
    if "output_padding" in case:  # torch allows one below the stride or the dilation of the axis only
        pairs = zip(strides, dilations, strict=True)
        return how | {"output_padding": tuple(int(min(case["output_padding"], max(s, d) - 1)) for s, d in pairs)}, kernel
    return how, kernel


def draws(case, dims):
    how, kernel = arguments(case, dims)
    transposed = "output_padding" in case
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, np.broadcast_to(how["dilation"], dims), strict=True)]
    sizes = (4, 3, 2)[:dims] if transposed else [n + extra for n, extra in zip(spans, (4, 1, 1), strict=False)]
    rng = np.random.default_rng(sum(map(ord, repr(case))))
    x = rng.standard_normal((1, *sizes, C_IN))
    w = rng.standard_normal((*kernel, *((C_OUT // case["groups"], C_IN) if transposed else (C_IN // case["groups"], C_OUT))))
    return how, x, w / np.sqrt(w[..., 0].size)


def number(y):
    """One projection of an array in a random direction: two different arrays share it with probability 0."""
    flat = np.asarray(y, np.float64).ravel()
    return np.random.default_rng(flat.size).standard_normal(flat.size) @ flat / np.sqrt(flat.size)


def torchs(cases, dims):
    import torch

    last_to_first, w_to_torch = (0, dims + 1, *range(1, dims + 1)), (dims + 1, dims, *range(dims))
    kind = "conv_transpose" if "output_padding" in cases[0] else "conv"
    run = getattr(torch.nn.functional, f"{kind}{dims}d")
    found = []
    for case in cases:
        how, x, w = draws(case, dims)
        tx, tw = torch.tensor(x).permute(last_to_first), torch.tensor(w).permute(w_to_torch)
        if case["padding"] == "pairs":
            tx = torch.nn.functional.pad(tx, [n for pair in reversed(how["padding"]) for n in pair])
            how = how | {"padding": 0}
        found.append(number(run(tx, tw, **how).movedim(1, -1)))
    return {"numbers": np.array(found)}


def compare(name, cases, dims):
    want = reference(f"functional/conv_product/{name}", lambda: torchs(cases, dims))["numbers"]
    hows, xs, ws = zip(*(draws(case, dims) for case in cases), strict=True)
    convolve = F.conv_transpose if "output_padding" in cases[0] else F.conv

    @jax.jit
    def everything(xs, ws):
        return [convolve(x, w, **how) for x, w, how in zip(xs, ws, hows, strict=True)]

    got = everything(list(map(jnp.asarray, xs)), list(map(jnp.asarray, ws)))
    for case, y, expected in zip(cases, got, want, strict=True):
        assert abs(number(y) - expected) < 1e-12, f"{case} in {dims} dimensions"  # rounding of some hundred products


KERNELS = [
    pytest.param(k, dims, marks=() if dims == 1 and k in (3, 4) else pytest.mark.thorough, id=f"{dims}d-{k}")
    for dims in (1, 2, 3) for k in FACTORS["kernel"]
]  # fmt: skip


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("kernel", "dims"), KERNELS)
def test_every_combination_is_torchs(kernel, dims):
    for kind, factors in (("conv", FACTORS), ("conv_transpose", TRANSPOSED)):
        compare(f"{kind}{dims}d_{kernel}", product(factors | {"kernel": [kernel]}), dims)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_combination_has_torchs_shape(dims):
    """By torch's formulas, axis by axis: nothing is compiled."""
    for case in product(FACTORS) + product(TRANSPOSED):
        how, x, w = draws(case, dims)
        transposed = "output_padding" in case
        fn = functools.partial(F.conv_transpose if transposed else F.conv, **how)
        got = jax.eval_shape(fn, jnp.float32(x), jnp.float32(w)).shape
        assert got == (1, *torch_sizes(how, x.shape[1:-1], w.shape[:-2]), C_OUT), case


def torch_sizes(how, sizes, kernel):
    """As the documentation of torch.nn.Conv1d and torch.nn.ConvTranspose1d says."""
    dims = len(sizes)
    pads = [np.broadcast_to(p, 2) for p in np.broadcast_to(how["padding"], (dims,))] if np.ndim(how["padding"]) < 2 else how["padding"]
    each = (sizes, kernel, *(np.broadcast_to(how[k], dims) for k in ("stride", "dilation")), pads)
    extra = np.broadcast_to(how.get("output_padding", 0), dims)
    found = []
    for n, k, s, d, pad, more in zip(*each, extra, strict=True):
        if "output_padding" in how:
            found.append(int((n - 1) * s - sum(pad) + d * (k - 1) + more + 1))
        else:
            found.append(int((n + sum(pad) - d * (k - 1) - 1) // s + 1))
    return tuple(found)
