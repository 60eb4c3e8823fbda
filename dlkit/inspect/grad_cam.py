"""Where a convolutional network looks: the maps of one layer, weighed by what they mean for a class (Grad-CAM)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import models, nn
from dlkit.inspect.attribution import Target, scores
from dlkit.models.surgery import unrolled
from dlkit.nn import EVAL, Mode
from dlkit.nn.scope import listening

__all__ = ["grad_cam", "layer_gradients"]


def one_layer(who: str, found: dict[str, Any], at: str) -> str:
    """The one path among `models.features`' at which the model gives one floating-point array."""
    if len(found) != 1:
        raise ValueError(f"{who} looks at one layer, but {at!r} matches {', '.join(found)}: give one of these paths")
    (path, y), *_ = found.items()
    if isinstance(y, tuple):
        raise ValueError(f"{who}: {path!r} is run {len(y)} times: give the path of a layer that is run once")
    if not jnp.issubdtype(getattr(y, "dtype", int), jnp.floating):
        raise TypeError(f"{who}: {path!r} gives no floating-point array but {getattr(y, 'dtype', type(y).__name__)}")
    return path


def layer_gradients(
    model: nn.Layer[Any, Any],
    params: Any,
    state: Any,
    x: Any,
    target: Target,
    at: str,
    *,
    mode: Mode = EVAL,
    **inputs: Any,
) -> tuple[Array, Array]:
    """The output of the layer at `at`, and the gradient of each example's score by it, both shaped as the output.

    Args:
      model, params, state, x, target, mode, inputs: as in `saliency`; x may be of any dtype.
      at: the path of one layer that is run once, as in `models.features`; a glob that matches one.

    >>> model = nn.Chain(nn.Linear(3, 4), nn.Relu(), head=nn.Linear(4, 2))
    >>> params = model.init(jax.random.key(0))
    >>> h, g = layer_gradients(model, params, None, jnp.ones((1, 3)), 1, "relu1")
    >>> bool(jnp.all(g[0] == params["head"]["w"][:, 1]))
    True

    Raises:
      ValueError: no layer or several layers match, one is run several times, or a target that does not fit the outputs.
      TypeError: the layer gives no floating-point array.
    """
    plain = unrolled(model)
    found = jax.eval_shape(lambda p, x: models.features(plain, p, state, x, at, mode, **inputs), params, x)
    path = one_layer("layer_gradients", found, at)

    def total(tap: Array) -> tuple[Array, Array]:
        held: list[Array] = []

        def add(name: str, y: Any) -> Any:
            if name != path or held:  # a layer that stands for another has its path, and comes after it
                return None
            held.append(y)
            return y + tap

        with listening(add):
            outputs, _ = plain.apply(params, state, x, mode, **inputs)
        return scores("layer_gradients", outputs, target).sum(), held[0]

    gradient, y = jax.grad(total, has_aux=True)(jnp.zeros(found[path].shape, found[path].dtype))
    return y, gradient


def grad_cam(
    model: nn.Layer[Any, Any],
    params: Any,
    state: Any,
    x: Any,
    target: Target,
    at: str,
    *,
    positive: bool = True,
    resize: bool = True,
    mode: Mode = EVAL,
    **inputs: Any,
) -> Float[Array, "B *places"]:
    r"""Where in the picture the layer at `at` finds what speaks for the target, `[B, H, W]`.

    .. math:: L = \max\Bigl(0, \sum_k \alpha_k A_k\Bigr), \qquad
        \alpha_k = \operatorname{mean}_{ij} \frac{\partial s}{\partial A_{ijk}}

    A is the layer's output, channel by channel, s the score. Where the maps go through a mean over places into a linear
    layer, this is the class activation map of Zhou et al. 2016 (sum_k w_k A_k) divided by the number of places.

    Args:
      model, params, state, x, target, mode, inputs: as in `saliency`; `target=None` explains the class predicted.
      at: the path of one layer, `[B, h, w, K]` as a rule the last convolution or its activation; or `[B, *places, K]`.
      positive: leave out what speaks against the target, as in the paper. Without it there is no maximum with 0.
      resize: enlarge the map to the height and width of x (bilinear), where both are pictures.

    >>> model = models.cnn((8, 8, 1), 10, (4, 8))
    >>> params = model.init(jax.random.key(0))
    >>> x = jnp.ones((2, 8, 8, 1))
    >>> grad_cam(model, params, None, x, 3, "relu2").shape
    (2, 8, 8)
    >>> grad_cam(model, params, None, x, 3, "relu2", resize=False).shape
    (2, 4, 4)

    Raises:
      ValueError: the layer gives no `[B, *places, K]`; and as `layer_gradients`.
      TypeError: as `layer_gradients`.

    References: Selvaraju et al., Grad-CAM: visual explanations from deep networks, 2016, arXiv:1610.02391; Zhou et al.,
    Learning deep features for discriminative localization, 2016, arXiv:1512.04150.
    """
    maps, gradient = layer_gradients(model, params, state, x, target, at, mode=mode, **inputs)
    if maps.ndim < 3:
        raise ValueError(f"grad_cam: {at!r} gives {maps.shape}, want maps [B, height, width, channels]")
    places = tuple(range(1, maps.ndim - 1))
    alpha = gradient.mean(axis=places, keepdims=True)
    heat = jnp.sum(alpha * maps, axis=-1)
    heat = jnp.maximum(heat, 0) if positive else heat
    if resize and maps.ndim == 4 and jnp.ndim(x) == 4:
        heat = jax.image.resize(heat, (heat.shape[0], *jnp.shape(x)[1:3]), "bilinear")
    return heat
