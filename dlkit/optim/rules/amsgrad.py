"""AMSGrad: Adam whose average of squared gradients never falls, in optax's form, torch's and Keras's."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.gradients.decay import decay_links, l2_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, bias_correction, safe_increment, settle
from dlkit.optim.leaves import abs_sq, leafwise, zeros_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByAmsgrad", "ScaleByAmsgradState", "amsgrad", "scale_by_amsgrad"]


class ScaleByAmsgradState(NamedTuple):
    """Updates so far (int32), the two moving averages, and the largest second one so far."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: Any  # the average of the gradients
    nu: Any  # the average of the squared gradients
    nu_max: Any  # the maximum of nu, corrected or not


@dataclass(frozen=True)
class ScaleByAmsgrad(Transform[ScaleByAmsgradState]):
    """u = mu_hat / (sqrt(nu_max + eps_root) + eps), nu_max = max(nu_max, nu_hat): see `amsgrad`.

    >>> tx = scale_by_amsgrad()
    >>> updates, state = tx.update({"w": jnp.array([3.0, -0.1])}, tx.init({"w": jnp.ones(2)}))
    >>> updates["w"].round(4), state.nu_max["w"].round(4)
    (Array([ 1., -1.], dtype=float32), Array([9.  , 0.01], dtype=float32))

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), a negative `eps` or `eps_root`; `correct_after_max` or `tf_style`
        without both bias corrections.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-8
    eps_root: Scalar = 0.0
    mu_dtype: Any = None
    bias_correction_mu: bool = True
    bias_correction_nu: bool = True
    _: KW_ONLY
    correct_after_max: bool = False
    tf_style: bool = False

    def __post_init__(self) -> None:
        settle("scale_by_amsgrad", self, decays=("b1", "b2"), nonnegative=("eps", "eps_root"), dtypes=("mu_dtype",))
        if (self.correct_after_max or self.tf_style) and not (self.bias_correction_mu and self.bias_correction_nu):
            raise ValueError(
                "scale_by_amsgrad: correct_after_max and tf_style say where the bias is corrected: wanted "
                "bias_correction_mu=True and bias_correction_nu=True"
            )

    def init(self, params: Any) -> ScaleByAmsgradState:
        mu = zeros_like("scale_by_amsgrad", params, self.mu_dtype)
        nu, largest = (zeros_like("scale_by_amsgrad", params, real=True) for _ in range(2))
        return ScaleByAmsgradState(jnp.zeros((), jnp.int32), mu, nu, largest)

    def update(self, grads: Any, state: ScaleByAmsgradState, params: Any = None) -> tuple[Any, ScaleByAmsgradState]:
        count = safe_increment(state.count)
        total_mu, total_nu = bias_correction(self.b1, count), bias_correction(self.b2, count)
        of_mu = 1 / total_mu if self.bias_correction_mu else jnp.ones_like(total_mu)
        before = after = jnp.ones_like(total_nu)  # the factors of nu, before and after the maximum is taken
        if self.tf_style:
            of_mu = jnp.sqrt(total_nu) / total_mu
        elif self.correct_after_max:
            after = 1 / total_nu
        elif self.bias_correction_nu:
            before = 1 / total_nu

        def step(g: Array, mu: Array, nu: Array, largest: Array) -> tuple[Array, Array, Array, Array]:
            mu = self.b1 * mu + (1 - self.b1) * g
            nu = self.b2 * nu + (1 - self.b2) * abs_sq(g)
            largest = jnp.maximum(largest, before.astype(nu.dtype) * nu)
            root = jnp.sqrt(after.astype(nu.dtype) * largest + self.eps_root)
            return of_mu.astype(g.dtype) * mu / (root + self.eps), mu, nu, largest

        updates, *moments = leafwise("scale_by_amsgrad", step, grads, state.mu, state.nu, state.nu_max)
        return updates, ScaleByAmsgradState(count, *moments)


scale_by_amsgrad = ScaleByAmsgrad


def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: Any = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    correct_after_max: bool = False,
    tf_style: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    l2: Scalar = 0.0,
    mask: Mask = None,
) -> Chain:
    """AMSGrad: Adam with the largest average of squared gradients so far, so that no rate ever grows.

        mu = b1 mu + (1 - b1) g              mu_hat = mu / (1 - b1^t)        t = 1 in the first update
        nu = b2 nu + (1 - b2) g^2
        nu_max = max(nu_max, nu / (1 - b2^t))
        p  = p - eta mu_hat / (sqrt(nu_max + eps_root) + eps)

        correct_after_max:  nu_max = max(nu_max, nu)    p = p - eta mu_hat / (sqrt(nu_max / (1 - b2^t)) + eps)
        tf_style:           nu_max = max(nu_max, nu)    p = p - eta sqrt(1 - b2^t) mu_hat / (sqrt(nu_max) + eps)

    The order matters: 1 / (1 - b2^t) is large in the first steps, so a maximum of corrected averages remembers the
    first gradients for ever, where one of uncorrected averages begins near zero and is overtaken.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old average of gradients.
      b2: the weight of the old average of squared gradients.
      eps: stands outside the root.
      eps_root: stands inside the root.
      mu_dtype: the dtype of mu; None means that of the parameters.
      bias_correction_mu, bias_correction_nu: whether the averages are corrected; False for both is the paper's form.
      correct_after_max: takes the maximum of the uncorrected averages and corrects it then, as torch does.
      tf_style: as `correct_after_max`, with eps added to the uncorrected root, as Keras does.
      weight_decay: decoupled: eta (direction + weight_decay p), a number or a schedule (torch's AdamW).
      l2: coupled weight decay: g + l2 * p stands for g (torch's Adam).
      mask: which parameters decay: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax: equal; it has neither of the other two forms. torch `Adam(amsgrad=True)`:
    `amsgrad(lr, **preset("torch", "amsgrad"))`. Keras: `preset("keras", "amsgrad")`.

    Reference: Reddi, Kale, Kumar, "On the convergence of Adam and beyond", 2018.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = amsgrad(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.420
    3.898
    3.429

    Raises:
      ValueError: as `ScaleByAmsgrad`, or a negative argument.
    """
    direction = scale_by_amsgrad(
        b1,
        b2,
        eps,
        eps_root,
        mu_dtype,
        bias_correction_mu,
        bias_correction_nu,
        correct_after_max=correct_after_max,
        tf_style=tf_style,
    )
    rate = scale_by_learning_rate(learning_rate)
    return chain(*l2_links(l2, mask), direction, *decay_links(weight_decay, mask), rate)
