"""Ask 31: every combination of kernel, stride, dilation, groups and padding beside torch, in values.

The whole product takes minutes to compile, many convolutions a program, so it is `thorough`; plain `pytest` compares
its shapes in one dimension here, and in test_conv.py values and gradients of combinations that cover all pairs.
"""

import functools
import gc
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
        return how | {
            "output_padding": tuple(int(min(case["output_padding"], max(s, d) - 1)) for s, d in pairs)
        }, kernel
    return how, kernel


def layout(case, dims):
    """The options, and the shapes of x and w."""
    how, kernel = arguments(case, dims)
    transposed, groups = "output_padding" in case, case["groups"]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, np.broadcast_to(how["dilation"], dims), strict=True)]
    sizes = (4, 3, 2)[:dims] if transposed else [int(n) + extra for n, extra in zip(spans, (4, 1, 1), strict=False)]
    channels = (C_OUT // groups, C_IN) if transposed else (C_IN // groups, C_OUT)
    return how, (1, *sizes, C_IN), (*kernel, *channels)


def draws(case, dims):
    how, *shapes = layout(case, dims)
    rng = np.random.default_rng(sum(map(ord, repr(case))))
    x, w = (rng.standard_normal(shape) for shape in shapes)
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
    everything.clear_cache()  # a program this large holds thousands of memory maps, of which a process may have 65,530
    gc.collect()
    for case, y, expected in zip(cases, got, want, strict=True):
        assert abs(number(y) - expected) < 1e-12, f"{case} in {dims} dimensions"  # rounding of some hundred products


@pytest.mark.thorough
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kernel", FACTORS["kernel"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_combination_is_torchs(kernel, dims):
    for kind, factors in (("conv", FACTORS), ("conv_transpose", TRANSPOSED)):
        compare(f"{kind}{dims}d_{kernel}", product(factors | {"kernel": [kernel]}), dims)


@pytest.mark.parametrize(
    "dims", [1, pytest.param(2, marks=pytest.mark.thorough), pytest.param(3, marks=pytest.mark.thorough)]
)
def test_every_combination_has_torchs_shape(dims):
    """By the formulas in the documentation of torch.nn.Conv1d and torch.nn.ConvTranspose1d; nothing is compiled."""
    for case in product(FACTORS) + product(TRANSPOSED):
        how, *shapes = layout(case, dims)
        convolve = F.conv_transpose if "output_padding" in case else F.conv
        x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
        got = jax.eval_shape(functools.partial(convolve, **how), x, w).shape
        assert got == (1, *torch_sizes(how, shapes[0][1:-1], shapes[1][:-2]), C_OUT), case


def torch_sizes(how, sizes, kernel):
    padding = [
        np.sum(np.broadcast_to(p, 2))
        for p in (how["padding"] if np.ndim(how["padding"]) else [how["padding"]] * len(sizes))
    ]
    strides, dilations, extra = (
        np.broadcast_to(how.get(k, 0), len(sizes)) for k in ("stride", "dilation", "output_padding")
    )
    each = list(zip(sizes, kernel, strides, dilations, padding, extra, strict=True))
    if "output_padding" in how:
        return tuple(int((n - 1) * s - p + d * (k - 1) + more + 1) for n, k, s, d, p, more in each)
    return tuple(int((n + p - d * (k - 1) - 1) // s + 1) for n, k, s, d, p, _ in each)
