"""A trust region: the quadratic model is minimized within a ball, which grows where it foretold the loss well."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.hyper import Scalar, as_count, settle
from dlkit.optim.leaves import check_like, zeros_like
from dlkit.optim.second_order import products, vectors
from dlkit.optim.second_order.arguments import bind, needs, scalar
from dlkit.optim.second_order.conjugate import truncated_cg
from dlkit.optim.second_order.newton_cg import forced
from dlkit.optim.second_order.trials import TrialInfo, gain_ratio, no_info
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Transform

__all__ = ["TrustRegion", "TrustRegionState", "trust_region"]


class TrustRegionState(NamedTuple):
    """The radius for the next step, and the loss and gradient where the last one led (or where it was not taken)."""

    radius: Float[Array, ""]
    value: Float[Array, ""]  # infinite before the first update
    grad: Any
    products: Int[Array, ""]  # with the Hessian, in the last update
    info: TrialInfo


@dataclass(frozen=True)
class TrustRegion(Transform[TrustRegionState]):
    """Minimizes m(d) = <g, d> + <d, H d> / 2 over |d| <= radius by Steihaug's conjugate gradients, then looks.

        ratio = (f(p) - f(p + d)) / (m(0) - m(d))
        p = p + d           where ratio > eta; otherwise the update is zero
        radius = radius/4   where ratio < 1/4
        radius = min(2 radius, max_radius)   where ratio > 3/4 and d ends on the boundary

    Directions of negative curvature are followed to the boundary, so saddle points are left. One trial is made in each
    update. H enters through products alone (`hvp`). `update` needs `value=` and `value_fn=`. It is a whole optimizer,
    without a learning rate.

    Args:
      initial_radius, max_radius: of the ball.
      eta: the ratio above which a step is taken, in [0, 1/4).
      max_cg_steps: products with the Hessian in one step at most.
      forcing: the system is solved to min(forcing, sqrt |g|) |g|.

    Differences. scipy `trust-ncg`: the same steps at the same arguments (until the ratio is rounding, which scipy does
    not treat). None of optax, torch and Keras has it.

    References: Steihaug, "The conjugate gradient method and trust regions in large scale optimization", 1983. Nocedal,
    Wright, "Numerical optimization", 2006, algorithms 4.1 and 7.2.

    >>> from dlkit import optim
    >>> loss = lambda p: 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2
    >>> params, result = optim.minimize(loss, jnp.array([-1.2, 1.0]), trust_region())
    >>> params.round(3), bool(result.converged)
    (Array([1., 1.], dtype=float32), True)

    Raises:
      ValueError: an argument out of its range; from `update`, when one of its arguments is missing.
    """

    initial_radius: Scalar = 1.0
    max_radius: Scalar = 1000.0
    eta: Scalar = 0.15
    max_cg_steps: int = 100
    forcing: Scalar = 0.5

    def __post_init__(self) -> None:
        owner = "trust_region"
        object.__setattr__(self, "max_cg_steps", as_count(owner, "max_cg_steps", self.max_cg_steps, 1))
        settle(owner, self, nonnegative=("initial_radius", "max_radius", "eta"), decays=("forcing",))
        if isinstance(self.eta, float) and not self.eta < 0.25:
            raise ValueError(f"{owner}: eta is {self.eta}, wanted 0 <= eta < 0.25")

    def init(self, params: Any) -> TrustRegionState:
        vectors.real_only("trust_region", params)
        dtype = vectors.scalar_dtype(params)
        infinite, grad = jnp.full((), jnp.inf, dtype), zeros_like("trust_region", params)
        radius = as_dtype(self.initial_radius, dtype)
        return TrustRegionState(radius, infinite, grad, jnp.zeros((), jnp.int32), no_info(dtype))

    def update(
        self,
        grads: Any,
        state: TrustRegionState,
        params: Any = None,
        *,
        value: Any = None,
        value_fn: Any = None,
        **extra: Any,
    ) -> tuple[Any, TrustRegionState]:
        owner, dtype = "trust_region", state.value.dtype
        needs(owner, params=params, value=value, value_fn=value_fn)
        check_like(owner, "the gradients do not match the parameters", params, grads)
        given = bind(owner, "value_fn", value_fn, extra)

        def loss(p: Any) -> Any:
            return scalar(owner, given(p), dtype)

        g, value = vectors.wide(grads), scalar(owner, value, dtype)
        hessian = products.hessian_at(loss, params, g)
        found = truncated_cg(hessian, g, tol=forced(g, self.forcing), max_steps=self.max_cg_steps, radius=state.radius)
        promised = -vectors.dot(found.step, vectors.add(g, found.residual)).astype(dtype) / 2
        new_value, new_grad = jax.value_and_grad(loss)(vectors.move(params, found.step))
        ratio = gain_ratio(value, new_value, promised)
        taken = ratio > as_dtype(self.eta, dtype)
        wider = jnp.minimum(2 * state.radius, as_dtype(self.max_radius, dtype))
        radius = jnp.where((ratio > 0.75) & found.on_boundary, wider, state.radius)
        radius = jnp.where(ratio < 0.25, state.radius / 4, radius)
        # A step that no longer changes the parameters cannot lower the loss either.
        tiny = vectors.norm(found.step) <= jnp.finfo(dtype).eps * vectors.norm(params)
        info = TrialInfo(jnp.int32(1), ratio, taken, ~taken & tiny & (found.steps > 0))
        updates = vectors.where(taken, found.step, jax.tree.map(jnp.zeros_like, found.step))
        new_grad = vectors.where(taken, vectors.cast_like(new_grad, state.grad), vectors.cast_like(grads, state.grad))
        new_value = jnp.where(taken, new_value, value)
        return updates, TrustRegionState(radius.astype(dtype), new_value, new_grad, found.steps, info)


trust_region = TrustRegion
