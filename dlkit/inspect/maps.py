"""Pictures of what is inside a convolutional network: its filters, its maps, and heat over its inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlkit.inspect.plots import FAINT, INK, _figure, _save

__all__ = ["filters_plot", "heat_plot", "maps_plot"]

SIGNED = "PuOr"  # orange below 0, white at 0, purple above: told apart by everyone


def _drawn(
    tiles: np.ndarray,
    columns: int,
    *,
    names: Sequence[str],
    title: str,
    label: str,
    cmap: str,
    limits: tuple[float, float] | None,
    path: str | Path | None,
) -> Any:
    """tiles `[N, h, w]` or `[N, h, w, 3]`, row by row; a colour bar where they share a scale."""
    n = len(tiles)
    columns = columns or min(n, max(4, int(np.ceil(np.sqrt(n)))))
    rows = -(-n // columns)
    side = min(1.3, 9.0 / columns)
    name_space = 0.22 if names else 0.0
    tall = side * tiles.shape[1] / tiles.shape[2] + name_space
    width = max(columns * side, 2.6) + (0.9 if limits else 0.0)
    figure = _figure(width, rows * tall + (0.45 if title else 0.1))
    grid = figure.subplots(rows, columns, squeeze=False)
    image = None
    for i, axes in enumerate(grid.ravel()):
        axes.set_axis_off()
        if i >= n:
            continue
        low, high = (None, None) if limits is None else limits
        image = axes.imshow(tiles[i], cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
        if names:
            axes.set_title(names[i], fontsize=8.5, color=INK, pad=2)
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    if limits is not None and image is not None:
        bar = figure.colorbar(image, ax=grid, fraction=0.05, pad=0.02, aspect=25)
        bar.set_label(label, color=INK, fontsize=9)
        bar.ax.tick_params(colors=FAINT, labelsize=8, length=2)
        bar.outline.set_visible(False)
    if path is not None:
        _save(figure, path)
    return figure


def _names(who: str, names: Sequence[str], n: int) -> list[str]:
    if len(names) and len(names) < n:
        raise ValueError(f"{who}: {len(names)} names for {n} pictures: give one for each")
    return [str(name) for name in names][:n]


def filters_plot(
    w: Any, *, limit: int = 64, columns: int = 0, title: str = "Filters", path: str | Path | None = None
) -> Any:
    """The kernels of a convolution, one picture a kernel: purple is positive, orange negative, one scale for all.

    Args:
      w: the layer's weights `[kh, kw, c_in, c_out]`. With one input channel a picture an output channel; with several
        the first input channel's kernels for all outputs, then the second's, a row each (`columns` is then c_out).
      limit: at most so many pictures, and output channels.
      columns: pictures in a row.
      title: the heading.
      path: where the picture is written too.

    Returns:
      The matplotlib figure.

    >>> figure = filters_plot(np.random.default_rng(0).standard_normal((3, 3, 1, 8)))
    >>> sum(bool(axes.images) for axes in figure.axes[:-1])
    8

    Raises:
      ValueError: w is no `[kh, kw, c_in, c_out]`.
      ImportError: matplotlib is missing.
    """
    w = np.asarray(w, np.float64)
    if w.ndim != 4 or 0 in w.shape:
        raise ValueError(f"filters_plot wants weights of a 2-D convolution [kh, kw, c_in, c_out], got shape {w.shape}")
    w = w[..., : max(1, limit)]
    c_in, c_out = w.shape[2:]
    kept = max(1, min(c_in, limit // c_out))
    tiles = np.moveaxis(w[:, :, :kept], (2, 3), (0, 1)).reshape(kept * c_out, *w.shape[:2])
    top = float(np.abs(tiles).max()) or 1.0
    columns = columns if columns or kept == 1 else c_out
    return _drawn(
        tiles, columns, names=[], title=title, label="weight", cmap=SIGNED, limits=(-top, top), path=path
    )  # fmt: skip


def maps_plot(
    maps: Any,
    *,
    limit: int = 64,
    columns: int = 0,
    names: Sequence[str] = (),
    title: str = "Feature maps",
    label: str = "activation",
    path: str | Path | None = None,
) -> Any:
    """The channels of one layer's output for one picture, on one scale: purple is positive, orange negative.

    Where nothing is negative (after a ReLU) the scale goes from black, 0, to white.

    Args:
      maps: `[h, w, K]`, what `models.features` gives for one example.
      limit: at most so many channels.
      columns: pictures in a row.
      names: of the channels, above them.
      title: the heading; `label`: of the colour bar.
      path: where the picture is written too.

    Returns:
      The matplotlib figure.

    >>> figure = maps_plot(np.random.default_rng(0).random((4, 4, 3)), names=("a", "b", "c"))
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['a', 'b', 'c']

    Raises:
      ValueError: maps is no `[h, w, K]`; fewer names than channels.
      ImportError: matplotlib is missing.
    """
    maps = np.asarray(maps, np.float64)
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"maps_plot wants the maps of one example [h, w, K], got shape {maps.shape}")
    tiles = np.moveaxis(maps[..., : max(1, limit)], -1, 0)
    top = float(np.abs(tiles).max()) or 1.0
    signed = float(tiles.min()) < 0
    return _drawn(
        tiles, columns, names=_names("maps_plot", names, len(tiles)), title=title, label=label,
        cmap=SIGNED if signed else "gray", limits=(-top if signed else 0.0, top), path=path,
    )  # fmt: skip


def heat_plot(
    images: Any,
    heat: Any,
    *,
    columns: int = 0,
    names: Sequence[str] = (),
    title: str = "",
    path: str | Path | None = None,
) -> Any:
    """Pictures in grey with heat laid over them: what `grad_cam`, `saliency` or `occlusion` found.

    Each map is scaled by its own largest size: the colours say where, not how much. Where a map is negative somewhere,
    purple is positive and orange negative; where none is, yellow is hot and what is 0 shows the picture alone.

    Args:
      images: `[N, H, W]`, `[N, H, W, 1]` or `[N, H, W, 3]`, of any range.
      heat: `[N, h, w]`, stretched over the picture; for several channels take their sum first.
      columns: pictures in a row.
      names: one for each picture.
      title: the heading.
      path: where the picture is written too.

    Returns:
      The matplotlib figure.

    >>> figure = heat_plot(np.zeros((2, 8, 8, 1)), np.ones((2, 4, 4)), names=("a", "b"))
    >>> len(figure.axes)
    2

    Raises:
      ValueError: shapes that are no pictures, or not as many maps or names as pictures.
      ImportError: matplotlib is missing.
    """
    images, heat = np.asarray(images, np.float64), np.asarray(heat, np.float64)
    if images.ndim == 4:
        images = images.mean(-1)
    if images.ndim != 3 or heat.ndim != 3 or len(images) != len(heat) or not len(images):
        raise ValueError(
            f"heat_plot wants images [N, H, W], [N, H, W, 1] or [N, H, W, 3] and heat [N, h, w], got {images.shape} "
            f"and {heat.shape}"
        )
    labels = _names("heat_plot", names, len(images))
    from matplotlib import colormaps

    low, high = (f(images, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    grey = np.divide(images - low, high - low, out=np.zeros_like(images), where=high > low)
    rows, spots = (np.arange(n) * k // n for n, k in zip(grey.shape[1:], heat.shape[1:], strict=True))
    heat = heat[:, rows][:, :, spots]
    size = np.abs(heat).max((1, 2), keepdims=True)
    share = np.divide(heat, size, out=np.zeros_like(heat), where=size > 0)
    signed = bool(share.min() < 0)
    # What is cold stays grey: the strength of the colour is the size of the heat.
    colour = colormaps[SIGNED]((share + 1) / 2) if signed else colormaps["cividis"](share)
    strength = (0.85 * np.abs(share))[..., None]
    tiles = (1 - strength) * (0.15 + 0.7 * grey)[..., None] + strength * colour[..., :3]
    return _drawn(
        tiles, columns, names=labels, title=title, label="", cmap="gray", limits=None, path=path
    )  # fmt: skip
