"""RAdam: Adam that trusts its average of squared gradients only as far as that average is known."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.gradients.decay import decay_links, l2_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, bias_correction, safe_increment, settle
from dlkit.optim.leaves import abs_sq, leafwise, zeros_like
from dlkit.optim.rules.adam import ScaleByAdamState
from dlkit.optim.rules.moments import ahead_factors, weigh
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.traced import Traced, as_dtype
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByRadam", "radam", "scale_by_radam"]


@dataclass(frozen=True)
class ScaleByRadam(Transform[ScaleByAdamState]):
    """u = r mu_hat / (sqrt(nu_hat + eps_root) + eps), and u = mu_hat in the first steps: see `radam`.

    >>> tx = scale_by_radam()
    >>> updates, _ = tx.update({"w": jnp.array([3.0, -0.1])}, tx.init({"w": jnp.ones(2)}))
    >>> print([f"{u:.3f}" for u in updates["w"]])  # not yet in the scale of Adam
    ['3.000', '-0.100']

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), a negative `eps` or `eps_root`, or a `threshold` below 4.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-8
    eps_root: Scalar = 0.0
    threshold: Scalar = 5.0
    _: KW_ONLY
    nesterov: bool = False
    tf_style: bool = False

    def __post_init__(self) -> None:
        settle("scale_by_radam", self, decays=("b1", "b2"), nonnegative=("eps", "eps_root"), numbers=("threshold",))
        if not isinstance(self.threshold, Traced) and self.threshold < 4:
            raise ValueError(f"scale_by_radam: threshold is {self.threshold}, wanted 4 or more: r has no value below")

    def init(self, params: Any) -> ScaleByAdamState:
        mu, nu = zeros_like("scale_by_radam", params), zeros_like("scale_by_radam", params, real=True)
        return ScaleByAdamState(jnp.zeros((), jnp.int32), mu, nu)

    def update(self, grads: Any, state: ScaleByAdamState, params: Any = None) -> tuple[Any, ScaleByAdamState]:
        count = safe_increment(state.count)
        of_mu, of_g = ahead_factors(self.b1, count, self.nesterov)
        total = bias_correction(self.b2, count)
        known, rectifier = self._rectifier(count)
        before = jnp.sqrt(total) if self.tf_style else jnp.ones_like(total)
        of_nu = jnp.ones_like(total) if self.tf_style else 1 / total

        def step(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            mu = self.b1 * mu + (1 - self.b1) * g
            nu = self.b2 * nu + (1 - self.b2) * abs_sq(g)
            root = jnp.sqrt(of_nu.astype(nu.dtype) * nu + self.eps_root)
            # Where nu is not trusted, the root must not divide: it may be 0.
            root = jnp.where(known, root + self.eps, jnp.ones_like(root))
            factor = jnp.where(known, before * rectifier, jnp.ones_like(before))
            return factor.astype(g.dtype) * weigh(mu, g, of_mu, of_g) / root, mu, nu

        updates, mu, nu = leafwise("scale_by_radam", step, grads, state.mu, state.nu)
        return updates, ScaleByAdamState(count, mu, nu)

    def _rectifier(self, count: Int[Array, ""]) -> tuple[Array, Float[Array, ""]]:
        """Whether nu is known well enough, and r."""
        limit, length = lengths(self.b2, count)
        known = length >= as_dtype(self.threshold, length.dtype)
        length = jnp.where(known, length, limit)  # where r is not used, it is 1: nothing there to become NaN
        ratio = (length - 4) * (length - 2) / ((limit - 4) * (limit - 2)) * (limit / length)
        return known, jnp.where(known, jnp.sqrt(jnp.where(known, ratio, jnp.ones_like(ratio))), jnp.ones_like(ratio))


def lengths(b2: Any, count: Int[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """rho_inf and rho_t: how many gradients the average of squares weighs like, in the end and after `count`.

    rho_t = rho_inf - 2 t b2^t / (1 - b2^t) is a small difference of large numbers: at b2 = 0.999 and t = 6 float32
    leaves four digits of 5.99. With h = -log(b2) / 2 and Langevin's L(x) = coth(x) - 1 / x it equals
    t + L(h) - t L(t h), which cancels nothing for small t h.
    """
    dtype = jnp.result_type(float)
    t = count.astype(dtype)
    if isinstance(b2, Traced):
        h = -jnp.log(as_dtype(b2, dtype)) / 2
    elif b2 == 0:
        return jnp.ones((), dtype), jnp.ones((), dtype)
    else:
        h = jnp.asarray(-math.log(b2) / 2, dtype)
    limit = 1 / jnp.tanh(h)
    x = t * h
    near = t + _langevin(h) - t * _langevin(jnp.minimum(x, jnp.full_like(x, 0.5)))
    far = limit - 2 * t / jnp.expm1(2 * x)
    return limit, jnp.where(x < 0.5, near, far)


def _langevin(x: Float[Array, ""]) -> Float[Array, ""]:
    """coth(x) - 1 / x; by its series below 1/2, where the difference would cancel."""
    total = jnp.zeros_like(x)
    for coefficient in LANGEVIN:
        total = coefficient + x * x * total
    small = x < 0.5
    safe = jnp.where(small, jnp.ones_like(x), x)
    return jnp.where(x <= 0.5, x * total, 1 / jnp.tanh(safe) - 1 / safe)


# 2^(2 n) B_(2 n) / (2 n)! for n = 10, ..., 1, with the numbers of Bernoulli: the last term is below 1e-17 at x = 1/2.
BERNOULLI = (
    1 / 6,
    -1 / 30,
    1 / 42,
    -1 / 30,
    5 / 66,
    -691 / 2730,
    7 / 6,
    -3617 / 510,
    43867 / 798,
    -174611 / 330,
)
LANGEVIN = tuple(4.0**n * b / math.factorial(2 * n) for n, b in enumerate(BERNOULLI, 1))[::-1]

scale_by_radam = ScaleByRadam


def radam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
    tf_style: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    l2: Scalar = 0.0,
    mask: Mask = None,
) -> Chain:
    """RAdam: momentum at first, Adam as its average of squared gradients becomes reliable; a warm-up of its own.

        mu = b1 mu + (1 - b1) g              mu_hat = mu / (1 - b1^t)        t = 1 in the first update
        nu = b2 nu + (1 - b2) g^2            nu_hat = nu / (1 - b2^t)
        rho_inf = 2 / (1 - b2) - 1           rho = rho_inf - 2 t b2^t / (1 - b2^t)
        r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))

        p = p - eta mu_hat                                               while rho < threshold
        p = p - eta r mu_hat / (sqrt(nu_hat + eps_root) + eps)           then

        tf_style:   p = p - eta r sqrt(1 - b2^t) mu_hat / (sqrt(nu + eps_root) + eps)

    The first five steps (at b2 = 0.999) are in the scale of the gradients, not in that of Adam.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old average of gradients.
      b2: the weight of the old average of squared gradients.
      eps: stands outside the root.
      eps_root: stands inside the root.
      threshold: the rho from which on nu is used; 4 or more.
      nesterov: whether mu_hat looks ahead, as in `nadam`.
      tf_style: adds eps to the uncorrected root, as torch does here (and not in its Adam).
      weight_decay: decoupled: eta (direction + weight_decay p), a number or a schedule.
      l2: coupled weight decay: g + l2 * p stands for g.
      mask: which parameters decay: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax: equal in float64; in float32 its rho loses digits to a difference of large numbers, which
    `lengths` avoids. torch `RAdam`: `radam(lr, **preset("torch", "radam"))`; its `weight_decay` is `l2`, and
    `weight_decay` under `decoupled_weight_decay=True`. Keras has none.

    Reference: Liu et al., "On the variance of the adaptive learning rate and beyond", 2020.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = radam(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.200
    1.929
    1.069

    Raises:
      ValueError: as `ScaleByRadam`, or another negative argument.
    """
    return chain(
        *l2_links(l2, mask),
        scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov, tf_style=tf_style),
        *decay_links(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
