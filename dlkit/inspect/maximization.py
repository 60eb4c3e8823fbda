"""What a unit answers to most: an input that is changed, not the weights, until an activation is large."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import models, nn, optim
from dlkit.inspect.attribution import Target, floating, scores
from dlkit.inspect.grad_cam import one_layer
from dlkit.nn import EVAL, Mode
from dlkit.optim.transform import call_update

__all__ = ["Maximized", "maximize_activation"]


class Maximized(NamedTuple):
    """The inputs found, and the activations on the way, the start's first."""

    x: Float[Array, "B ..."]
    values: Float[Array, "points B"]


def maximize_activation(
    model: nn.Layer[Any, Any],
    params: Any,
    state: Any,
    start: Any,
    target: Target,
    *,
    at: str | None = None,
    steps: int = 200,
    optimizer: Any = None,
    radius: float | None = None,
    box: tuple[float, float] | None = None,
    total_variation: float = 0.0,
    jitter: int = 0,
    key: Any = None,
    mode: Mode = EVAL,
    **inputs: Any,
) -> Maximized:
    """Inputs that make an activation large, found by gradient ascent on the input; one for each row of `start`.

    Args:
      model, params, state, mode, inputs: as in `model.apply(params, state, x, mode)`.
      start: `[B, ...]`, the inputs to start from: noise, or grey. Floating point.
      target: without `at` as in `saliency`: a class, or one class for each row. With `at` the channel of that layer, or
        one for each row: the mean over its places (the unit itself where there are none). A function of the output, or
        of the layer's, gives `[B]`.
      at: the path of one layer, as in `models.features`; None is the model's output.
      steps: of `optimizer`; any transform, optax's too. By default `optim.adam(0.05)`, with a radius `optim.sgd(0.1)`:
        the steps of Adam follow the gradient's signs, and on a sphere they end elsewhere.
      radius: after each step every row is put back on the sphere of this length around 0 (Erhan et al.), and before it
        its gradient is scaled to this length; without a bound a linear unit has no maximum.
      box: after each step entries are clipped to (low, high), the range of pixels.
      total_variation: the weight of the sum of squared differences of neighbouring pixels, taken off: smooth pictures.
        x is then `[B, H, W, C]`.
      jitter: each step sees the picture moved by up to so many pixels, at random (`key`), around the edges.

    Returns:
      `Maximized(x, values)`: `values` `[steps + 1, B]` are without the penalty, before each step and at the end.

    >>> model = nn.Linear(3, 2, bias=False)
    >>> params = {"w": jnp.array([[1.0, 3.0], [1.0, 4.0], [1.0, 0.0]])}
    >>> found = maximize_activation(model, params, None, jnp.ones((1, 3)), 1, radius=1.0)
    >>> found.x.round(1).tolist()                              # the direction of the weights
    [[0.6..., 0.8..., 0.0]]

    Raises:
      TypeError: `start` is not floating point.
      ValueError: fewer than one step; a penalty or a jitter where x is no picture; a jitter without a key; a radius
        that is not positive; no layer or several layers match; a target that does not fit.

    References: Erhan, Bengio, Courville and Vincent, Visualizing higher-layer features of a deep network, 2009;
    Mahendran and Vedaldi, Understanding deep image representations by inverting them, 2014, arXiv:1412.0035 (total
    variation, jitter).
    """
    who = "maximize_activation"
    x = floating(who, start)
    if steps < 1:
        raise ValueError(f"{who} wants at least one step, got {steps}")
    if (total_variation or jitter) and x.ndim != 4:
        raise ValueError(f"{who}: total_variation and jitter want pictures [B, H, W, C], got start {x.shape}")
    if jitter and key is None:
        raise ValueError(f"{who} draws jitter={jitter} from a key: give key=jax.random.key(0)")
    if radius is not None and radius <= 0:
        raise ValueError(f"{who}: want a radius above 0, got {radius}")
    default = optim.adam(0.05) if radius is None else optim.sgd(0.1)
    transform = default if optimizer is None else optimizer

    def activation(x: Array) -> Array:
        if at is None:
            return scores(who, model.apply(params, state, x, mode, **inputs)[0], target)
        found = models.features(model, params, state, x, at, mode, **inputs)
        y = found[one_layer(who, found, at)]
        if not callable(target):
            y = y.mean(axis=tuple(range(1, y.ndim - 1)))
        return scores(who, y, target)

    def on_sphere(x: Array) -> Array:
        if radius is None:
            return x
        lengths = jnp.sqrt(jnp.sum(jnp.square(x), axis=tuple(range(1, x.ndim)), keepdims=True))
        return x * (jnp.asarray(radius, x.dtype) / jnp.maximum(lengths, jnp.finfo(x.dtype).tiny))

    def bounded(x: Array) -> Array:
        x = on_sphere(x)
        return x if box is None else jnp.clip(x, *(jnp.asarray(b, x.dtype) for b in box))

    def objective(x: Array, shift: Array | None) -> tuple[Array, Array]:
        values = activation(x if shift is None else jnp.roll(x, shift, axis=(1, 2)))
        rough = jnp.square(jnp.diff(x, axis=1)).sum() + jnp.square(jnp.diff(x, axis=2)).sum() if total_variation else 0
        return jnp.asarray(total_variation, x.dtype) * rough - values.sum(), values

    def step(carry: Any, t: Array) -> tuple[Any, Array]:
        x, held = carry
        shift = None
        if jitter:
            shift = jax.random.randint(jax.random.fold_in(key, t), (2,), -jitter, jitter + 1)
        (value, values), grads = jax.value_and_grad(objective, has_aux=True)(x, shift)
        updates, held = call_update(transform, on_sphere(grads), held, x, {"value": value, "grad": grads})
        return (bounded(optim.apply_updates(x, updates)), held), values

    x = bounded(x)
    (x, _), values = jax.lax.scan(step, (x, transform.init(x)), jnp.arange(steps))
    return Maximized(x, jnp.concatenate([values, activation(x)[None]]))
