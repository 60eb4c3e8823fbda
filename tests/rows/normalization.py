"""Further normalization, parametrizations of weights, the dropout family, convolutional blocks, quantizers."""

import jax.numpy as jnp

from dlkit import nn
from rows.row import Row, normal

BATCH = normal(4, 16)
IMAGES = normal(2, 8, 8, 4)
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
]
