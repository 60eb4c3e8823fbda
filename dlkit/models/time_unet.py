"""A small U-Net that is told the time: the network of a diffusion model; and `ddpm`, the two together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from dlkit import functional, nn
from dlkit.models.diffusion import Diffusion, NoiseSchedule
from dlkit.nn import EVAL
from dlkit.nn.checks import describe
from dlkit.nn.initializers import Zeros

__all__ = ["PixelAttention", "TimeBlock", "TimeUNet", "ddpm", "time_unet"]


@dataclass(frozen=True)
class TimeBlock(nn.Pure[Any]):
    """y = shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))), cond))): a residual block under a condition.

    x `[B, H, W, c_in]`, the keyword `cond` `[B, d_cond]`, y `[B, H, W, c_out]`. `norm2` is scaled and shifted by the
    condition (adaptive group normalization, Dhariwal and Nichol 2021; in DDPM the condition is added). `conv2` starts
    at 0, so a block is its shortcut at first.

    >>> block = TimeBlock.of(4, 8, 6, groups=2)
    >>> block(block.init(jax.random.key(0)), jnp.ones((2, 4, 4, 4)), cond=jnp.ones((2, 6))).shape
    (2, 4, 4, 8)

    Raises:
      ValueError: no `cond`, or x and it do not fit.
    """

    norm1: nn.Layer
    conv1: nn.Conv
    norm2: nn.ConditionalNorm
    conv2: nn.Conv
    shortcut: nn.Layer

    @classmethod
    def of(cls, c_in: int, c_out: int, d_cond: int, groups: int = 8) -> "TimeBlock":
        """The block from `c_in` to `c_out` channels; `groups` divides both."""
        return cls(
            nn.GroupNorm(groups, c_in), nn.Conv(c_in, c_out, 3),
            nn.ConditionalNorm(nn.GroupNorm(groups, c_out, affine=False), nn.Film(d_cond, c_out)),
            nn.Conv(c_out, c_out, 3, w_init=Zeros()),
            nn.Identity() if c_in == c_out else nn.Conv(c_in, c_out, 1),
        )  # fmt: skip

    def __call__(self, params: Any, x: Array, *, cond: Array | None = None) -> Float[Array, "B H W c_out"]:
        h = self.norm1.apply(params["norm1"], None, x, EVAL)[0]
        h = self.conv1(params["conv1"], functional.silu(h))
        h = self.norm2.apply(params["norm2"], None, h, EVAL, cond=cond)[0]
        h = self.conv2(params["conv2"], functional.silu(h))
        return self.shortcut.apply(params["shortcut"], None, x, EVAL)[0] + h


@dataclass(frozen=True)
class PixelAttention(nn.Pure[Any]):
    """y = x + attention(norm(x)), each pixel attending to all: x and y `[B, H, W, d]`.

    >>> layer = PixelAttention(nn.GroupNorm(2, 4), nn.MultiHeadAttention(4, 1))
    >>> layer(layer.init(jax.random.key(0)), jnp.ones((2, 3, 3, 4))).shape
    (2, 3, 3, 4)
    """

    norm: nn.GroupNorm
    attention: nn.MultiHeadAttention

    def __call__(self, params: Any, x: Array) -> Float[Array, "B H W d"]:
        h = self.norm(params["norm"], x)
        tokens = h.reshape(x.shape[0], -1, x.shape[-1])
        return x + self.attention.apply(params["attention"], None, tokens, EVAL)[0].reshape(x.shape)


@dataclass(frozen=True)
class TimeUNet(nn.Pure[Any]):
    """A U-Net with a time for each picture: x `[B, H, W, C]`, the keyword `time` `[B]`, y shaped as x.

        cond = silu(embed(sinusoidal(time)))
        down a level:  blocks, each kept;  a convolution of stride 2
        middle:        a block, attention over the pixels, a block
        up a level:    blocks, each on [h, what was kept];  nearest neighbours and a convolution

    `time_unet` makes one of sizes. With a `patch` above 1, squares of pixels are channels inside (`nn.PixelUnshuffle`),
    which costs a quarter at patch=2 where the pictures' least details cost most.

    >>> net = time_unet(1, (8, 16), groups=4)
    >>> params = net.init(jax.random.key(0))
    >>> net(params, jnp.ones((2, 8, 8, 1)), time=jnp.array([0, 9])).shape
    (2, 8, 8, 1)

    Raises:
      ValueError: no `time`, or height and width are no multiples of patch 2^(levels - 1).

    References: Ho, Jain and Abbeel, Denoising diffusion probabilistic models, 2020, arXiv:2006.11239; Dhariwal and
    Nichol, Diffusion models beat GANs on image synthesis, 2021, arXiv:2105.05233; Hoogeboom, Heek and Salimans, Simple
    diffusion, 2023, arXiv:2301.11093 (patches).
    """

    embed: nn.Layer
    stem: nn.Conv
    down: tuple[TimeBlock, ...]
    halve: tuple[nn.Conv, ...]
    middle: tuple[nn.Layer, ...]
    up: tuple[TimeBlock, ...]
    double: tuple[nn.Layer, ...]
    head: nn.Layer
    patch: int = 1

    def __call__(
        self, params: Any, x: Array, *, time: Integer[Array, "B"] | None = None
    ) -> Float[Array, "B H W C"]:  # fmt: skip
        levels = len(self.halve) + 1
        multiple = self.patch * 2 ** (levels - 1)
        if x.ndim != 4 or x.shape[1] % multiple or x.shape[2] % multiple:
            raise ValueError(f"{describe(self)} got x of shape {x.shape}: expected [B, H, W, C], H and W multiples of "
                             f"{multiple}")  # fmt: skip
        if time is None:
            raise ValueError(f"{describe(self)} got no `time`: expected the keyword time of shape [{x.shape[0]}]")
        width = self.stem.c_out
        cond = functional.sinusoidal(time, width, dtype=x.dtype)
        cond = functional.silu(self.embed.apply(params["embed"], None, cond, EVAL)[0])
        h = x if self.patch == 1 else nn.PixelUnshuffle(self.patch)({}, x)
        h = self.stem(params["stem"], h)
        kept, each = [], len(self.down) // levels
        for level in range(levels):
            for i in range(level * each, (level + 1) * each):
                h = self.down[i](params["down"][i], h, cond=cond)
                kept.append(h)
            if level < levels - 1:
                h = self.halve[level](params["halve"][level], h)
        for layer, own in zip(self.middle, params["middle"], strict=True):
            h = layer(own, h, cond=cond) if isinstance(layer, TimeBlock) else layer.apply(own, None, h, EVAL)[0]
        for level in range(levels):
            if level:
                h = self.double[level - 1].apply(params["double"][level - 1], None, h, EVAL)[0]
            for i in range(level * each, (level + 1) * each):
                h = self.up[i](params["up"][i], jnp.concatenate([h, kept.pop()], axis=-1), cond=cond)
        h = self.head.apply(params["head"], None, h, EVAL)[0]
        return h if self.patch == 1 else nn.PixelShuffle(self.patch)({}, h)


def time_unet(
    channels: int = 1, widths: Sequence[int] = (32, 64), *, blocks: int = 1, groups: int = 8, heads: int = 1,
    patch: int = 1,
) -> TimeUNet:  # fmt: skip
    """A `TimeUNet` of these sizes.

    Args:
      channels: those of the pictures.
      widths: channels of each level; `groups` divides them, and the first is even.
      blocks: residual blocks a level, each way.
      groups: of the group normalizations.
      heads: of the attention in the middle; 0 for none.
      patch: pixels a side that become channels.

    The last convolution starts at 0: the first prediction is 0.

    Raises:
      ValueError: no width, or less than one block.
    """
    if not widths or blocks < 1:
        raise ValueError(f"time_unet: got widths {tuple(widths)} and blocks {blocks}, expected at least one of each")
    inside = channels * patch**2
    d = 4 * widths[0]

    def block(c_in: int, c_out: int) -> TimeBlock:
        return TimeBlock.of(c_in, c_out, d, groups)

    down, up, before = [], [], widths[0]
    for c in widths:
        down += [block(before if i == 0 else c, c) for i in range(blocks)]
        before = c
    for c in reversed(widths):
        up += [block((before if i == 0 else c) + c, c) for i in range(blocks)]
        before = c
    last = widths[-1]
    attention = (
        [PixelAttention(nn.GroupNorm(groups, last), nn.MultiHeadAttention(last, heads, out_init=Zeros()))]
        if heads
        else []
    )
    return TimeUNet(
        nn.Chain(linear1=nn.Linear(widths[0], d), silu=nn.Silu(), linear2=nn.Linear(d, d)),
        nn.Conv(inside, widths[0], 3),
        tuple(down),
        tuple(nn.Conv(c, c, 3, stride=2, padding=1) for c in widths[:-1]),
        (block(last, last), *attention, block(last, last)),
        tuple(up),
        tuple(nn.Chain(upsample=nn.Upsample(2), conv=nn.Conv(c, c, 3)) for c in reversed(widths[1:])),
        nn.Chain(norm=nn.GroupNorm(groups, widths[0]), silu=nn.Silu(),
                 conv=nn.Conv(widths[0], inside, 3, w_init=Zeros())),
        patch,
    )  # fmt: skip


def ddpm(
    input: tuple[int, int, int] = (28, 28, 1), widths: Sequence[int] = (32, 64), *, blocks: int = 1, groups: int = 8,
    heads: int = 1, patch: int = 1, steps: int = 1000, schedule: Literal["linear", "cosine"] = "cosine",
) -> Diffusion:  # fmt: skip
    """A denoising diffusion model of a small U-Net: a `Diffusion` of a `time_unet` and a `NoiseSchedule`.

    Args:
      input: the shape of a picture; height and width multiples of patch 2^(levels - 1).
      widths, blocks, groups, heads, patch: those of `time_unet`.
      steps, schedule: those of `NoiseSchedule`.

    >>> model = ddpm((8, 8, 1), (8,), groups=4, steps=20)
    >>> params = model.init(jax.random.key(0))
    >>> model.sample(params, None, jax.random.key(1), 3, steps=5, eta=0.0).shape
    (3, 8, 8, 1)

    Raises:
      ValueError: sizes that do not fit.
    """
    height, width, channels = input
    multiple = patch * 2 ** (len(widths) - 1)
    if height % multiple or width % multiple:
        raise ValueError(f"ddpm: {len(widths)} levels of patches of {patch} want height and width to be multiples of "
                         f"{multiple}, got {height} x {width}")  # fmt: skip
    net = time_unet(channels, widths, blocks=blocks, groups=groups, heads=heads, patch=patch)
    return Diffusion(net, (height, width, channels), NoiseSchedule(schedule, steps))
