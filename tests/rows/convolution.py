"""Transposed and separable convolution, adaptive pooling, resizing, shuffles, patches, padding."""

from dlkit import nn
from rows.row import Row, normal

IMAGES = normal(2, 8, 8, 4)

ROWS: list[Row] = [
    Row(nn.ConvTranspose(4, 6, 4, stride=2), IMAGES, {"b": (6,), "w": (4, 4, 6, 4)}),
    Row(
        nn.ConvTranspose(4, 6, (3,), stride=2, padding=1, output_padding=1, groups=2, bias=False),
        normal(2, 9, 4),
        {"w": (3, 3, 4)},
    ),
    Row(nn.DepthwiseConv(4, 3, multiplier=2, stride=2), IMAGES, {"b": (8,), "w": (3, 3, 1, 8)}),
    Row(
        nn.SeparableConv(4, 6, 3),
        IMAGES,
        {"depthwise/w": (3, 3, 1, 4), "pointwise/b": (6,), "pointwise/w": (1, 1, 4, 6)},
    ),
    Row(nn.MaskedConv(4, 6, 3, "A", colors=2), IMAGES, {"b": (6,), "w": (3, 3, 4, 6)}),
    Row(nn.Conv(4, 6, (3,), padding="CAUSAL", dilation=2), normal(2, 9, 4), {"b": (6,), "w": (3, 4, 6)}),
    Row(
        nn.TCNBlock(4, 6, rate=0.2, weight_norm=False),
        normal(2, 9, 4),
        {
            "residual/body/conv1/b": (6,),
            "residual/body/conv1/w": (3, 4, 6),
            "residual/body/conv2/b": (6,),
            "residual/body/conv2/w": (3, 6, 6),
            "residual/shortcut/b": (6,),
            "residual/shortcut/w": (1, 4, 6),
        },
        composed=True,
    ),
    Row(
        nn.TCN(4, (4,), kernel=2),
        normal(2, 9, 4),
        {
            f"block1/residual/body/conv{i}/{path}": shape
            for i in (1, 2)
            for path, shape in {"layer/b": (4,), "layer/w": (2, 4, 4), "magnitude": (4,)}.items()
        },
        composed=True,
    ),
    Row(nn.Conv(4, 6, 3, padding_mode="reflect"), IMAGES, {"b": (6,), "w": (3, 3, 4, 6)}),
    Row(nn.PatchEmbed(4, 6, (2, 4)), IMAGES, {"b": (6,), "w": (2, 4, 4, 6)}),
    Row(nn.AdaptiveAvgPool(3), IMAGES),
    Row(nn.AdaptiveMaxPool((None, 3)), IMAGES),
    Row(nn.MaxPool(3, 2, ceil_mode=True), IMAGES),
    Row(nn.AvgPool(3, 2, ceil_mode=True, count_include_pad=False), IMAGES),
    Row(nn.Upsample(2), IMAGES),
    Row(nn.Upsample(size=(5, 9), method="linear", align_corners=True), IMAGES),
    Row(nn.Upsample(size=(5, 3), method="cubic", antialias=True), IMAGES),
    Row(nn.PixelShuffle(2), IMAGES),
    Row(nn.PixelUnshuffle(2), IMAGES),
    Row(nn.ChannelShuffle(2), IMAGES),
    Row(nn.Pad(((1, 2), (0, 1)), "circular"), IMAGES),
    Row(nn.Crop(1), IMAGES),
    # The mean of many changed pictures is a blurred one, not the picture, which evaluation gives.
    Row(nn.RandomFlip(), IMAGES, options={"skip": ("training mean",)}),
    Row(nn.RandomCrop(2), IMAGES, options={"skip": ("training mean",)}),
]
