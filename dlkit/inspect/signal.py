"""How large activations and gradients are, layer by layer: what an initialization is about."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dlkit.nn import EVAL, Chain, Mode, Pure, child_state

__all__ = ["Signal", "signal_profile"]


class Signal(NamedTuple):
    """Statistics over all entries of each layer's output, first layer first; a tree, so `vmap` over keys works."""

    mean: Float[Array, "*lead depth"]  # of the activations
    var: Float[Array, "*lead depth"]  # of the activations
    grad_var: Float[Array, "*lead depth"]  # of the loss's gradient by the activations

    @property
    def second_moment(self) -> Float[Array, "*lead depth"]:
        """E[a^2], which is what a layer after a ReLU sees: its inputs do not have mean 0."""
        return self.var + self.mean**2


def signal_profile(
    model: Chain,
    params: Any,
    x: Any,
    loss: Callable[[Any], Any],
    *,
    state: Any = None,
    mode: Mode = EVAL,
) -> Signal:
    """Mean and variance of each layer's output, and variance of the gradient that comes back to it.

    Args:
      model: a chain of layers that give arrays.
      params: its parameters.
      x: a batch.
      loss: a scalar of the model's output; its gradient is what flows back.
      state: what the model remembers, where it does.
      mode: how to run.

    The variances of weights that keep a linear layer's signal are 1 / fan_in forwards and 1 / fan_out backwards (Glorot
    and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010), twice that with ReLU
    (He et al., "Delving deep into rectifiers", arXiv:1502.01852), where it is the second moment that is kept.

    >>> from dlkit import nn
    >>> model = nn.Chain(nn.Linear(256, 256), nn.Linear(256, 256))
    >>> x = jax.random.normal(jax.random.key(1), (64, 256))
    >>> found = signal_profile(model, model.init(jax.random.key(0)), x, jnp.sum)
    >>> found.var.round(0)
    Array([1., 1.], dtype=float32)

    Raises:
      TypeError: `model` is no `Chain`, a layer gives no floating-point array, or the loss is no scalar.
    """
    if not isinstance(model, Chain):
        raise TypeError(f"signal_profile looks between the layers of a Chain, got {type(model).__name__}")
    given = x

    def run(taps: tuple[Any, ...] | None) -> tuple[Any, tuple[Any, ...]]:
        x, outputs = given, []
        for i, (name, layer) in enumerate(zip(model.names, model.layers, strict=True)):
            if isinstance(layer, Pure):
                x = layer(params[name], x)
            else:
                x, _ = layer.apply(params[name], child_state(state, name), x, mode.at(name))
            if not jnp.issubdtype(getattr(x, "dtype", np.int32), jnp.floating):
                raise TypeError(
                    f"signal_profile wants layers that give floating-point arrays, but {name}={layer!r} does not"
                )
            outputs.append(x)
            x = x if taps is None else x + taps[i]
        value = loss(x)
        if jnp.shape(value) != ():
            raise TypeError(f"signal_profile wants a scalar loss, got shape {jnp.shape(value)}: take its sum or mean")
        return value, tuple(outputs)

    shapes = jax.eval_shape(lambda: run(None)[1])
    zeros = tuple(jnp.zeros(s.shape, s.dtype) for s in shapes)
    grads, outputs = jax.grad(run, has_aux=True)(zeros)
    return Signal(
        jnp.stack([a.mean() for a in outputs]),
        jnp.stack([a.var() for a in outputs]),
        jnp.stack([g.var() for g in grads]),
    )
