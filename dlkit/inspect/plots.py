"""Pictures of a run, as PNG files: learning curves, a confusion matrix, the examples that were misclassified.

They are drawn with matplotlib's object interface, so neither pyplot's state nor the backend of a notebook is touched.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlkit.wording import is_share, number, percent

__all__ = ["confusion_matrix", "learning_curves", "misclassified"]

TRAIN, VALID, BEST, GRID, INK, FAINT = "#3b6ea8", "#d1662b", "#7a7a7a", "#e3e3e3", "#222222", "#666666"


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install -e ".[train]"') from error
    figure = Figure(figsize=(width, height), dpi=140, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _clean(axes: Any, *, grid: bool = True) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    axes.tick_params(which="both", colors=FAINT, labelsize=9)
    if grid:
        axes.grid(True, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)


def _save(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path


def learning_curves(history: Sequence[Mapping[str, Any]], path: str | Path, *, title: str = "Learning curves") -> Path:
    """One panel a metric, training and validation against the epoch; the loss on a logarithmic axis.

    Args:
      history: one mapping an epoch. `"epoch"` counts from 1; `"train/NAME"` and `"valid/NAME"` hold the metrics, and
        what is not a number of such a name is left out.
      path: where the PNG is written; its folder is made where it is missing.
      title: the heading.

    Raises:
      ValueError: the history holds no metric.
      ImportError: matplotlib is missing.
    """
    rows = [row for row in history if any(_is_metric(k, v) for k, v in row.items())]
    found = dict.fromkeys(k.split("/", 1)[1] for row in rows for k, v in row.items() if _is_metric(k, v))
    names = sorted(found, key=lambda name: (name != "loss", name))
    if not names:
        raise ValueError('the history holds no metric: expected one mapping an epoch with keys such as "train/loss"')
    figure = _figure(5.2 * len(names), 3.9)
    figure.suptitle(title, fontsize=13, color=INK)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        _curve(axes, rows, name)
    return _save(figure, path)


def _is_metric(key: str, value: Any) -> bool:
    return key.startswith(("train/", "valid/")) and isinstance(value, int | float) and not isinstance(value, bool)


def _curve(axes: Any, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    share = is_share(name)
    series = {}
    for part, label, color in (("train", "training", TRAIN), ("valid", "validation", VALID)):
        points = [(r.get("epoch", i + 1), r[f"{part}/{name}"]) for i, r in enumerate(rows) if f"{part}/{name}" in r]
        if points:
            x, y = np.asarray(points, dtype=np.float64).T
            series[part] = y
            axes.plot(x, y, color=color, linewidth=1.8, marker="o" if len(x) < 30 else "", markersize=3.5, label=label)
    if "valid" in series:
        pick = np.nanargmin if name.endswith("loss") or name in ("perplexity", "mse", "mae") else np.nanargmax
        epochs = [r.get("epoch", i + 1) for i, r in enumerate(rows) if f"valid/{name}" in r]
        if np.isfinite(series["valid"]).any():
            best = int(pick(series["valid"]))
            label = f"best {number(name, float(series['valid'][best]))} (epoch {epochs[best]:.0f})"
            axes.axvline(epochs[best], color=BEST, linewidth=1, linestyle=(0, (4, 3)), label=label)
    axes.set_xlabel("epoch", color=INK)
    axes.set_ylabel(f"{name} (%)" if share else name, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if name == "loss" and all((y > 0).all() for y in series.values()):
        axes.set_yscale("log")
        axes.set_ylabel("loss (log scale)", color=INK)
        low, high = min(np.nanmin(y) for y in series.values()), max(np.nanmax(y) for y in series.values())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        # Below a decade the axis would have one labelled tick or none.
        axes.yaxis.set_minor_formatter(
            FuncFormatter(lambda v, _: f"{v:g}") if high < 10 * low else NullFormatter(),
        )
    elif share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.4g}"))
    _clean(axes)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def confusion_matrix(
    matrix: Any, classes: Sequence[str] | None, path: str | Path, *, title: str = "Confusion matrix"
) -> Path:
    """Counts by true class (rows) and predicted class (columns), colored by the share of the row.

    Args:
      matrix: `[C, C]` counts, `matrix[i, j]` the examples of class i that were taken for class j.
      classes: the C names, or None for 0 .. C-1.
      path: where the PNG is written.
      title: the heading.

    Raises:
      ValueError: the matrix is not square, or there are not as many names as classes.
      ImportError: matplotlib is missing.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"a confusion matrix is square, got shape {counts.shape}")
    names = [str(c) for c in (range(len(counts)) if classes is None else classes)]
    if len(names) != len(counts):
        raise ValueError(f"got {len(names)} class names for {len(counts)} classes")
    totals = counts.sum(1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    size = min(max(4.2, 0.52 * len(names) + 1.6), 16.0)
    figure = _figure(size + 1.0, size)
    axes = figure.subplots()
    from matplotlib.colors import LinearSegmentedColormap

    # Errors are rare: with a root scale a share of 1 % is still seen.
    ramp = LinearSegmentedColormap.from_list("share", ["#ffffff", "#c6d8ec", "#3b6ea8", "#1d3f66"])
    image = axes.imshow(np.sqrt(share), cmap=ramp, vmin=0, vmax=1)
    if len(names) <= 20:
        for (i, j), n in np.ndenumerate(counts):
            if n:
                color = "white" if share[i, j] > 0.35 else INK
                axes.text(j, i, f"{n:.0f}", ha="center", va="center", color=color, fontsize=9 if i == j else 8.5)
    axes.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#ececec", linewidth=0.7)
    axes.tick_params(which="both", length=0, colors=INK, labelsize=9)
    for spine in axes.spines.values():
        spine.set_color("#bbbbbb")
    axes.set_xlabel("predicted class", color=INK)
    axes.set_ylabel("true class", color=INK)
    right, total = np.trace(counts), counts.sum()
    below = f"{percent(right / total)} of {total:,.0f} examples are right" if total else "no examples"
    axes.set_title(f"{title}\n{below}", fontsize=11, color=INK)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    marks = [0, 0.01, 0.05, 0.2, 0.5, 1.0]
    bar.set_ticks(list(np.sqrt(marks)), labels=[f"{100 * m:g}" for m in marks])
    bar.set_label("share of the true class (%)", color=INK, fontsize=9)
    bar.ax.tick_params(colors=FAINT, labelsize=8.5, length=2)
    bar.outline.set_visible(False)
    return _save(figure, path)


def misclassified(
    images: Any,
    targets: Any,
    predictions: Any,
    probabilities: Any,
    classes: Sequence[str] | None,
    path: str | Path,
    *,
    title: str = "Misclassified examples",
    limit: int = 24,
) -> Path:
    """The examples that the model got wrong, the surest mistakes first, each with both answers.

    Args:
      images: `[N, H, W]`, `[N, H, W, 1]` or `[N, H, W, 3]`, of any range.
      targets: `[N]` true classes.
      predictions: `[N]` predicted classes.
      probabilities: `[N, C]` probabilities, or None where the model gives none.
      classes: the C names, or None for 0 .. C-1.
      path: where the PNG is written; a picture is written where nothing is wrong, too.
      title: the heading.
      limit: at most so many examples are shown.

    Raises:
      ValueError: `images` is not a batch of images.
      ImportError: matplotlib is missing.
    """
    images, targets, predictions = (np.asarray(a) for a in (images, targets, predictions))
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        raise ValueError(f"images must be [N, H, W], [N, H, W, 1] or [N, H, W, 3], got shape {images.shape}")
    wrong = np.flatnonzero(targets != predictions)
    sure = None if probabilities is None else np.asarray(probabilities, dtype=np.float64)
    if sure is not None:
        wrong = wrong[np.argsort(-sure[wrong, predictions[wrong]], kind="stable")]
    shown, n = wrong[:limit], len(targets)
    columns = min(8, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    more = f", the surest {len(shown)} shown" if len(shown) < len(wrong) else ""
    share = f"{len(wrong):,} of {n:,} ({percent(len(wrong) / n)})" if n else "0 of 0"
    heading = f"{title}: {share}{more}"
    # Few mistakes stand in the middle of a figure that is as wide as its heading.
    figure = _figure(max(1.45 * columns, 0.1 * len(heading) + 0.4), 1.75 * rows + 0.75)
    figure.suptitle(heading, fontsize=12, color=INK)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    name = (lambda c: str(c)) if classes is None else (lambda c: str(classes[c]))
    for axes in grid:
        axes.axis("off")
    widest = max((len(f"says {name(predictions[i])} (100 %)") for i in shown), default=0)
    size = 8.5 * min(1.0, 20 / max(widest, 1))  # so that neighbours do not touch
    for axes, i in zip(grid, shown, strict=False):
        picture = images[i].astype(np.float64)
        low, high = picture.min(), picture.max()
        picture = (picture - low) / (high - low) if high > low else np.zeros_like(picture)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        said = f" ({percent(float(sure[i, predictions[i]]), 0)})" if sure is not None else ""
        axes.set_title(f"says {name(predictions[i])}{said}\nis {name(targets[i])}", fontsize=size, color=INK)
    if not len(shown):
        grid[0].figure.text(0.5, 0.4, "nothing is misclassified", ha="center", fontsize=12, color=FAINT)
    return _save(figure, path)
