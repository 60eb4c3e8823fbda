"""Pictures of what an autoencoder has learned: reconstructions, samples, the plane of two latent numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlkit.inspect.plots import FAINT, INK, _clean, _figure, _save

__all__ = ["latent_scatter", "picture_grid", "reconstructions"]


def _grey(images: Any) -> np.ndarray:
    images = np.asarray(images, np.float64)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        raise ValueError(f"images must be [N, H, W], [N, H, W, 1] or [N, H, W, 3], got shape {images.shape}")
    return np.clip(images, 0, 1)


def _tiled(images: np.ndarray, columns: int, gap: int = 0) -> np.ndarray:
    """One picture of all, row by row; missing ones are black. Between them a grey line, `gap` pixels wide."""
    edges = [(0, 0), (0, gap), (0, gap), *[(0, 0)] * (images.ndim - 3)]
    images = np.pad(images, edges, constant_values=0.4)
    n, height, width, *colors = images.shape
    rows = -(-n // columns)
    blank = np.zeros((rows * columns - n, height, width, *colors))
    grid = np.concatenate([images, blank]).reshape(rows, columns, height, width, *colors)
    return grid.swapaxes(1, 2).reshape(rows * height, columns * width, *colors)


def picture_grid(images: Any, path: str | Path, *, columns: int = 0, gap: int = 0, title: str = "") -> Path:
    """Pictures side by side, row by row: samples, or the plane of two latent numbers.

    Args:
      images: `[N, H, W]`, `[N, H, W, 1]` or `[N, H, W, 3]`, in [0, 1].
      path: where the PNG is written.
      columns: pictures in a row; by default about the square root of N.
      gap: pixels of grey between them.
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
    return _save(figure, path)


def reconstructions(
    images: Any,
    rebuilt: Any,
    path: str | Path,
    *,
    seen: Any = None,
    columns: int = 12,
    title: str = "Reconstructions",
) -> Path:
    """Each picture above what the model made of it.

    Args:
      images, rebuilt: `[N, H, W]`, `[N, H, W, 1]` or `[N, H, W, 3]`, in [0, 1], of one shape.
      seen: what a denoising model was given of them, shaped likewise: a row between; cut to [0, 1].
      path: where the PNG is written.
      columns: at most so many pictures are shown.
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
    return picture_grid(np.concatenate([*given.values()]), path, columns=len(given["images"]), title=about)


def latent_scatter(
    codes: Any, labels: Any, path: str | Path, *, classes: Sequence[str] | None = None, title: str = "Latent codes"
) -> Path:
    """The first two numbers of each code, colored by class.

    Args:
      codes: `[N, d]`, d at least 2.
      labels: `[N]` classes.
      path: where the PNG is written.
      classes: their names, or None for the numbers.
      title: the heading.

    Raises:
      ValueError: the codes have fewer than two numbers.
      ImportError: matplotlib is missing.
    """
    codes, labels = np.asarray(codes), np.asarray(labels)
    if codes.ndim != 2 or codes.shape[1] < 2:
        raise ValueError(f"latent_scatter wants codes [N, 2] or wider, got shape {codes.shape}")
    from matplotlib import colormaps

    figure = _figure(6.4, 5.6)
    axes = figure.subplots()
    for i, label in enumerate(np.unique(labels)):
        own = codes[labels == label]
        name = str(label) if classes is None else classes[int(label)]
        axes.scatter(own[:, 0], own[:, 1], s=5, color=colormaps["tab10"](i % 10), label=name, linewidths=0, alpha=0.6)
    axes.set_xlabel("latent 1", color=FAINT)
    axes.set_ylabel("latent 2", color=FAINT)
    axes.set_title(title, fontsize=12, color=INK)
    _clean(axes)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
    return _save(figure, path)
