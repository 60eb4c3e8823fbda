"""torch's SGD, Adagrad, Adadelta, RMSprop and Rprop."""

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_float
from dlkit.optim.rules.adadelta import scale_by_adadelta
from dlkit.optim.rules.adagrad import scale_by_rss
from dlkit.optim.rules.momentum import trace
from dlkit.optim.rules.rmsprop import scale_by_rms, scale_by_stddev
from dlkit.optim.rules.rprop import scale_by_rprop
from dlkit.optim.scaling import scale
from dlkit.optim.torch.base import InverseTime, ascent, assemble, pair
from dlkit.optim.transform import Chain, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["adadelta", "adagrad", "rmsprop", "rprop", "sgd"]


def sgd(
    lr: ScalarOrSchedule = 1e-3,
    momentum: Scalar = 0.0,
    dampening: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
    mask: Mask = None,
) -> Chain:
    """torch.optim.SGD: v = momentum v + (1 - dampening) g; p = p - lr v. See `optim.sgd`.

    Args:
      lr: the learning rate, or a schedule.
      momentum: the weight of the old velocity; 0 for none.
      dampening: how much less a gradient counts in the velocity, all but the first one.
      weight_decay: coupled: g + weight_decay p stands for g.
      nesterov: steps by g + momentum v.
      maximize: climb instead of descending.
      mask: which parameters decay; None for all.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = sgd(0.1, momentum=0.5)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.200
    1.458
    0.456

    Raises:
      ValueError: `nesterov` without momentum or with dampening; a negative `momentum` or `weight_decay`.
    """
    weight = as_float("sgd", "momentum", momentum)
    if not weight and nesterov:
        raise ValueError(f"sgd: nesterov=True needs a momentum, got momentum={momentum}")
    direction = (trace(weight, nesterov, dampening=dampening),) if weight else ()
    return assemble(*direction, lr=lr, weight_decay=weight_decay, decoupled=False, maximize=maximize, mask=mask)


def adagrad(
    lr: ScalarOrSchedule = 1e-2,
    lr_decay: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    initial_accumulator_value: Scalar = 0.0,
    eps: Scalar = 1e-10,
    *,
    maximize: bool = False,
    mask: Mask = None,
) -> Chain:
    """torch.optim.Adagrad: s = s + g^2; p = p - lr / (1 + t lr_decay) g / (sqrt(s) + eps), t = 0 first.

    See `optim.adagrad`. A parameter whose gradients were all zero stays as it is, at eps = 0 too (torch: NaN).

    Args:
      lr: the learning rate, or a schedule.
      lr_decay: how fast the rate falls.
      weight_decay: coupled: g + weight_decay p stands for g.
      initial_accumulator_value: what s starts from.
      eps: stands outside of the root.
      maximize, mask: see `sgd`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adagrad(0.5)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    2.500
    1.516
    0.992

    Raises:
      ValueError: a negative argument.
    """
    decay = as_float("adagrad", "lr_decay", lr_decay)
    rate = InverseTime(lr, decay) if decay else lr
    direction = scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=False)
    return assemble(direction, lr=rate, weight_decay=weight_decay, decoupled=False, maximize=maximize, mask=mask)


def adadelta(
    lr: ScalarOrSchedule = 1.0,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
    weight_decay: Scalar = 0.0,
    *,
    maximize: bool = False,
    mask: Mask = None,
) -> Chain:
    """torch.optim.Adadelta: `optim.adadelta` with torch's names and a rate of 1.

    Args:
      lr: the learning rate, or a schedule.
      rho: the weight of the old averages.
      eps: stands inside both roots.
      weight_decay: coupled: g + weight_decay p stands for g.
      maximize, mask: see `sgd`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adadelta(eps=1e-2)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.311
    2.113
    1.330

    Raises:
      ValueError: `rho` outside of [0, 1), or a negative argument.
    """
    direction = scale_by_adadelta(rho, eps)
    return assemble(direction, lr=lr, weight_decay=weight_decay, decoupled=False, maximize=maximize, mask=mask)


def rmsprop(
    lr: ScalarOrSchedule = 1e-2,
    alpha: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    momentum: Scalar = 0.0,
    centered: bool = False,
    *,
    maximize: bool = False,
    mask: Mask = None,
) -> Chain:
    """torch.optim.RMSprop: nu = alpha nu + (1 - alpha) g^2; v = momentum v + g / (sqrt(nu) + eps); p = p - lr v.

    See `optim.rmsprop`. `centered` takes the squared average gradient from nu.

    Args:
      lr: the learning rate, or a schedule.
      alpha: the weight of the old average.
      eps: stands outside of the root.
      weight_decay: coupled: g + weight_decay p stands for g.
      momentum: the weight of the old velocity; 0 for none.
      centered: whether nu is the variance.
      maximize, mask: see `sgd`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = rmsprop(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    1.000
    0.304
    0.096

    Raises:
      ValueError: `alpha` outside of [0, 1), or a negative argument.
    """
    kind = scale_by_stddev if centered else scale_by_rms
    weight = as_float("rmsprop", "momentum", momentum)
    direction = (kind(alpha, eps, eps_in_sqrt=False), *((trace(weight),) if weight else ()))
    return assemble(*direction, lr=lr, weight_decay=weight_decay, decoupled=False, maximize=maximize, mask=mask)


def rprop(
    lr: Scalar = 1e-2,
    etas: tuple[Scalar, Scalar] = (0.5, 1.2),
    step_sizes: tuple[Scalar, Scalar] = (1e-6, 50.0),
    *,
    maximize: bool = False,
) -> Chain:
    """torch.optim.Rprop: `optim.rprop` without optax's delay.

    Args:
      lr: the first step size of every parameter: a number (a scheduler of torch's has no effect on it either).
      etas: the factors of a step size where the gradient has changed its sign and where it has not.
      step_sizes: the least and the largest step size.
      maximize: climb instead of descending.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = rprop(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.420
    3.777
    3.081

    Raises:
      ValueError: etas that are not 0 < etas[0] < 1 <= etas[1], or step sizes in the wrong order.
    """
    (minus, plus), (least, most) = pair("rprop", "etas", etas), pair("rprop", "step_sizes", step_sizes)
    return chain(*ascent(maximize), scale_by_rprop(lr, minus, plus, least, most, delayed=False), scale(-1.0))
