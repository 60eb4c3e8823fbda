"""The way of an optimizer over a surface: every point of it, and a picture of several."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dlkit.inspect.plots import FAINT, INK, _clean, _figure, _save
from dlkit.inspect.surfaces import Surface
from dlkit.optim import apply_updates
from dlkit.optim.transform import call_update

__all__ = ["descend", "paths_plot"]

# Okabe and Ito's colours without the yellow, which is faint on white; the markers tell them apart without colour.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def descend(
    fn: Callable[[Any], Any], start: Any, optimizer: Any, steps: int, *, key: Any = None, noise: float = 0.0
) -> tuple[Float[Array, "points n"], Float[Array, "points"]]:
    """Every point an optimizer visits from `start`, and the loss there, as one compiled scan.

    Args:
      fn: a scalar function of an array `[n]`.
      start: `[n]`.
      optimizer: any transform; those that search or use second derivatives get the loss as `value_fn=`.
      steps: updates.
      key: of the noise.
      noise: standard deviation of a normal number added to each entry of the gradient, as mini-batches would.

    Returns:
      Points `[steps + 1, n]` and losses `[steps + 1]`, those of `start` first. After a divergence they are not finite.

    >>> from dlkit import optim
    >>> points, losses = descend(lambda p: jnp.sum(p**2), jnp.array([1.0]), optim.sgd(0.25), 3)
    >>> points[:, 0].tolist(), losses.tolist()
    ([1.0, 0.5, 0.25, 0.125], [1.0, 0.25, 0.0625, 0.015625])

    Raises:
      ValueError: fewer than one step, or noise without a key.
    """
    if steps < 1:
        raise ValueError(f"descend wants at least one step, got {steps}")
    if noise and key is None:
        raise ValueError(f"descend draws noise={noise} from a key: give key=jax.random.key(0)")
    start = jnp.asarray(start)

    @jax.jit
    def run(start: Any) -> tuple[Any, Any]:
        def step(carry: Any, t: Any) -> tuple[Any, Any]:
            p, state = carry
            value, grads = jax.value_and_grad(fn)(p)
            if noise:
                draw = jax.random.normal(jax.random.fold_in(key, t), grads.shape, grads.dtype)
                grads = grads + jnp.asarray(noise, grads.dtype) * draw
            updates, state = call_update(optimizer, grads, state, p, {"value": value, "grad": grads, "value_fn": fn})
            after = apply_updates(p, updates)
            return (after, state), (p, value)

        (last, _), (points, values) = jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(steps))
        return jnp.concatenate([points, last[None]]), jnp.append(values, fn(last))

    return run(start)


def paths_plot(
    surface: Surface,
    paths: Mapping[str, Any],
    *,
    axes: Any = None,
    path: str | Path | None = None,
    marks: int = 12,
) -> Any:
    """Paths over the contours of a surface, equal steps in the logarithm of the loss.

    Args:
      surface: what lies below.
      paths: arrays `[points, 2]` by label; points outside the box are cut off.
      axes: matplotlib axes to draw on; by default a new figure.
      path: where the picture is written too.
      marks: so many points of each path are marked, at equal numbers of updates.

    Returns:
      The matplotlib figure.

    >>> from dlkit.inspect import SURFACES, descend
    >>> from dlkit import optim
    >>> bowl = SURFACES["quadratic"]
    >>> points, _ = descend(bowl, bowl.start, optim.sgd(0.01), 20)
    >>> figure = paths_plot(bowl, {"gradient descent": points})
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['gradient descent', 'minimum']

    Raises:
      ValueError: a path is not `[points, 2]`.
      ImportError: matplotlib is missing.
    """
    figure = _figure(6.0, 4.2) if axes is None else axes.figure
    axes = figure.subplots() if axes is None else axes
    x, y, z = (np.asarray(a, np.float64) for a in surface.grid())
    height = np.log10(z - z.min() + 1e-3 * (np.median(z) - z.min()) + 1e-12)
    axes.contour(x, y, height, levels=18, colors="#9a9a9a", linewidths=0.6, alpha=0.8, linestyles="solid")
    for i, (label, points) in enumerate(paths.items()):
        points = np.asarray(points, np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"paths_plot wants paths [points, 2], but {label!r} has shape {points.shape}")
        points = points[np.isfinite(points).all(1)]
        every = max(1, (len(points) - 1) // marks)
        style = {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4.5}
        axes.plot(points[:, 0], points[:, 1], linewidth=1.5, markevery=every, label=label, **style)
    low = np.asarray(surface.minima)
    axes.plot(low[:, 0], low[:, 1], "*", color=INK, markersize=11, label="minimum", zorder=5, linestyle="none")
    axes.set(xlim=surface.box[0], ylim=surface.box[1])
    axes.set_xlabel("first parameter", color=INK)
    axes.set_ylabel("second parameter", color=INK)
    axes.set_title(surface.name.replace("_", " "), color=INK, fontsize=11)
    _clean(axes, grid=False)
    axes.tick_params(colors=FAINT)
    axes.legend(frameon=True, framealpha=0.85, edgecolor="none", fontsize=8.5, labelcolor=INK)
    if path is not None:
        _save(figure, path)
    return figure
