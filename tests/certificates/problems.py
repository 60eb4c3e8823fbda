"""Three problems side by side in one tree, so that a case is one program.

The quadratic has curvatures from 0.01 to 10; Rosenbrock's valley is scaled by 1/100, so that the learning rates of the
others suit it too; the network has a hidden layer of tanh and squared errors. The loss is their sum.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

_rng = np.random.default_rng(3)
START = {
    "mlp": {
        "hidden": {"b": _rng.standard_normal(4) / 4, "w": _rng.standard_normal((3, 4)) / 2},
        "out": {"b": _rng.standard_normal(2) / 4, "w": _rng.standard_normal((4, 2)) / 2},
    },
    "quadratic": {"w": _rng.standard_normal(6)},
    "rosenbrock": {"w": np.array([-1.2, 1.0])},
}
CURVATURE, TARGET = np.geomspace(0.01, 10.0, 6), _rng.standard_normal(6)
INPUTS = _rng.standard_normal((16, 3))
OUTPUTS = np.stack([np.sin(INPUTS[:, 0]), INPUTS[:, 1] * INPUTS[:, 2]], axis=1)


def loss(params: Any) -> Any:
    dtype = params["quadratic"]["w"].dtype
    curvature, target, inputs, outputs = (jnp.asarray(a, dtype) for a in (CURVATURE, TARGET, INPUTS, OUTPUTS))
    quadratic = jnp.sum(curvature * jnp.square(params["quadratic"]["w"] - target)) / 2
    x, y = params["rosenbrock"]["w"]
    rosenbrock = ((1 - x) ** 2 + 100 * (y - x * x) ** 2) / 100
    mlp = params["mlp"]
    hidden = jnp.tanh(inputs @ mlp["hidden"]["w"] + mlp["hidden"]["b"][None])
    errors = hidden @ mlp["out"]["w"] + mlp["out"]["b"][None] - outputs
    return quadratic + rosenbrock + jnp.mean(jnp.square(errors))
