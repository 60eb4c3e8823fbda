"""Pictures of spectra, landscapes, paths and of a run's curvature, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlkit.curvature.density import Density
from dlkit.curvature.directions import Plane
from dlkit.curvature.landscape import Barrier, Landscape
from dlkit.inspect.plots import FAINT, INK, TRAIN, VALID, _clean, _figure, _save

__all__ = ["plot_barriers", "plot_curvature", "plot_density", "plot_landscape", "plot_layers"]

COLORS = (TRAIN, VALID, "#009e73", "#cc79a7", "#56b4e9", "#7a7a7a")  # Okabe and Ito's order beside the house's two


def plot_density(density: Density, path: str | Path, *, title: str = "Eigenvalue density") -> Path:
    """The density on a logarithmic axis, with one standard error, and the ends of the spectrum.

    Args:
      density: of `spectral_density`. path: where the PNG is written. title: the heading.
    """
    figure = _figure(6.4, 3.9)
    axes = figure.subplots()
    floor = 1e-6 * float(density.density.max())
    axes.plot(density.grid, np.maximum(density.density, floor), color=TRAIN, linewidth=1.6, label="density")
    if np.isfinite(density.standard_error).all():
        low, high = (np.maximum(density.density + s * density.standard_error, floor) for s in (-1, 1))
        axes.fill_between(density.grid, low, high, color=TRAIN, alpha=0.25, linewidth=0, label="one standard error")
    low, high = density.nodes.min(), density.nodes.max()
    for value, name in ((low, "smallest"), (high, "largest")):
        axes.axvline(value, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label=f"{name} {value:.4g}")
    axes.set_yscale("log")
    axes.set_ylim(floor, 3 * float(density.density.max()))
    axes.set_xlabel("eigenvalue", color=INK)
    axes.set_ylabel("density (log scale)", color=INK)
    axes.set_title(f"{title}\n{density.size:,} eigenvalues, {len(density.nodes)} probes", fontsize=11, color=INK)
    _clean(axes)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return _save(figure, path)


def plot_landscape(
    landscape: Landscape,
    path: str | Path,
    *,
    plane: Plane | None = None,
    log: bool = False,
    labels: tuple[str, str] = ("along direction 1", "along direction 2"),
    title: str = "Loss landscape",
) -> Path:
    """The loss along a line as a curve, or over a plane as filled contours, with a training path on it.

    Args:
      landscape: of `landscape_1d` or `landscape_2d`.
      path: where the PNG is written.
      plane: of `path_plane`: its path is drawn, and its axes say how much of it they explain.
      log: the loss on a logarithmic scale; every value must be above 0.
      labels: of the axes. title: the heading.

    Raises:
      ValueError: `log` with a loss that is not above 0.
    """
    values = landscape.values
    if log and not np.nanmin(values) > 0:
        raise ValueError(f"log=True needs losses above 0, the lowest is {np.nanmin(values):.3g}: take log=False")
    figure = _figure(6.2, 4.8 if landscape.y is not None else 3.9)
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, color=INK)
    if plane is not None:
        labels = tuple(f"principal direction {i + 1} ({s:.0%} of the path)" for i, s in enumerate(plane.explained))  # pyright: ignore[reportAssignmentType]
    axes.set_xlabel(labels[0], color=INK)
    if landscape.y is None:
        axes.plot(landscape.x, values, color=TRAIN, linewidth=1.8)
        axes.axvline(0, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_yscale("log" if log else "linear")
        axes.set_ylabel("loss (log scale)" if log else "loss", color=INK)
        _clean(axes)
        return _save(figure, path)
    from matplotlib.ticker import FuncFormatter

    shown = np.log10(values) if log else values
    filled = axes.contourf(landscape.x, landscape.y, shown, levels=24, cmap="viridis")
    axes.contour(
        landscape.x, landscape.y, shown, levels=12, colors="white", linestyles="solid", linewidths=0.5, alpha=0.6
    )
    bar = figure.colorbar(filled, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("loss (log scale)" if log else "loss", color=INK, fontsize=9)
    if log:
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{10**v:.3g}"))
    bar.ax.tick_params(colors=FAINT, labelsize=8.5, length=2)
    bar.outline.set_visible(False)
    if plane is not None:
        x, y = plane.coordinates.T
        axes.plot(x, y, color="white", linewidth=3.2)
        axes.plot(x, y, color=VALID, linewidth=1.6, marker="o", markersize=3, label="training path")
        axes.plot(x[-1], y[-1], color=INK, marker="*", markersize=12, linestyle="", label="end")
        axes.legend(fontsize=9, labelcolor=INK, framealpha=0.9)
    else:
        axes.plot(0, 0, color=VALID, marker="*", markersize=12, markeredgecolor="white", linestyle="")
    axes.set_ylabel(labels[1], color=INK)
    _clean(axes, grid=False)
    return _save(figure, path)


def plot_barriers(barriers: Mapping[str, Barrier], path: str | Path, *, title: str = "Loss between two models") -> Path:
    """The loss along one or more paths between two models: the straight line beside a trained curve, say.

    Args:
      barriers: by name. path: where the PNG is written. title: the heading.

    Raises:
      ValueError: none are given.
    """
    if not barriers:
        raise ValueError("no barriers are given: expected a mapping such as {'straight line': barrier(loss, a, b)}")
    figure = _figure(6.2, 3.9)
    axes = figure.subplots()
    for (name, found), color in zip(barriers.items(), COLORS, strict=False):
        label = f"{name}: height {found.height:.3g}"
        axes.plot(found.positions, found.losses, color=color, linewidth=1.8, marker="o", markersize=3, label=label)
    axes.set_xlabel("position between the models (0 and 1 are the models)", color=INK)
    axes.set_ylabel("loss", color=INK)
    axes.set_title(title, fontsize=11, color=INK)
    _clean(axes)
    low, high = axes.get_ylim()  # the legend stands above the curves, which go up and down all over the width
    axes.set_ylim(low, high + (0.04 + 0.07 * len(barriers)) * (high - low))
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")
    return _save(figure, path)


def plot_curvature(
    rows: Sequence[Mapping[str, Any]], path: str | Path, *, title: str = "Curvature in training"
) -> Path:
    """What a `CurvatureMonitor` measured against the step: the learning rate beside its limit, the trace, the noise.

    Args:
      rows: `monitor.rows`. path: where the PNG is written. title: the heading.

    Raises:
      ValueError: the rows hold no measurement.
    """
    if not any("curvature/step" in row for row in rows):
        raise ValueError("the rows hold no measurement: expected CurvatureMonitor.rows, with at least one")
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = _figure(13.2, 3.9)
    figure.suptitle(title, fontsize=13, color=INK)
    limits, traces, noise = figure.subplots(1, 3)
    for name, label, color in (("max_stable_lr", "limit, 2 / lambda_max", VALID), ("learning_rate", "in use", TRAIN)):
        limits.plot(*_series(rows, name), color=color, linewidth=1.8, label=label)
    limits.set_ylabel("learning rate (log scale)", color=INK)
    for name, label, color in (("trace", "trace", TRAIN), ("lambda_max", "lambda_max", VALID)):
        step, value = _series(rows, name)
        error = _series(rows, f"{name}_error")[1]
        traces.plot(step, value, color=color, linewidth=1.8, label=label)
        if len(error) == len(value):
            low, high = np.maximum(value - error, 0.05 * np.abs(value)), value + error
            traces.fill_between(step, low, high, color=color, alpha=0.2, linewidth=0)
    traces.set_ylabel("eigenvalues (log scale)", color=INK)
    noise.plot(*_series(rows, "noise_scale"), color="#009e73", linewidth=1.8, label="gradient noise scale")
    noise.set_ylabel("examples (log scale)", color=INK)
    for axes in (limits, traces, noise):
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        plain = FuncFormatter(lambda v, _: f"{v:.3g}")
        axes.yaxis.set_major_formatter(plain)
        # Below a decade the axis would have one labelled tick or none; above, the small ones would crowd.
        axes.yaxis.set_minor_formatter(plain if high < 10 * low else NullFormatter())
        axes.set_xlabel("step", color=INK)
        _clean(axes)
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return _save(figure, path)


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    key = f"curvature/{name}"
    kept = [(row["curvature/step"], row[key]) for row in rows if key in row and np.isfinite(row[key])]
    step, value = np.asarray(kept, np.float64).reshape(-1, 2).T
    return step, value


def plot_layers(
    rows: Sequence[Mapping[str, Any]], path: str | Path, *, what: str = "grad_norm", title: str | None = None
) -> Path:
    """One row a leaf, one column a measurement: how gradients flow, how far updates go, or which units died.

    Args:
      rows: `monitor.rows`. path: where the PNG is written.
      what: "grad_norm" or "update_ratio", on a logarithmic scale, or "dead".
      title: the heading.

    Raises:
      ValueError: an unknown `what`, or none of it in the rows.
    """
    names = {"grad_norm": "gradient norm", "update_ratio": "update to weight ratio", "dead": "share of dead outputs"}
    if what not in names:
        raise ValueError(f"what must be one of {', '.join(names)}, got {what!r}")
    start = f"curvature/{what}/"
    leaves = list(dict.fromkeys(key.removeprefix(start) for row in rows for key in row if key.startswith(start)))
    if not leaves:
        raise ValueError(f"the rows hold no {what}: expected CurvatureMonitor.rows, with at least one measurement")
    table = np.array([[row.get(start + leaf, np.nan) for row in rows] for leaf in leaves], np.float64)
    if what != "dead":
        with np.errstate(divide="ignore"):
            table = np.log10(table)
        table[~np.isfinite(table)] = np.nan
    figure = _figure(7.2, min(1.6 + 0.26 * len(leaves), 14.0))
    axes = figure.subplots()
    limits = {"vmin": 0, "vmax": 1} if what == "dead" else {}
    image = axes.imshow(table, aspect="auto", cmap="cividis", interpolation="nearest", **limits)
    axes.set_yticks(range(len(leaves)), leaves)
    marks = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 6)).astype(int))
    axes.set_xticks(marks, [str(rows[i]["curvature/step"]) for i in marks])
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("parameters", color=INK)
    axes.set_title(title or names[what].capitalize(), fontsize=11, color=INK)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label(names[what] if what == "dead" else f"log10 {names[what]}", color=INK, fontsize=9)
    bar.ax.tick_params(colors=FAINT, labelsize=8.5, length=2)
    bar.outline.set_visible(False)
    _clean(axes, grid=False)
    return _save(figure, path)
