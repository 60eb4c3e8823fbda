"""L-BFGS, line searches, Newton's methods, least squares, nonlinear CG, natural gradient.

The table calls `update(grads, state, params)`, with gradients of no particular loss: `Local` adds what these methods
need beside them, the quadratic of curvature 4 that has these gradients at these parameters.
"""

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dlkit import optim
from optimizer_rows.paths import LR, at

CURVATURE = 4.0


@dataclass(frozen=True)
class Local(optim.Transform):
    inner: Any

    def init(self, params):
        return self.inner.init(params)

    def update(self, grads, state, params=None):
        # Without `jit`, every call would compile its loops anew: a closure's loop is never the same program.
        return update(self, grads, state, params)

    def compute(self, grads, state, params):
        def wide(x):
            wide = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
            return x if jnp.iscomplexobj(x) else jnp.asarray(x, wide)

        def residuals(p):  # J' J = 4, J' r = the gradient at `params`
            root = CURVATURE**0.5
            return jax.tree.map(lambda p, p0, g: root * (wide(p) - wide(p0)) + wide(g) / root, p, params, grads)

        def loss(p):
            return sum((jnp.sum(jnp.real(r * jnp.conj(r))) / 2 for r in jax.tree.leaves(residuals(p))), jnp.zeros(()))

        def outputs(p):
            return jnp.concatenate([2 * wide(leaf).ravel() for leaf in jax.tree.leaves(p)])[None]

        with jax.numpy_dtype_promotion("standard"):
            known = {"value": loss(params), "grad": jax.grad(loss)(params), "value_fn": loss}
        known |= {"residual_fn": residuals, "output_fn": outputs}
        taken = inspect.signature(self.inner.update).parameters
        free = any(p.kind is p.VAR_KEYWORD for p in taken.values())
        extra = {name: value for name, value in known.items() if free or name in taken}
        return self.inner.update(grads, state, params, **extra)


@functools.partial(jax.jit, static_argnums=0)
def update(local, grads, state, params):
    return local.compute(grads, state, params)


PAIRS = ["params/w", "updates/w", "diff_params_memory/w", "diff_updates_memory/w", "weights_memory"]
ZOOM = ["learning_rate", "value", "grad/w", *(f"info/{n}_error" for n in ("decrease", "curvature"))]
ZOOM = [*ZOOM, "info/num_linesearch_steps"]
BACK = ["learning_rate", "value", "grad/w", "info/num_linesearch_steps", "info/decrease_error"]
TRIALS = ["value", "grad/w", *(f"info/{name}" for name in ("evaluations", "ratio", "accepted", "failed"))]

RECIPES = {
    "lbfgs": (Local(optim.lbfgs()), at(["count", *PAIRS], [], ZOOM)),
    "lbfgs_no_search": (Local(optim.lbfgs(0.3, 3, linesearch=None)), at(["count", *PAIRS], LR, [])),
    "newton": (Local(optim.newton()), at([], LR, [])),
    "damped_newton": (Local(optim.damped_newton()), ["damping", *TRIALS]),
    "newton_cg": (Local(optim.newton_cg()), at(["products", "curved_down"], LR, BACK)),
    "stochastic_newton": (Local(optim.stochastic_newton()), at(["count", "hessian"], LR)),
    "gauss_newton": (Local(optim.gauss_newton()), at([], LR, [])),
    "gauss_newton_cg": (Local(optim.gauss_newton(solver="cg")), at([], LR, [])),
    "levenberg_marquardt": (Local(optim.levenberg_marquardt()), ["damping", "scales", *TRIALS]),
    "trust_region": (Local(optim.trust_region()), ["radius", "products", *TRIALS]),
    "nonlinear_cg": (Local(optim.nonlinear_cg()), at(["count", "grad/w", "direction/w"], LR, ZOOM)),
    "natural_gradient": (Local(optim.natural_gradient(1.0, "gaussian")), at([], LR, [])),
}

BLOCKS = {
    "scale_by_backtracking_linesearch": (
        Local(optim.chain(optim.scale(-1.0), optim.scale_by_backtracking_linesearch(10))),
        at([], [path for path in BACK if path != "grad/w"]),
    ),
}
