"""Inception v1 (GoogLeNet) and v3: kernels of several sizes side by side.

Szegedy et al., "Going deeper with convolutions", 2014, arXiv:1409.4842; Szegedy, Vanhoucke, Ioffe, Shlens and Wojna,
"Rethinking the Inception architecture", 2015, arXiv:1512.00567.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax  # noqa: F401  (the doctests)

from dlkit import nn
from dlkit.models.vision import inception_parts as part
from dlkit.models.vision.branches import AuxHeads
from dlkit.models.vision.inception_parts import chain, unit

__all__ = ["inception_v1", "inception_v3"]

# 1 x 1; to 3 x 3, 3 x 3; to 5 x 5, 5 x 5; pooled: the table of the first paper, by stage.
V1 = {
    3: ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    4: (
        (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128),
    ),
    5: ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
}  # fmt: skip

Parts = dict[str, nn.Layer[Any, Any]]


def _scaled(width: float) -> Callable[[int], int]:
    return lambda c: max(1, round(c * width))


def _split(parts: Parts, heads: dict[str, nn.Layer[Any, Any]]) -> nn.Layer[Any, Any]:
    """A chain; or, with heads behind some of its layers, `AuxHeads` of the pieces in between."""
    if not heads:
        return nn.Chain(**parts)
    pieces: list[Parts] = [{}]
    for name, layer in parts.items():
        pieces[-1][name] = layer
        if name in heads:
            pieces.append({})
    return AuxHeads(tuple(nn.Chain(**p) for p in pieces), tuple(heads.values()))


def inception_v1(
    classes: int = 1000,
    *,
    aux: bool = False,
    width: float = 1.0,
    blocks: Sequence[int] = (2, 5, 2),
    dropout: float = 0.2,
    channels: int = 3,
) -> nn.Layer[Any, Any]:
    """GoogLeNet: three convolutions, nine blocks of four columns, mean, an affine map.

    `[B, H, W, channels]` in, `[B, classes]` out. As in torchvision (and the authors' later code) there are batch norms,
    and 3 x 3 in the place of the paper's 5 x 5.

    Args:
      classes: the number of outputs.
      aux: heads behind `mixed4a` and `mixed4d`, used in training (`AuxHeads`, `losses.AuxLoss`).
      width: a factor of all channels.
      blocks: how many blocks of each of the three stages there are, from the first.
      dropout: in front of the affine map.
      channels: those of the picture.

    Parameters, with 1000 classes: 6,624,904; with the heads 13,004,888. Paths: `conv1`, ..., `mixed3a/branch1/conv1`,
    ..., `head`; with heads in `body/0`, `body/1`, `body/2`, and `aux/0`, `aux/1`. `inception_v1_names` says what they
    are in torchvision.

    >>> from dlkit import tree
    >>> tree.count(jax.eval_shape(inception_v1().init, jax.random.key(0)))
    6624904

    Raises:
      ValueError: a stage without a block, or with more than the paper's.
    """
    if len(blocks) != 3 or any(not 0 < n <= len(V1[i]) for i, n in enumerate(blocks, 3)):
        raise ValueError(f"inception_v1 has up to 2, 5 and 2 blocks in its stages, at least one, got {tuple(blocks)}")
    k = _scaled(width)
    c, stem = k(192), k(64)
    parts: Parts = {
        "conv1": unit(channels, stem, 7, 2, 3), "pool1": nn.MaxPool(3, 2, ceil_mode=True),
        "conv2": unit(stem, stem), "conv3": unit(stem, c, 3, 1, 1), "pool2": nn.MaxPool(3, 2, ceil_mode=True),
    }  # fmt: skip
    heads: Parts = {}
    for i, n in enumerate(blocks, 3):
        for letter, row in zip("abcde"[:n], V1[i], strict=False):
            one, to_three, three, to_five, five, pooled = map(k, row)
            name = f"mixed{i}{letter}"
            parts[name] = part.block_v1(c, one, to_three, three, to_five, five, pooled)
            c = one + three + five + pooled
            if aux and name in ("mixed4a", "mixed4d"):
                heads[name] = _head_v1(c, k, classes)
        if i < 5:
            parts[f"pool{i}"] = nn.MaxPool(3 if i == 3 else 2, 2, ceil_mode=True)
    parts |= {"mean": nn.GlobalAvgPool(), "dropout": nn.Dropout(dropout), "head": nn.Linear(c, classes)}
    return _split(parts, heads)


def _head_v1(c: int, k: Callable[[int], int], classes: int) -> nn.Chain:
    inner = k(128)
    return nn.Chain(
        mean=nn.AdaptiveAvgPool(4), conv=unit(c, inner), permute=nn.Permute((2, 0, 1)), flatten=nn.Flatten(),
        linear=nn.Linear(16 * inner, k(1024)), relu=nn.Relu(), dropout=nn.Dropout(0.7),
        head=nn.Linear(k(1024), classes),
    )  # fmt: skip


def inception_v3(
    classes: int = 1000,
    *,
    aux: bool = False,
    width: float = 1.0,
    blocks: Sequence[int] = (3, 4, 2),
    dropout: float = 0.5,
    channels: int = 3,
) -> nn.Layer[Any, Any]:
    """Inception v3: five convolutions, blocks of three kinds with a halving between, mean, an affine map.

    `[B, H, W, channels]` in (299 x 299 in the paper, at least 75 x 75), `[B, classes]` out.

    Args:
      classes: the number of outputs.
      aux: a head behind the last block of the second kind, used in training; the picture must have at least 267
        pixels on a side there.
      width: a factor of all channels.
      blocks: how many blocks of each kind there are, from the first: at most 3, 4 and 2.
      dropout: in front of the affine map.
      channels: those of the picture.

    Parameters, with 1000 classes: 23,834,568; with the head 27,161,264. Paths: `conv1` to `conv5`, `mixed5b` to
    `mixed7c` (the names of the authors' code), `head`; with a head in `body/0`, `body/1`, and `aux/0`.
    `inception_v3_names` says what they are in torchvision.

    >>> from dlkit import tree
    >>> tree.count(jax.eval_shape(inception_v3(aux=True).init, jax.random.key(0)))
    27161264

    Raises:
      ValueError: a kind without a block, or with more than the paper's.
    """
    if len(blocks) != 3 or any(not 0 < n <= most for n, most in zip(blocks, (3, 4, 2), strict=False)):
        raise ValueError(f"inception_v3 has up to 3, 4 and 2 blocks of its kinds, at least one, got {tuple(blocks)}")
    k = _scaled(width)
    parts: Parts = {
        "conv1": unit(channels, k(32), 3, 2), "conv2": unit(k(32), k(32), 3), "conv3": unit(k(32), k(64), 3, 1, 1),
        "pool1": nn.MaxPool(3, 2), "conv4": unit(k(64), k(80)), "conv5": unit(k(80), k(192), 3),
        "pool2": nn.MaxPool(3, 2),
    }  # fmt: skip
    c = k(192)
    for letter, pooled in zip("bcd"[: blocks[0]], (32, 64, 64), strict=False):
        parts[f"mixed5{letter}"] = part.block_a(c, k, pooled)
        c = 2 * k(64) + k(96) + k(pooled)
    parts["mixed6a"] = part.block_b(c, k)
    c += k(384) + k(96)
    name = "mixed6a"
    for letter, inner in zip("bcde"[: blocks[1]], (128, 160, 160, 192), strict=False):
        name = f"mixed6{letter}"
        parts[name] = part.block_c(c, k, inner)
        c = 4 * k(192)
    heads: Parts = {name: _head_v3(c, k, classes)} if aux else {}
    parts["mixed7a"] = part.block_d(c, k)
    c += k(320) + k(192)
    for letter in "bc"[: blocks[2]]:
        parts[f"mixed7{letter}"] = part.block_e(c, k)
        c = k(320) + 4 * k(384) + k(192)
    parts |= {"mean": nn.GlobalAvgPool(), "dropout": nn.Dropout(dropout), "head": nn.Linear(c, classes)}
    return _split(parts, heads)


def _head_v3(c: int, k: Callable[[int], int], classes: int) -> nn.Chain:
    return nn.Chain(
        mean1=nn.AvgPool(5, 3), **chain(c, (k(128),), (k(768), 5)).parts(),  # pyright: ignore[reportArgumentType]
        mean2=nn.GlobalAvgPool(), head=nn.Linear(k(768), classes),
    )  # fmt: skip
