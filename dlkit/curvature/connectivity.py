"""A curve of low loss between two models, trained."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import optim
from dlkit.curvature.landscape import Barrier, barrier_of, losses_at
from dlkit.curvature.objective import Term, as_objective, check_real
from dlkit.optim.second_order import vectors

__all__ = ["Curve", "connect_modes"]


@dataclass(frozen=True, eq=False)
class Curve:
    """A quadratic Bezier curve between two models: (1-t)^2 start + 2 t (1-t) bend + t^2 end.

    `history` holds the loss of each training step at its random t.
    """

    start: Any
    bend: Any
    end: Any
    history: np.ndarray

    def __call__(self, t: float) -> Any:
        """The parameters at t in [0, 1]."""
        return _bezier(self.start, self.bend, self.end, t)

    def barrier(self, loss: Any, *, points: int = 25, chunk: int = 16) -> Barrier:
        """The loss along the curve, as `barrier` gives it for the straight line."""
        t = np.linspace(0, 1, points)
        first, second = (vectors.subtract(vectors.wide(p), vectors.wide(self.start)) for p in (self.bend, self.end))
        where = np.stack([2 * t * (1 - t), t**2], axis=1)
        return barrier_of(t, losses_at(loss, self.start, (first, second), where, chunk))


def _bezier(start: Any, bend: Any, end: Any, t: Any) -> Any:
    def point(a: Any, m: Any, b: Any) -> Any:
        wide = vectors.scalar_dtype(a)
        s = jnp.asarray(t, wide)
        a, m, b = (jnp.asarray(x).astype(wide) for x in (a, m, b))
        return (1 - s) ** 2 * a + 2 * s * (1 - s) * m + s**2 * b

    return jax.tree.map(lambda a, m, b: point(a, m, b).astype(jnp.result_type(a)), start, bend, end)


@functools.lru_cache(maxsize=32)
def _program(term: Term, optimizer: Any) -> Any:
    @jax.jit
    def step(bend: Any, opt_state: Any, start: Any, end: Any, t: Any, state: Any, batch: Any) -> Any:
        def at(bend: Any) -> Any:
            return term.value(_bezier(start, bend, end, t), state, batch)

        value, grad = jax.value_and_grad(at)(bend)
        updates, opt_state = optimizer.update(grad, opt_state, bend)
        return optim.apply_updates(bend, updates), opt_state, value

    return step


def connect_modes(
    loss: Any, a: Any, b: Any, *, steps: int = 500, optimizer: Any = None, bend: Any = None, seed: int = 0
) -> Curve:
    """Train the middle point of a Bezier curve from `a` to `b` so that the loss is low all along it.

    Each step takes one batch and one t, drawn evenly from [0, 1], and follows the gradient of the loss at the curve's
    point: an unbiased estimate of that of the mean loss over t.

    Args:
      loss: an `Objective`, whose batches come round after round, or a scalar function of the parameters.
      a, b: two models of one architecture.
      steps: updates.
      optimizer: of `dlkit.optim` or optax; None for Adam with a rate of 1e-2 that falls to zero along a cosine.
      bend: where the middle point starts; None for the middle of the straight line.
      seed: of the ts.

    Returns:
      A `Curve`: `curve(t)` gives parameters, `curve.barrier(loss)` the losses along it.

    Raises:
      ValueError: trees that differ, or `steps` below 1.

    Reference: Garipov et al., "Loss surfaces, mode connectivity, and fast ensembling of DNNs", 2018, equation 3.
    """
    objective = as_objective(loss)
    check_real("connect_modes", a)
    if jax.tree.structure(a) != jax.tree.structure(b):
        raise ValueError(f"a and b must be trees of one form: got {jax.tree.structure(a)}, {jax.tree.structure(b)}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if optimizer is None:
        optimizer = optim.adam(optim.cosine_decay_schedule(1e-2, steps))
    if bend is None:
        bend = _bezier(a, a, b, np.sqrt(0.5))
    step = _program(objective.term, optimizer)
    ts = np.random.default_rng(seed).uniform(size=steps).astype(np.float32)
    opt_state, history = optimizer.init(bend), []
    while len(history) < steps:
        before = len(history)
        for batch in objective.batches(a):
            if len(history) == steps:
                break
            bend, opt_state, value = step(bend, opt_state, a, b, ts[len(history)], objective.state, batch)
            history.append(value)
        if len(history) == before:
            raise ValueError("the data hold no batch")
    return Curve(a, bend, b, np.asarray(jax.device_get(history), np.float64))
