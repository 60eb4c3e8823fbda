"""Adam and AdamW."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.gradients.decay import add_decayed_weights, l2_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, bias_correction, safe_increment, settle
from dlkit.optim.leaves import abs_sq, cast, leafwise, zeros_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByAdam", "ScaleByAdamState", "adam", "adamw", "scale_by_adam"]


class ScaleByAdamState(NamedTuple):
    """Updates so far (int32), and the two moving averages, not bias-corrected."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: Any  # the average of the gradients
    nu: Any  # the average of the squared gradients


@dataclass(frozen=True)
class ScaleByAdam(Transform[ScaleByAdamState]):
    """u = mu_hat / (sqrt(nu_hat + eps_root) + eps): see `adam`.

    >>> tx = scale_by_adam()
    >>> updates, state = tx.update({"w": jnp.array([3.0, -0.1])}, tx.init({"w": jnp.ones(2)}))
    >>> updates["w"].round(4), state.count
    (Array([ 1., -1.], dtype=float32), Array(1, dtype=int32))

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), a negative `eps` or `eps_root`, or `nesterov` with `tf_style`.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-8
    eps_root: Scalar = 0.0
    mu_dtype: Any = None
    _: KW_ONLY
    nesterov: bool = False
    tf_style: bool = False

    def __post_init__(self) -> None:
        settle("scale_by_adam", self, decays=("b1", "b2"), nonnegative=("eps", "eps_root"), dtypes=("mu_dtype",))
        if self.nesterov and self.tf_style:
            raise ValueError("scale_by_adam: nesterov and tf_style exclude each other")

    def init(self, params: Any) -> ScaleByAdamState:
        mu = zeros_like("scale_by_adam", params, self.mu_dtype)
        return ScaleByAdamState(jnp.zeros((), jnp.int32), mu, zeros_like("scale_by_adam", params, real=True))

    def update(self, grads: Any, state: ScaleByAdamState, params: Any = None) -> tuple[Any, ScaleByAdamState]:
        count = safe_increment(state.count)
        of_mu, of_g, of_nu = self._factors(count)

        def step(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            mu = self.b1 * mu + (1 - self.b1) * g
            nu = self.b2 * nu + (1 - self.b2) * abs_sq(g)
            ahead = cast(of_mu, g.dtype) * mu
            if of_g is not None:
                ahead = ahead + cast(of_g, g.dtype) * g
            nu_hat = nu if of_nu is None else cast(of_nu, g.dtype) * nu
            if self.eps_root:
                nu_hat = nu_hat + self.eps_root
            return ahead / (jnp.sqrt(nu_hat) + self.eps), mu, nu

        updates, mu, nu = leafwise("scale_by_adam", step, grads, state.mu, state.nu)
        return updates, ScaleByAdamState(count, mu, nu)

    def _factors(
        self, count: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, ""] | None, Float[Array, ""] | None]:
        # All bias corrections are scalars, computed once: every leaf is then one elementwise expression.
        total_mu, total_nu = bias_correction(self.b1, count), bias_correction(self.b2, count)
        if self.tf_style:
            return jnp.sqrt(total_nu) / total_mu, None, None
        if self.nesterov:
            next_mu = bias_correction(self.b1, safe_increment(count))
            return self.b1 / next_mu, (1 - self.b1) / total_mu, 1 / total_nu
        return 1 / total_mu, None, 1 / total_nu


scale_by_adam = ScaleByAdam


def adam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    tf_style: bool = False,
    l2: Scalar = 0.0,
    mask: Mask = None,
) -> Chain:
    """Adam: steps of about the learning rate in every coordinate, whatever the scale of its gradients.

        mu = b1 mu + (1 - b1) g             mu_hat = mu / (1 - b1^t)        t = 1 in the first update
        nu = b2 nu + (1 - b2) g^2           nu_hat = nu / (1 - b2^t)
        p  = p - eta mu_hat / (sqrt(nu_hat + eps_root) + eps)

        nesterov:   mu_hat = b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)
        tf_style:   p = p - eta sqrt(1 - b2^t) / (1 - b1^t) mu / (sqrt(nu + eps_root) + eps)

    The corrected averages are not written back: the state holds mu and nu.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old average of gradients.
      b2: the weight of the old average of squared gradients.
      eps: stands outside the root.
      eps_root: stands inside the root; above 0 it makes the update differentiable where nu is 0.
      mu_dtype: the dtype of mu; None means that of the parameters.
      nesterov: NAdam's look-ahead.
      tf_style: adds eps to the uncorrected root (the paper's epsilon-hat), as TensorFlow and Keras do.
      l2: coupled weight decay: g + l2 * p stands for g (torch `Adam(weight_decay=)`). Under Adam this is not weight
        decay in proportion to p: see `adamw`.
      mask: which parameters `l2` acts on: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax: equal; its bias corrections lose digits in the first float32 steps, and with `mu_dtype` it
    rounds b1 mu too. torch `Adam`: equal.
    Keras: eps = 1e-7 with `tf_style`: `adam(lr, **preset("keras", "adam"))`. NAdam: torch's and Keras's vary the
    momentum by a schedule and differ from this and from each other.
    With bfloat16 *parameters*, nu is bfloat16 too, where b2 = 0.999 rounds to 1: nu never decays and soon stops
    growing, here as in optax. Keep the parameters in float32 (their gradients may be bfloat16), or take b2 <= 0.99.

    References: Kingma, Ba, "Adam: a method for stochastic optimization", 2015. Dozat, "Incorporating Nesterov momentum
    into Adam", 2016.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adam(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.420
    3.881
    3.384

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), a negative argument, or `nesterov` with `tf_style`.
    """
    return chain(
        *l2_links(l2, mask),
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, tf_style=tf_style),
        scale_by_learning_rate(learning_rate),
    )


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: Any = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = False,
    tf_style: bool = False,
) -> Chain:
    """Adam with decoupled weight decay: p = p - eta (adam's direction + weight_decay p).

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate. It scales the decay too.
      b1, b2, eps, eps_root, mu_dtype, nesterov, tf_style: see `adam`.
      weight_decay: a number or a schedule.
      mask: which parameters decay. None means all, as in optax and torch; `optim.WEIGHTS` is the usual choice, which
        leaves out biases and scales of norms. Also path globs, a tree of booleans, or a callable.

    Differences. Defaults of `weight_decay`: 1e-4 here and in optax, 1e-2 in torch, 4e-3 in Keras (with eps = 1e-7 and
    `tf_style`): `adamw(lr, **preset("torch", "adamw"))`. Equal when set equal.

    Reference: Loshchilov, Hutter, "Decoupled weight decay regularization", 2019.

    >>> import jax
    >>> from dlkit import optim
    >>> params = {"w": jnp.array([1.0, 2.0]), "b": jnp.array([1.0])}
    >>> tx = adamw(0.1, weight_decay=0.5, mask=optim.WEIGHTS)
    >>> zero = jax.tree.map(jnp.zeros_like, params)
    >>> updates, _ = tx.update(zero, tx.init(params), params)
    >>> optim.apply_updates(params, updates)
    {'b': Array([1.], dtype=float32), 'w': Array([0.95, 1.9 ], dtype=float32)}

    Raises:
      ValueError: as `adam`; from `init`, when a glob of `mask` matches nothing; from `update`, when `params` is None.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, tf_style=tf_style),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
