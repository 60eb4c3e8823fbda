"""Pictures of what an autoencoder has learned: reconstructions, samples, the plane of two latent numbers."""

from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float

from dlkit.inspect.plots import FAINT, INK, _clean, _figure, _save

__all__ = ["latent_plane", "latent_scatter", "picture_grid", "reconstructions"]


def latent_plane(side: int = 20) -> Float[np.ndarray, "side*side 2"]:
    """Codes of two numbers on a square grid with equal steps of probability under N(0, I), `[side^2, 2]`, float32.

    Row by row as `picture_grid` draws them: the first number grows to the right, the second upwards. A corner of the
    picture is then as likely as its middle.

    >>> latent_plane(2).round(3).tolist()
    [[-0.674..., 0.674...], [0.674..., 0.674...], [-0.674..., -0.674...], [0.674..., -0.674...]]

    Raises:
      ValueError: `side` is below 1.
    """
    if side < 1:
        raise ValueError(f"latent_plane wants a side of at least 1, got {side}")
    line = np.array([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)], np.float32)
    return np.stack(np.meshgrid(line, line[::-1]), -1).reshape(-1, 2)


def _grey(images: Any) -> np.ndarray:
    images = np.asarray(images, np.float64)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        raise ValueError(f"images must be [N, H, W], [N, H, W, 1] or [N, H, W, 3], got shape {images.shape}")
    return np.clip(images, 0, 1)


def _tiled(images: np.ndarray, columns: int, gap: int = 0) -> np.ndarray:
    """One picture of all, row by row; missing ones are black, gaps grey."""
    edges = [(0, 0), (0, gap), (0, gap), *[(0, 0)] * (images.ndim - 3)]
    images = np.pad(images, edges, constant_values=0.4)
    n, height, width, *colors = images.shape
    rows = -(-n // columns)
    blank = np.zeros((rows * columns - n, height, width, *colors))
    grid = np.concatenate([images, blank]).reshape(rows, columns, height, width, *colors)
    tiled = grid.swapaxes(1, 2).reshape(rows * height, columns * width, *colors)
    return tiled[: rows * height - gap, : columns * width - gap]


def _written(figure: Any, path: str | Path | None) -> Any:
    return figure if path is None else _save(figure, path)


def picture_grid(
    images: Any, path: str | Path | None = None, *, columns: int = 0, gap: int = 0, title: str = ""
) -> Any:
    """Pictures side by side, row by row: samples, or the plane of two latent numbers.

    Args:
      images: `[N, H, W]`, `[N, H, W, 1]` or `[N, H, W, 3]`, in [0, 1].
      path: where the PNG is written; None gives the matplotlib figure instead of the path.
      columns: pictures in a row; by default about the square root of N.
      gap: grey pixels between pictures; without them what goes over smoothly is seen better.
      title: the heading.

    Raises:
      ValueError: `images` is not a batch of images.
      ImportError: matplotlib is missing.
    """
    images = _grey(images)
    columns = columns or int(np.ceil(np.sqrt(len(images))))
    tiled = _tiled(images, columns, gap)
    figure = _figure(6.0, 6.0 * tiled.shape[0] / tiled.shape[1] + (0.4 if title else 0))
    axes = figure.subplots()
    axes.imshow(tiled, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.axis("off")
    if title:
        axes.set_title(title, fontsize=11, color=INK)
    return _written(figure, path)


def reconstructions(
    images: Any,
    rebuilt: Any,
    path: str | Path | None = None,
    *,
    seen: Any = None,
    columns: int = 12,
    gap: int = 0,
    title: str = "Reconstructions",
) -> Any:
    """Each picture above what the model made of it.

    Args:
      images, rebuilt: `[N, H, W]`, `[N, H, W, 1]` or `[N, H, W, 3]`, in [0, 1], of one shape.
      seen: what a denoising model was given of them, shaped likewise: a row between; cut to [0, 1].
      path: where the PNG is written; None gives the matplotlib figure instead of the path.
      columns: at most so many pictures are shown.
      gap: grey pixels between them.
      title: the heading.

    Raises:
      ValueError: no images, or of two shapes.
      ImportError: matplotlib is missing.
    """
    rows = {
        "images": _grey(images),
        "seen": None if seen is None else _grey(seen).clip(0, 1),
        "rebuilt": _grey(rebuilt),
    }
    given = {name: row[:columns] for name, row in rows.items() if row is not None}
    if len({row.shape for row in given.values()}) > 1:
        told = ", ".join(f"{name} {row.shape}" for name, row in given.items())
        raise ValueError(f"reconstructions: expected one shape, got {told}")
    about = f"{title}, rows: {'input, output' if seen is None else 'input, seen by the model, output'}"
    return picture_grid(np.concatenate([*given.values()]), path, columns=len(given["images"]), gap=gap, title=about)


def latent_scatter(
    codes: Any,
    labels: Any,
    path: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    title: str = "Latent codes",
) -> Any:
    """The first two numbers of each code, colored by class, and each class's name where its median is.

    Args:
      codes: `[N, d]`, d at least 2.
      labels: `[N]` classes.
      path: where the PNG is written; None gives the matplotlib figure instead of the path.
      classes: their names, or None for the numbers.
      title: the heading.

    Raises:
      ValueError: the codes have fewer than two numbers.
      ImportError: matplotlib is missing.
    """
    codes, labels = np.asarray(codes), np.asarray(labels)
    if codes.ndim != 2 or codes.shape[1] < 2:
        raise ValueError(f"latent_scatter wants codes [N, 2] or wider, got shape {codes.shape}")
    from matplotlib import colormaps, patheffects

    figure = _figure(6.4, 5.6)
    axes = figure.subplots()
    for i, label in enumerate(np.unique(labels)):
        own = codes[labels == label]
        name = str(label) if classes is None else classes[int(label)]
        axes.scatter(own[:, 0], own[:, 1], s=5, color=colormaps["tab10"](i % 10), label=name, linewidths=0, alpha=0.6)
        middle = np.median(own[:, :2], axis=0)  # told apart without colors too
        halo = [patheffects.withStroke(linewidth=3, foreground="white")]
        axes.text(*middle, name, fontsize=11, fontweight="bold", color=INK, ha="center", va="center", path_effects=halo)
    axes.set_xlabel("latent 1", color=FAINT)
    axes.set_ylabel("latent 2", color=FAINT)
    axes.set_title(title, fontsize=12, color=INK)
    _clean(axes)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
    return _written(figure, path)
