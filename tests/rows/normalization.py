"""Further normalization, parametrizations of weights, the dropout family, convolutional blocks, quantizers."""

import jax.numpy as jnp

from dlkit import nn
from rows.row import Row, normal

BATCH = normal(4, 16)
IMAGES = normal(2, 8, 8, 4)
SMALL = normal(3, 4, 4, 4)
COND = jnp.asarray(normal(4, 5))
AFFINE = {"layer/b": (8,), "layer/w": (16, 8)}

ROWS: list[Row] = [
    Row(nn.InstanceNorm(4), IMAGES),
    Row(nn.InstanceNorm(4, affine=True, dims=1), normal(2, 9, 4), {"scale": (4,), "shift": (4,)}),
    Row(nn.LocalResponseNorm(5, alpha=0.5), BATCH),
    Row(nn.UnitNorm(), BATCH),
    Row(nn.WeightNorm(nn.Linear(16, 8)), BATCH, {**AFFINE, "magnitude": (8,)}),
    # So many iterations that sigma has converged: the derivative takes the singular vectors for constants.
    Row(nn.SpectralNorm(nn.Linear(16, 8), iterations=400), BATCH, AFFINE, {"u": (8,), "v": (16,)}),
    Row(nn.WeightStandardized(nn.Linear(16, 8)), BATCH, AFFINE),
    Row(nn.Standardize(16), BATCH, {}, {"mean": (16,), "std": (16,)}),
    Row(
        nn.Film(5, 16, w_init=nn.initializers.Normal(0.1)),
        normal(4, 3, 16),
        {"b": (32,), "w": (5, 32)},
        options={"inputs": {"cond": COND}},
    ),
    Row(
        nn.ConditionalNorm(nn.LayerNorm(16, affine=False), nn.Film(5, 16)),
        normal(4, 3, 16),
        {"film/b": (32,), "film/w": (5, 32)},
        options={"inputs": {"cond": COND}},
    ),
    Row(nn.SpatialDropout(0.4), IMAGES),
    Row(nn.AlphaDropout(0.4), BATCH, options={"unbiased": False}),  # it keeps mean and variance over all elements
    Row(nn.FeatureAlphaDropout(0.4), IMAGES, options={"unbiased": False}),
    Row(nn.GaussianDropout(0.4), BATCH),
    Row(nn.GaussianNoise(0.4), BATCH),
    Row(nn.DropBlock(0.2, block=3), IMAGES, options={"unbiased": False}),  # scaled by what this draw keeps
    Row(nn.DropPath(0.4), BATCH),
    Row(nn.DropConnect(nn.Linear(16, 8), 0.4), BATCH, AFFINE, options={"unbiased": True}),
    Row(
        nn.SqueezeExcite(4, 3),
        IMAGES,
        {"expand/b": (4,), "expand/w": (3, 4), "reduce/b": (3,), "reduce/w": (4, 3)},
    ),
    Row(nn.LayerScale(16, nn.initializers.Constant(0.5)), BATCH, {"scale": (16,)}),
    Row(
        nn.BasicBlock(4, 6, stride=2),
        SMALL,
        {
            **{f"residual/body/conv{i}/w": (3, 3, c, 6) for i, c in ((1, 4), (2, 6))},
            **{f"residual/body/norm{i}/{name}": (6,) for i in (1, 2) for name in ("scale", "shift")},
            "residual/shortcut/conv/w": (1, 1, 4, 6),
            **{f"residual/shortcut/norm/{name}": (6,) for name in ("scale", "shift")},
        },
        {
            **{f"residual/body/norm{i}/{name}": (6,) for i in (1, 2) for name in ("mean", "var")},
            **{f"residual/shortcut/norm/{name}": (6,) for name in ("mean", "var")},
        },
    ),
    Row(
        nn.Bottleneck(8, 8),
        normal(2, 4, 4, 8),
        {
            **{
                f"residual/body/conv{i}/w": shape
                for i, shape in ((1, (1, 1, 8, 2)), (2, (3, 3, 2, 2)), (3, (1, 1, 2, 8)))
            },
            **{
                f"residual/body/norm{i}/{name}": (c,)
                for i, c in ((1, 2), (2, 2), (3, 8))
                for name in ("scale", "shift")
            },
        },
        {f"residual/body/norm{i}/{name}": (c,) for i, c in ((1, 2), (2, 2), (3, 8)) for name in ("mean", "var")},
    ),
    Row(
        nn.InvertedResidual(4, 6, expansion=2, activation=nn.Silu()),
        SMALL,
        {
            "expand/w": (1, 1, 4, 8),
            "depthwise/w": (3, 3, 1, 8),
            "project/w": (1, 1, 8, 6),
            **{f"norm{i}/{name}": (c,) for i, c in ((1, 8), (2, 8), (3, 6)) for name in ("scale", "shift")},
        },
        {f"norm{i}/{name}": (c,) for i, c in ((1, 8), (2, 8), (3, 6)) for name in ("mean", "var")},
    ),
    Row(
        nn.ConvNeXtBlock(4, kernel=3, expansion=2, rate=0.3, scale_init=nn.initializers.Constant(0.5)),
        SMALL,
        {
            "body/depthwise/b": (4,),
            "body/depthwise/w": (3, 3, 1, 4),
            "body/norm/scale": (4,),
            "body/norm/shift": (4,),
            "body/expand/b": (8,),
            "body/expand/w": (4, 8),
            "body/project/b": (4,),
            "body/project/w": (8, 4),
            "body/scale/scale": (4,),
        },
        options={"unbiased": True},
    ),
    # What goes straight through is not the derivative, so finite differences differ.
    Row(nn.VectorQuantizer(8, 16), BATCH, {"table": (8, 16)}, options={"skip": ("gradient",)}),
    Row(
        nn.VectorQuantizerEMA(8, 16),
        BATCH,
        {},
        {"counts": (8,), "steps": (), "sums": (8, 16), "table": (8, 16)},
        options={"skip": ("gradient",)},
    ),
]
