"""Spectral normalization: a layer whose weight has largest singular value 1."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit import functional
from dlkit.nn.checks import describe
from dlkit.nn.layer import Layer, child_state
from dlkit.nn.mode import Mode
from dlkit.nn.normalization.parametrize import held_weight, run_with

__all__ = ["SpectralNorm"]

WARM_UP = 15


@dataclass(frozen=True)
class SpectralNorm(Layer[Any, Any]):
    """A layer with `w / sigma` in the place of `w`: sigma the largest singular value, tracked by power iteration.

    w counts as a matrix `[c_out, everything else]`. Each training step moves the two singular vectors by `iterations`
    steps of power iteration and divides by `sigma = u' W v`; evaluation divides by it with the vectors as they are. No
    gradient flows through the vectors, as in torch.

    Parameters: `layer`, those of the wrapped layer. State: `u` `[c_out]` and `v` `[c_in prod(kernel)]`, float32, and
    `layer` where the wrapped layer remembers. A fresh state is zeros: where it meets weights, in training or
    evaluation, power iteration starts from a fixed vector and makes 15 steps more, those torch makes when the module
    is built. `fold(params, state)` gives plain parameters of the wrapped layer.

    `axis` is that of the output channels, -2 for a `ConvTranspose`; `eps` bounds the lengths that vectors are divided
    by. torch: `parametrizations.spectral_norm`; flax and Keras reshape to `[everything else, c_out]`, which has the
    same singular values, and take more iterations from where they are.

    >>> from dlkit.nn import Linear, training
    >>> layer = SpectralNorm(Linear(4, 3), iterations=30)
    >>> params, state = layer.init(jax.random.key(0)), layer.init_state()
    >>> y, state = layer.apply(params, state, jnp.ones((2, 4)), training(None))
    >>> float(jnp.linalg.svd(layer.fold(params, state)["w"], compute_uv=False)[0].round(3))
    1.0

    Raises:
      ValueError: fewer than one iteration; the layer has no parameter `leaf`, or that no axis `axis`.

    Reference: Miyato, Kataoka, Koyama and Yoshida, Spectral normalization for GANs, 2018, arXiv:1802.05957.
    """

    layer: Layer
    iterations: int = 1
    eps: float = 1e-12
    axis: int = -1
    leaf: str = "w"

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"{describe(self)}: expected at least one iteration of the power method in a step")

    def init_state(self) -> Any:
        shape = held_weight(self, jax.eval_shape(self.layer.init, jax.eval_shape(jax.random.key, 0))).shape
        c_out, size = shape[self.axis], math.prod(shape)
        state: dict[str, Any] = {"u": jnp.zeros(c_out, jnp.float32), "v": jnp.zeros(size // c_out, jnp.float32)}
        held = self.layer.init_state()
        return state if held is None else {**state, "layer": held}

    def fold(self, params: Any, state: Any) -> Any:
        """Parameters of the wrapped layer alone, with which it computes what this one does in evaluation."""
        w = held_weight(self, params["layer"])
        u, v = self._vectors(w, state, train=False)
        return {**params["layer"], self.leaf: functional.spectral_norm(w, u, v, axis=self.axis)}

    def _vectors(self, w: Array, state: Any, *, train: bool) -> tuple[Array, Array]:
        fresh = ~jnp.any(state["u"] != 0)
        # Any vector that is not orthogonal to the singular vector will do: one drawn once and for all.
        start = jax.random.normal(jax.random.key(0), state["v"].shape, state["v"].dtype)
        steps = jnp.where(fresh, WARM_UP + self.iterations, self.iterations if train else 0)
        v = jnp.where(fresh, start, state["v"])
        return functional.power_iteration(w, state["u"], v, steps, axis=self.axis, eps=self.eps)

    def apply(self, params: Any, state: Any, x: Any, mode: Mode, **inputs: Any) -> tuple[Any, Any]:
        w = held_weight(self, params["layer"])
        u, v = self._vectors(w, state, train=mode.train)
        y, after = run_with(self, functional.spectral_norm(w, u, v, axis=self.axis), params, state, x, mode, inputs)
        kept = {"layer": after} if child_state(state, "layer") is not None else {}
        if not mode.train:
            return y, {**state, **kept}
        return y, {"u": u.astype(state["u"].dtype), "v": v.astype(state["v"].dtype), **kept}
