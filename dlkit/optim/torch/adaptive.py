"""torch's Adam, AdamW, Adamax, NAdam and RAdam."""

from dlkit.optim.hyper import Scalar, ScalarOrSchedule
from dlkit.optim.rules.adam import ScaleByAdam, scale_by_adam
from dlkit.optim.rules.adamax import scale_by_adamax
from dlkit.optim.rules.amsgrad import ScaleByAmsgrad, scale_by_amsgrad
from dlkit.optim.rules.nadam import scale_by_nadam
from dlkit.optim.rules.radam import scale_by_radam
from dlkit.optim.torch.base import assemble, pair
from dlkit.optim.transform import Chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["adam", "adamax", "adamw", "nadam", "radam"]

Betas = tuple[Scalar, Scalar]


def _adam(betas: Betas, eps: Scalar, amsgrad: bool) -> ScaleByAdam | ScaleByAmsgrad:
    b1, b2 = pair("adam", "betas", betas)
    return scale_by_amsgrad(b1, b2, eps, correct_after_max=True) if amsgrad else scale_by_adam(b1, b2, eps)


def adam(
    lr: ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
    mask: Mask = None,
) -> Chain:
    """torch.optim.Adam: `optim.adam`, and `optim.amsgrad` with the maximum taken before the correction.

    Args:
      lr: the learning rate, or a schedule.
      betas: the weights of the old averages of gradients and of squared gradients.
      eps: stands outside of the corrected root.
      weight_decay: *coupled*: g + weight_decay p stands for g.
      amsgrad: whether the average of squares is replaced by its maximum so far.
      maximize: climb instead of descending.
      decoupled_weight_decay: whether p loses lr weight_decay p instead (AdamW).
      mask: which parameters decay; None for all.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adam(0.1, weight_decay=0.1, amsgrad=True)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.420
    3.881
    3.384

    Raises:
      ValueError: betas outside of [0, 1), or a negative argument.
    """
    return assemble(
        _adam(betas, eps, amsgrad),
        lr=lr,
        weight_decay=weight_decay,
        decoupled=decoupled_weight_decay,
        maximize=maximize,
        mask=mask,
    )


def adamw(
    lr: ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    mask: Mask = None,
) -> Chain:
    """torch.optim.AdamW: `adam` with decoupled decay, of 0.01 by default: p = p - lr (direction + weight_decay p).

    Args:
      lr, betas, eps, amsgrad, maximize, mask: see `adam`.
      weight_decay: decoupled.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adamw(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.411
    3.864
    3.361

    Raises:
      ValueError: as `adam`.
    """
    return adam(lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True, mask=mask)


def adamax(
    lr: ScalarOrSchedule = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    *,
    maximize: bool = False,
    mask: Mask = None,
) -> Chain:
    """torch.optim.Adamax: `optim.adamax`.

    Args:
      lr, betas, maximize, mask: see `adam`.
      eps: is added to |g| inside of the maximum.
      weight_decay: coupled: g + weight_decay p stands for g.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adamax(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.420
    3.897
    3.428

    Raises:
      ValueError: as `adam`.
    """
    direction = scale_by_adamax(*pair("adamax", "betas", betas), eps)
    return assemble(direction, lr=lr, weight_decay=weight_decay, decoupled=False, maximize=maximize, mask=mask)


def nadam(
    lr: ScalarOrSchedule = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    momentum_decay: Scalar = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
    mask: Mask = None,
) -> Chain:
    """torch.optim.NAdam: `optim.nadam` with a momentum that rises, b1 (1 - 0.96^(t momentum_decay) / 2).

    torch keeps the product of the momenta in its default dtype: with float64 parameters and a float32 default its
    steps are off by some 1e-8.

    Args:
      lr, betas, eps, maximize, decoupled_weight_decay, mask: see `adam`.
      weight_decay: coupled unless `decoupled_weight_decay`.
      momentum_decay: how fast the momentum rises to b1.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = nadam(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.388
    3.977
    3.620

    Raises:
      ValueError: as `adam`.
    """
    return assemble(
        scale_by_nadam(*pair("nadam", "betas", betas), eps, momentum_decay=momentum_decay),
        lr=lr,
        weight_decay=weight_decay,
        decoupled=decoupled_weight_decay,
        maximize=maximize,
        mask=mask,
    )


def radam(
    lr: ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
    mask: Mask = None,
) -> Chain:
    """torch.optim.RAdam: `optim.radam` with eps beside the uncorrected root.

    Args:
      lr, betas, maximize, decoupled_weight_decay, mask: see `adam`.
      eps: stands outside of the *uncorrected* root, unlike in torch's Adam.
      weight_decay: coupled unless `decoupled_weight_decay`.

    >>> import jax
    >>> import jax.numpy as jnp
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
      ValueError: as `adam`.
    """
    return assemble(
        scale_by_radam(*pair("radam", "betas", betas), eps, tf_style=True),
        lr=lr,
        weight_decay=weight_decay,
        decoupled=decoupled_weight_decay,
        maximize=maximize,
        mask=mask,
    )
