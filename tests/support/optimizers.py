"""A small problem whose gradient is written out, so that a formula in numpy can be given the same numbers.

The loss is curvature (p - target)^2 / 2 - 0.3 cos(2 p): stiff in some coordinates and not convex.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from support import compiling

STEPS = 50
_rng = np.random.default_rng(7)
CURVATURE = {"w": np.geomspace(0.1, 3.0, 12).reshape(4, 3), "b": np.array([0.3, 1.0, 2.0])}
TARGET = {"w": _rng.standard_normal((4, 3)), "b": _rng.standard_normal(3)}
START = {"w": _rng.standard_normal((4, 3)), "b": _rng.standard_normal(3)}


def trajectory(tx: Any, steps: int = STEPS, dtype: Any = np.float64, apply: Any = None) -> dict[str, np.ndarray]:
    """The parameters after each of the first `steps` updates of a transform, dlkit's or optax's."""
    params = {name: jnp.asarray(p, dtype) for name, p in START.items()}
    constants = {name: (jnp.asarray(CURVATURE[name], dtype), jnp.asarray(TARGET[name], dtype)) for name in params}

    def grads(p: Any) -> Any:
        return {n: a * (p[n] - c) + 0.6 * jnp.sin(2 * p[n]) for n, (a, c) in constants.items()}

    def step(carry: Any, _: Any) -> Any:
        p, state = carry
        updates, state = tx.update(grads(p), state, p)
        p = jax.tree.map(jnp.add, p, updates) if apply is None else apply(p, updates)
        return (p, state), p

    run = jax.jit(
        lambda start: jax.lax.scan(step, start, None, length=steps)[1], compiler_options=compiling.AS_USERS_DO
    )
    return jax.device_get(run((params, tx.init(params))))
