"""Which parts of an input a model's answer depends on: gradients by the input, and what hiding a part changes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dlkit import nn
from dlkit.nn import EVAL, Mode

__all__ = ["integrated_gradients", "occlusion", "saliency", "smooth_grad"]

Target = int | Array | np.ndarray | Callable[[Any], Any] | None


def scores(who: str, outputs: Any, target: Target) -> Float[Array, "B"]:
    """The number of each example that is explained, `[B]`: see `saliency`."""
    if callable(target):
        found = jnp.asarray(target(outputs))
        if found.ndim != 1:
            raise ValueError(f"{who}: the target gave shape {found.shape}, want one number an example, [B]")
        return found
    if not hasattr(outputs, "ndim") or outputs.ndim != 2:
        got = getattr(outputs, "shape", type(outputs).__name__)
        raise ValueError(
            f"{who}: the model gave {got}, want scores of classes [B, C]; for other outputs give a function, "
            "target=lambda outputs: ..., one number an example"
        )
    if target is None:
        return outputs.max(axis=-1)
    classes = jnp.asarray(target)
    if not jnp.issubdtype(classes.dtype, jnp.integer) or classes.shape not in ((), outputs.shape[:1]):
        raise ValueError(
            f"{who}: target is {classes.dtype} of shape {classes.shape}, want a class, {outputs.shape[0]} classes, "
            "one an example, a function or None"
        )
    index = jnp.broadcast_to(classes, outputs.shape[:1])
    return jnp.take_along_axis(outputs, index[:, None], axis=-1)[:, 0]


def floating(who: str, x: Any) -> Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{who} differentiates by x, but x is {x.dtype}: convert it, x.astype(jnp.float32) / 255 say")
    return x


def _gradient(
    who: str, model: nn.Layer[Any, Any], params: Any, state: Any, target: Target, mode: Mode, inputs: Any
) -> Callable[[Array], Array]:
    def total(x: Array) -> Array:
        return scores(who, model.apply(params, state, x, mode, **inputs)[0], target).sum()

    return jax.grad(total)


def saliency(
    model: nn.Layer[Any, Any],
    params: Any,
    state: Any,
    x: Any,
    target: Target = None,
    *,
    mode: Mode = EVAL,
    **inputs: Any,
) -> Array:
    """The gradient of each example's score by its own input, shaped as x. Its absolute value is the saliency map.

    Args:
      model, params, state, x, mode: as in `model.apply(params, state, x, mode)`; `inputs` are its keywords. x is
        floating point, examples along its first axis. A model in training mode may mix the examples of a batch
        (batch normalization does); the gradient is then that of the sum of the scores.
      target: the score. A class, or an array `[B]` of one class an example, takes that output of `[B, C]`; None the
        largest output; a function takes the outputs and gives `[B]`, such as `lambda y: y[:, 3] - y[:, 5]`.

    Scores are logits as a rule: the gradient of a probability vanishes where the model is sure.

    >>> model = nn.Linear(3, 2)
    >>> params = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), "b": jnp.zeros(2)}
    >>> saliency(model, params, None, jnp.ones((1, 3)), 1)
    Array([[2., 4., 6.]], dtype=float32)

    Raises:
      TypeError: x is not floating point.
      ValueError: a target that does not fit the outputs.

    Reference: Simonyan, Vedaldi and Zisserman, Deep inside convolutional networks, 2013, arXiv:1312.6034.
    """
    x = floating("saliency", x)
    return _gradient("saliency", model, params, state, target, mode, inputs)(x)


def smooth_grad(
    model: nn.Layer[Any, Any],
    params: Any,
    state: Any,
    x: Any,
    target: Target = None,
    *,
    key: Any,
    noise: float = 0.15,
    samples: int = 32,
    mode: Mode = EVAL,
    **inputs: Any,
) -> Array:
    """The mean of `saliency` over `samples` copies of x with Gaussian noise: the gradient of a smoothed score.

    Args:
      model, params, state, x, target, mode, inputs: as in `saliency`. With `target=None` each copy's largest score.
      key: of the noise.
      noise: its standard deviation, in units of x. The paper takes 10 to 20 % of the range of x.
      samples: made one after another, so memory does not grow with their number.

    >>> model = nn.Linear(3, 2)
    >>> x = jnp.ones((1, 3))
    >>> smooth_grad(model, model.init(jax.random.key(0)), None, x, 1, key=jax.random.key(1)).shape
    (1, 3)

    Raises:
      TypeError: x is not floating point.
      ValueError: fewer than one sample, negative noise, or a target that does not fit the outputs.

    Reference: Smilkov et al., SmoothGrad: removing noise by adding noise, 2017, arXiv:1706.03825.
    """
    x = floating("smooth_grad", x)
    if samples < 1 or noise < 0:
        raise ValueError(f"smooth_grad wants samples >= 1 and noise >= 0, got samples={samples}, noise={noise}")
    gradient = _gradient("smooth_grad", model, params, state, target, mode, inputs)

    def step(total: Array, key: Any) -> tuple[Array, None]:
        return total + gradient(x + jnp.asarray(noise, x.dtype) * jax.random.normal(key, x.shape, x.dtype)), None

    return jax.lax.scan(step, jnp.zeros_like(x), jax.random.split(key, samples))[0] / samples


def integrated_gradients(
    model: nn.Layer[Any, Any],
    params: Any,
    state: Any,
    x: Any,
    target: Target = None,
    *,
    baseline: Any = 0.0,
    steps: int = 32,
    mode: Mode = EVAL,
    **inputs: Any,
) -> Array:
    r"""What each entry of x gives to the difference of the scores of x and of `baseline`, shaped as x.

    .. math:: (x_i - x'_i) \int_0^1 \frac{\partial F}{\partial x_i}\bigl(x' + a (x - x')\bigr)\, da

    The integral is a Gauss-Legendre rule of `steps` points, exact where the gradient is a polynomial of degree up to
    2 steps - 1 in a. The entries add up to F(x) - F(x') (completeness) as far as the rule is exact: check it, and take
    more steps where it fails.

    Args:
      model, params, state, x, target, mode, inputs: as in `saliency`. With `target=None` it is the largest score of x
        itself, on the whole way.
      baseline: the input that means nothing, a number or an array that broadcasts to x: black, grey, noise.
      steps: points on the way, one after another, so memory does not grow with their number.

    >>> model = nn.Linear(3, 1, bias=False)
    >>> params = {"w": jnp.array([[1.0], [3.0], [5.0]])}
    >>> integrated_gradients(model, params, None, jnp.array([[1.0, 2.0, 0.0]]), 0).round(5)
    Array([[1., 6., 0.]], dtype=float32)

    Raises:
      TypeError: x is not floating point.
      ValueError: fewer than one step, or a target that does not fit the outputs.

    Reference: Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, 2017, arXiv:1703.01365.
    """
    who = "integrated_gradients"
    x = floating(who, x)
    if steps < 1:
        raise ValueError(f"{who} wants at least one step, got {steps}")
    if target is None:
        outputs = model.apply(params, state, x, mode, **inputs)[0]
        scores(who, outputs, None)
        target = jnp.argmax(outputs, axis=-1)
    start = jnp.broadcast_to(jnp.asarray(baseline, x.dtype), x.shape)
    points, weights = np.polynomial.legendre.leggauss(steps)
    rule = jnp.asarray((points + 1) / 2, x.dtype), jnp.asarray(weights / 2, x.dtype)
    gradient = _gradient(who, model, params, state, target, mode, inputs)

    def step(total: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
        return total + at[1] * gradient(start + at[0] * (x - start)), None

    return (x - start) * jax.lax.scan(step, jnp.zeros_like(x), rule)[0]


def occlusion(
    model: nn.Layer[Any, Any],
    params: Any,
    state: Any,
    x: Any,
    target: Target = None,
    *,
    size: int,
    stride: int = 1,
    fill: float = 0.0,
    mode: Mode = EVAL,
    **inputs: Any,
) -> Float[Array, "B rows columns"]:
    """How much each example's score falls when a square of its picture is hidden, for every place of the square.

    Args:
      model, params, state, target, mode, inputs: as in `saliency`. With `target=None` it is the class that the model
        gives to the whole picture.
      x: `[B, H, W, C]`.
      size: the side of the square; `stride`: how far it moves. Squares lie inside: `rows = (H - size) // stride + 1`.
      fill: what the square is filled with.

    Positive where what was hidden spoke for the target. One forward pass a place, one after another.

    >>> model = nn.Chain(nn.Flatten(3), nn.Linear(16, 2))
    >>> occlusion(model, model.init(jax.random.key(0)), None, jnp.ones((1, 4, 4, 1)), 0, size=2, stride=2).shape
    (1, 2, 2)

    Raises:
      ValueError: x is no batch of pictures; a square that does not fit in; a target that does not fit the outputs.

    Reference: Zeiler and Fergus, Visualizing and understanding convolutional networks, 2013, arXiv:1311.2901.
    """
    x = jnp.asarray(x)
    if x.ndim != 4 or not 1 <= size <= min(x.shape[1:3]) or stride < 1:
        raise ValueError(
            f"occlusion wants x [B, H, W, C], size in 1 .. min(H, W) and stride >= 1, got x {x.shape}, size={size}, "
            f"stride={stride}"
        )

    def run(x: Array) -> Any:
        return model.apply(params, state, x, mode, **inputs)[0]

    outputs = run(x)
    before = scores("occlusion", outputs, target)
    if target is None:
        target = jnp.argmax(outputs, axis=-1)
    rows, columns = ((n - size) // stride + 1 for n in x.shape[1:3])
    square = jnp.full((x.shape[0], size, size, x.shape[3]), fill, x.dtype)

    def drop(place: Array) -> Array:
        i, j = place // columns * stride, place % columns * stride
        return before - scores("occlusion", run(jax.lax.dynamic_update_slice(x, square, (0, i, j, 0))), target)

    return jnp.moveaxis(jax.lax.map(drop, jnp.arange(rows * columns)), 0, 1).reshape(-1, rows, columns)
