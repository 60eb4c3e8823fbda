"""The relatives of dropout: noise that multiplies, adds, keeps a mean and variance, or drops paths and blocks.

All take the key first and do nothing without one (`key=None`, evaluation). What needs an expectation of x has it unless
its docstring says otherwise. `broadcast_axes` share one draw, as in `dropout`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dlkit.functional.dropout import PRNGKey, check_broadcast, check_rate, keep_mask
from dlkit.functional.precision import wide_dtype

__all__ = ["alpha_dropout", "drop_block", "drop_path", "gaussian_dropout", "gaussian_noise", "linear_rates"]

# -scale alpha of `selu`: what it tends to at minus infinity.
ALPHA_PRIME = -1.0507009873554805 * 1.6732632423543772


def _mask_shape(who: str, x: Array, broadcast_axes: Sequence[int]) -> list[int]:
    check_broadcast(who, x, broadcast_axes)
    shared = {axis % x.ndim for axis in broadcast_axes}
    return [1 if i in shared else n for i, n in enumerate(x.shape)]


def alpha_dropout(
    key: PRNGKey | None, x: Float[Array, "*shape"], rate: float, *, broadcast_axes: Sequence[int] = ()
) -> Float[Array, "*shape"]:
    """`y = a (x m + s (1 - m)) + b`: dropped values become `s = -1.758`, where SELU saturates; mean 0 and variance 1
    are kept.

        a = 1 / sqrt((1 - rate) (1 + rate s^2))        b = -a rate s

    m is Bernoulli(1 - rate). The statistics are kept for x of mean 0 and variance 1, but not each element: `E[y]` is
    not x. At rate 1, y = 0, as in torch. `broadcast_axes` over space make torch's FeatureAlphaDropout.

    >>> y = alpha_dropout(jax.random.key(0), jax.random.normal(jax.random.key(1), (10_000,)), 0.5)
    >>> bool(abs(y.mean()) < 0.05), bool(abs(y.var() - 1) < 0.05)
    (True, True)

    Raises:
      ValueError: `rate` is not in [0, 1], or `broadcast_axes` names an axis that x has not.

    Reference: Klambauer, Unterthiner, Mayr and Hochreiter, Self-normalizing neural networks, 2017, arXiv:1706.02515.
    """
    check_rate("alpha_dropout", rate)
    shape = _mask_shape("alpha_dropout", x, broadcast_axes)
    if key is None or rate == 0:
        return x
    if rate == 1:
        return jnp.zeros_like(x)
    a = ((1 - rate) * (1 + rate * ALPHA_PRIME**2)) ** -0.5
    wide = x.astype(wide_dtype(x.dtype))
    kept = jnp.where(keep_mask(key, shape, rate), wide, ALPHA_PRIME)
    return (a * kept - a * rate * ALPHA_PRIME).astype(x.dtype)


def gaussian_dropout(
    key: PRNGKey | None, x: Float[Array, "*shape"], rate: float, *, broadcast_axes: Sequence[int] = ()
) -> Float[Array, "*shape"]:
    """`y = x (1 + sigma n)`, n standard normal, `sigma^2 = rate / (1 - rate)`: the variance that dropout has.

    >>> gaussian_dropout(jax.random.key(0), jnp.zeros(3), 0.5)
    Array([0., 0., 0.], dtype=float32)

    Raises:
      ValueError: `rate` is not in [0, 1), or `broadcast_axes` names an axis that x has not.

    Reference: Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, JMLR 2014, 10.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"gaussian_dropout: rate is {rate}; the variance is rate / (1 - rate), so want 0 <= rate < 1")
    shape = _mask_shape("gaussian_dropout", x, broadcast_axes)
    if key is None or rate == 0:
        return x
    wide = wide_dtype(x.dtype)
    noise = 1 + (rate / (1 - rate)) ** 0.5 * jax.random.normal(key, shape, wide)
    return (x.astype(wide) * noise).astype(x.dtype)


def gaussian_noise(key: PRNGKey | None, x: Float[Array, "*shape"], std: float) -> Float[Array, "*shape"]:
    """`y = x + std n`, n standard normal.

    >>> gaussian_noise(None, jnp.ones(2), 0.5)
    Array([1., 1.], dtype=float32)

    Raises:
      ValueError: `std` is negative.

    Reference: Bishop, Training with noise is equivalent to Tikhonov regularization, 1995.
    """
    if std < 0:
        raise ValueError(f"gaussian_noise: std is {std}; it is a standard deviation, so want std >= 0")
    if key is None or std == 0:
        return x
    wide = wide_dtype(x.dtype)
    return (x.astype(wide) + std * jax.random.normal(key, x.shape, wide)).astype(x.dtype)


def drop_path(
    key: PRNGKey | None, x: Float[Array, "*shape"], rate: float | Float[Array, ""], *, batch_axes: int = 1
) -> Float[Array, "*shape"]:
    """Whole examples of a residual branch are 0 with probability `rate`, else divided by `1 - rate`: stochastic depth.

    x `[B, ...]`: one draw for each index of the first `batch_axes` axes, 0 of them for one draw for all of x
    (torchvision's mode "batch"). `E[y] = x`. `rate` may be an array, such as that of one block of a scan.

    >>> y = drop_path(jax.random.key(0), jnp.ones((4, 3)), 0.5)
    >>> all(row in ([0, 0, 0], [2, 2, 2]) for row in y.tolist())
    True

    Raises:
      ValueError: `rate` is not in [0, 1], or x has fewer than `batch_axes` axes.

    Reference: Huang, Sun, Liu, Sedra and Weinberger, Deep networks with stochastic depth, 2016, arXiv:1603.09382.
    """
    if not 0 <= batch_axes <= x.ndim:
        raise ValueError(
            f"drop_path: x is {list(x.shape)} with batch_axes={batch_axes}; want at most its {x.ndim} axes"
        )
    if not isinstance(rate, jax.Array):
        check_rate("drop_path", rate)
        if rate == 0:
            return x
    if key is None:
        return x
    wide = wide_dtype(x.dtype)
    shape = x.shape[:batch_axes] + (1,) * (x.ndim - batch_axes)
    keep = 1 - jnp.asarray(rate, jnp.float32)
    mask = jax.random.uniform(key, shape, jnp.float32) < keep
    scaled = x.astype(wide) / jnp.where(keep == 0, 1.0, keep).astype(wide)
    return jnp.where(mask, scaled, 0.0).astype(x.dtype)


def linear_rates(rate: float, depth: int) -> tuple[float, ...]:
    """The rates of `depth` blocks that grow linearly from 0, at the first, to `rate`, at the last: `rate l / (L - 1)`.

    As in timm and torchvision. The paper starts at `rate / L`. One block alone gets `rate`.

    >>> linear_rates(0.5, 3)
    (0.0, 0.25, 0.5)

    Raises:
      ValueError: `rate` is not in [0, 1], or depth below 1.
    """
    check_rate("linear_rates", rate)
    if depth < 1:
        raise ValueError(f"linear_rates: depth is {depth}; want at least one block")
    return tuple(rate * i / (depth - 1) for i in range(depth)) if depth > 1 else (rate,)


def drop_block(
    key: PRNGKey | None, x: Float[Array, "*batch H W C"], rate: float, block: int = 7
) -> Float[Array, "*batch H W C"]:
    """Squares of `block x block` neighbouring positions of a feature map are 0, about `rate` of all; others are scaled.

        gamma = rate H W / (block^2 (H - block + 1) (W - block + 1))

    Each channel of each example draws its own corners, Bernoulli(gamma) at every position where a square fits, and y
    is `x mask n / sum(mask)` over the whole of x, n its size, so that the mean over the elements is kept. The numbers
    are torchvision's `drop_block2d`.

    >>> drop_block(jax.random.key(0), jnp.ones((2, 8, 8, 3)), 0.1, block=3).shape
    (2, 8, 8, 3)

    Raises:
      ValueError: `rate` is not in [0, 1], or x is smaller than a block.

    Reference: Ghiasi, Lin and Le, DropBlock, 2018, arXiv:1810.12890.
    """
    check_rate("drop_block", rate)
    if x.ndim < 3 or not 1 <= block <= min(x.shape[-3:-1]):
        raise ValueError(f"drop_block: x is {list(x.shape)} with block={block}; want [..., H, W, C] with H, W >= block")
    if key is None or rate == 0:
        return x
    *lead, height, width, channels = x.shape
    rows, columns = height - block + 1, width - block + 1
    gamma = min(rate * height * width / (block**2 * rows * columns), 1.0)
    corners = ~keep_mask(key, (*lead, rows, columns, channels), gamma)
    pad = [(0, 0)] * len(lead) + [(block - 1, block - 1)] * 2 + [(0, 0)]
    dropped = jnp.pad(corners, pad)
    for axis, size in ((-3, height), (-2, width)):
        moved = [lax.slice_in_dim(dropped, i, i + size, axis=axis % x.ndim) for i in range(block)]
        dropped = jnp.any(jnp.stack(moved), axis=0)
    wide = wide_dtype(x.dtype)
    share = jnp.mean(~dropped, dtype=wide)
    return jnp.where(dropped, 0.0, x.astype(wide) / jnp.where(share == 0, 1.0, share)).astype(x.dtype)
