"""A picture of schedules."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit.optim.hyper import as_count
from dlkit.optim.schedules.curves import Schedule

__all__ = ["plot"]

# Okabe and Ito's colours without the yellow, which is faint on white; the dashes tell them apart without colour.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)))
INK, FAINT, GRID = "#222222", "#666666", "#e3e3e3"
POINTS = 2000  # of a curve: more than a screen shows


def plot(
    schedules: Callable[[Any], Any] | Sequence[Callable[[Any], Any]] | Mapping[str, Callable[[Any], Any]],
    steps: int,
    path: str | Path | None = None,
    *,
    ylabel: str = "value",
    log: bool = False,
) -> Any:
    """Draws schedules against the number of the update, from 0 to steps - 1.

    Args:
      schedules: one schedule, a list of them, or a mapping from labels to schedules. Without labels the legend shows
        their definitions.
      steps: how many updates, 1 or more. A curve of more than 2,000 updates is drawn through 2,000 of them.
      path: where the picture is written too (.png, .svg or .pdf); its folder is made where it is missing.
      ylabel: what the values are.
      log: whether the axis of the values is logarithmic.

    Returns:
      The matplotlib `Figure`; a notebook shows it.

    Raises:
      ValueError: no schedules, or `steps` below 1. TypeError: what is given is no schedule.
      ImportError: matplotlib is missing.

    >>> from dlkit import optim
    >>> figure = plot([optim.cosine_decay_schedule(1.0, 80), optim.linear_schedule(1.0, 0.0, 80)], 100)
    >>> [line.get_label() for line in figure.axes[0].lines][0]
    'CosineDecay(init_value=1.0, decay_steps=80, alpha=0.0, exponent=1.0)'
    """
    curves = _labelled(schedules)
    steps = as_count("plot", "steps", steps, 1)
    counts = np.unique(np.linspace(0, steps - 1, min(steps, POINTS)).round().astype(np.int32))
    figure, axes = _axes(len(curves))
    for i, (label, schedule) in enumerate(curves):
        values = jax.vmap(schedule)(jnp.asarray(counts))
        marker = "o" if len(counts) <= 40 else ""
        style = {"color": COLORS[i % len(COLORS)], "linestyle": DASHES[i % len(DASHES)]}
        y = np.broadcast_to(np.asarray(values), counts.shape)
        axes.plot(counts, y, label=label, linewidth=1.8, marker=marker, markersize=3.5, **style)
    axes.set_xlabel("update t (the first is 0)", color=INK)
    axes.set_ylabel(f"{ylabel} (log scale)" if log else ylabel, color=INK)
    if log:
        axes.set_yscale("log")
    elif all(np.all(line.get_ydata() >= 0) for line in axes.lines):
        axes.set_ylim(bottom=0.0)
    if len(curves) > 1 or isinstance(schedules, Mapping):
        figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=9, labelcolor=INK, handlelength=3.2)
    else:
        axes.set_title(curves[0][0], fontsize=10, color=INK, wrap=True)
    if path is not None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return figure


def _labelled(schedules: Any) -> list[tuple[str, Callable[[Any], Any]]]:
    if isinstance(schedules, Mapping):
        curves = [(str(label), schedule) for label, schedule in schedules.items()]
    else:
        several = list(schedules) if isinstance(schedules, Sequence) else [schedules]
        curves = [(_label(schedule, i), schedule) for i, schedule in enumerate(several)]
    if not curves:
        raise ValueError("plot: got no schedules, wanted one or more")
    for _, schedule in curves:
        if not callable(schedule):
            raise TypeError(f"plot: got {schedule!r}, wanted a schedule: see constant_schedule")
    return curves


def _label(schedule: Any, i: int) -> str:
    text = repr(schedule) if isinstance(schedule, Schedule) else getattr(schedule, "__name__", "")
    if not text or text == "<lambda>":
        return f"schedule {i}"
    return text if len(text) <= 84 else f"{text[:81]}..."


def _axes(curves: int) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plot needs matplotlib: pip install "dlkit[train]"') from error
    # The object interface: neither pyplot's state nor the backend of a notebook is touched.
    figure = Figure(figsize=(7.0, 3.6 + 0.2 * curves), dpi=140, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    axes.tick_params(which="both", colors=FAINT, labelsize=9)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes
