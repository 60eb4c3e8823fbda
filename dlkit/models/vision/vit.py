"""Vision transformers (Dosovitskiy et al., "An image is worth 16x16 words", 2020, arXiv:2010.11929)."""

from dataclasses import dataclass
from typing import Any, TypedDict

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import nn
from dlkit.models.vision.names import named
from dlkit.nn.checks import check_axis, check_float, describe
from dlkit.nn.initializers import Initializer, Normal, Zeros

__all__ = ["ClassToken", "First", "ImagePositions", "vit", "vit_names"]


class ClassTokenParams(TypedDict):
    table: Float[Array, "1 1 d"]


@dataclass(frozen=True)
class ClassToken(nn.Pure[ClassTokenParams]):
    """A learned token in front of the others: x `[B, N, d]`, y `[B, N + 1, d]`. Parameter: `table` `[1, 1, d]`, from 0.

    >>> layer = ClassToken(4)
    >>> layer(layer.init(jax.random.key(0)), jnp.ones((2, 9, 4))).shape
    (2, 10, 4)

    Raises:
      ValueError: the last axis of x is not `d`. TypeError: x is not of the parameter's dtype.
    """

    d: int
    table_init: Initializer = Zeros()

    def init(self, key: Any) -> ClassTokenParams:
        return {"table": self.table_init(nn.fold_name(key, "table"), (1, 1, self.d))}

    def __call__(self, params: ClassTokenParams, x: Array) -> Float[Array, "B N1 {self.d}"]:
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, params["table"])
        token = jnp.broadcast_to(params["table"], (x.shape[0], 1, self.d))
        return jnp.concatenate([token, x], axis=1)


@dataclass(frozen=True)
class ImagePositions(nn.Pure[ClassTokenParams]):
    """y = x + table: a learned vector for each of `n` places, x `[B, n, d]`. Parameter: `table` `[1, n, d]`.

    From N(0, 0.02^2), as in the authors' code. Unlike `nn.LearnedPositions` it is for one length alone.

    >>> layer = ImagePositions(10, 4)
    >>> layer(layer.init(jax.random.key(0)), jnp.ones((2, 10, 4))).shape
    (2, 10, 4)

    Raises:
      ValueError: x is not `[..., n, d]`: the picture is of another size than the model. TypeError: another dtype.
    """

    n: int
    d: int
    table_init: Initializer = Normal(0.02)

    def init(self, key: Any) -> ClassTokenParams:
        return {"table": self.table_init(nn.fold_name(key, "table"), (1, self.n, self.d))}

    def __call__(self, params: ClassTokenParams, x: Array) -> Float[Array, "B {self.n} {self.d}"]:
        if x.shape[-2:] != (self.n, self.d):
            raise ValueError(f"{describe(self)} got x of shape {x.shape}: expected [B, {self.n}, {self.d}]; is the "
                             "picture of the size that the model was made for?")  # fmt: skip
        check_float(self, x, params["table"])
        return x + params["table"]


@dataclass(frozen=True)
class First(nn.Pure[Any]):
    """The first token: x `[B, N, d]`, y `[B, d]`.

    >>> First()({}, jnp.arange(6.0).reshape(1, 3, 2))
    Array([[0., 1.]], dtype=float32)
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "B d"]:
        return x[..., 0, :]


def vit(
    classes: int = 1000,
    *,
    d: int = 768,
    heads: int = 12,
    depth: int = 12,
    patch: int = 16,
    image: int = 224,
    hidden: int | None = None,
    dropout: float = 0.0,
    channels: int = 3,
    eps: float = 1e-6,
    activation: nn.Layer = nn.Gelu(),
) -> nn.Chain:
    """A transformer over patches of a picture, by default ViT-B/16: `[B, image, image, channels]` to `[B, classes]`.

    Patches become vectors (`nn.PatchEmbed`), a class token is put in front and positions are added; `depth` pre-norm
    blocks, a norm, and an affine map of the class token. ViT-S has d=384 and 6 heads, ViT-Ti d=192 and 3 heads.

    Args:
      classes: the number of outputs.
      d: features of a token.
      heads: of each attention.
      depth: blocks; each is a layer of its own (`block1`, `block2`, ...), so that they can be looked at one by one.
      patch: the side of a patch.
      image: the side of the picture, a multiple of `patch`.
      hidden: units of the feed-forward networks, by default 4 d.
      dropout: the probability of dropping, behind positions and in blocks.
      channels: those of the picture.
      eps: of the norms; 1e-6 is that of the authors and torchvision, Hugging Face's files have 1e-12.
      activation: of the feed-forward networks.

    Parameters, with 1000 classes: 86,567,656 (B/16), 22,050,664 (S/16), 5,717,416 (Ti/16). Paths: `patches`, `token`,
    `positions`, `block1/attention/q`, ..., `norm`, `head`.

    >>> vit_names(vit())["block3/mlp/up"]
    '/encoder.layers.encoder_layer_2.mlp.0'

    Raises:
      ValueError: patches that do not divide the picture, heads that do not divide `d`.
    """
    if image % patch:
        raise ValueError(f"vit cuts a picture of {image} x {image} into patches of {patch} x {patch}, which do not fit")
    n = (image // patch) ** 2 + 1

    def block() -> nn.TransformerBlock:
        attention = nn.MultiHeadAttention(d, heads, rate=dropout)
        mlp = nn.FeedForward(d, hidden or 4 * d, activation, dropout)
        return nn.TransformerBlock(attention, mlp, nn.LayerNorm(d, eps), nn.LayerNorm(d, eps), rate=dropout)

    return nn.Chain(
        patches=nn.PatchEmbed(channels, d, patch), token=ClassToken(d), positions=ImagePositions(n, d),
        dropout=nn.Dropout(dropout), **{f"block{i + 1}": block() for i in range(depth)},
        norm=nn.LayerNorm(d, eps), first=First(), head=nn.Linear(d, classes),
    )  # fmt: skip


def vit_names(model: Any) -> dict[str, str]:
    """What torchvision calls the layers of a `vit`: by path, with "/" for the root in front.

    The class token and the positions are arrays without a module there: their name is that of the array.
    """
    at = r"block(\d+)"
    below = "encoder.layers.encoder_layer_{a}"
    return named(
        model,
        {
            "patches": "conv_proj", "token": "class_token", "positions": "encoder.pos_embedding",
            rf"{at}/norm(\d)": f"{below}.ln_{{1}}", rf"{at}/attention": f"{below}.self_attention",
            rf"{at}/mlp/up": f"{below}.mlp.0", rf"{at}/mlp/down": f"{below}.mlp.3",
            "norm": "encoder.ln", "head": "heads.head",
        },
    )  # fmt: skip
