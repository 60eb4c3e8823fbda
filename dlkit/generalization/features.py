"""Random features: networks whose first layer stays as it was drawn, so that all of training is one least squares."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dlkit.generalization.shrinkage import ridge
from dlkit.nn import fold_name

__all__ = ["Sweep", "double_descent", "interpolation_threshold", "random_features"]


def random_features(
    key: Any, x: Float[Array, "n d"], width: int, activation: Callable[[Array], Array] = jax.nn.relu
) -> Float[Array, "n width"]:
    r"""phi(x W / sqrt(d)), W `[d, width]` standard normal: the hidden layer of a network that is not trained.

    Feature j is drawn from a key of its own: those of a smaller width are the first ones of a larger.

    Reference: Rahimi and Recht, "Random features for large-scale kernel machines", 2007.

    >>> x = jnp.ones((3, 4))
    >>> few, many = (random_features(jax.random.key(0), x, width) for width in (2, 5))
    >>> many.shape, bool((many[:, :2] == few).all())
    ((3, 5), True)
    """
    x = jnp.asarray(x)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(width))
    w = jax.vmap(lambda k: jax.random.normal(k, x.shape[1:], x.dtype))(keys)
    return activation(x @ w.T / jnp.sqrt(jnp.asarray(x.shape[1], x.dtype)))


class Sweep(NamedTuple):
    """What `double_descent` measured for each of the K keys and S sizes."""

    widths: np.ndarray  # [S]
    samples: np.ndarray  # [S]
    train: Float[Array, "K S"]  # mean squared error
    test: Float[Array, "K S"]
    norm: Float[Array, "K S"]  # of the solution
    predictions: Float[Array, "K S M"]  # on the test set, for `bias_variance`


def double_descent(
    keys: Any,
    x: Float[Array, "n d"],
    y: Float[Array, "n"],
    x_test: Float[Array, "m d"],
    y_test: Float[Array, "m"],
    *,
    widths: Any,
    samples: Any = None,
    strength: float = 0.0,
    activation: Callable[[Array], Array] = jax.nn.relu,
) -> Sweep:
    """Random features fitted at many widths, or with many numbers of samples, for many draws: one program.

    The test error of the least-norm fit rises as the width comes near the number of samples, where a single solution
    interpolates and has to be huge, and falls again behind it, where the smallest of many is taken. More samples at one
    width come to the same point from the other side: there, more data hurt. A little decay takes the peak away.

    Args:
      keys: `[K]`. The features of a key are `random_features(key, x, width)`, its samples the first ones of a
        permutation by the key, so that members differ in both.
      x, y: what may be learned from. x_test, y_test: what the error is measured on.
      widths, samples: sizes, `[S]`; one of them may be a single number. No `samples` means all n.
      strength: of the decay, as in `ridge`; 0 for the solution of least norm.
      activation: of the features.

    >>> x = jax.random.normal(jax.random.key(0), (20, 5))
    >>> y = x[:, 0] + jax.random.normal(jax.random.key(1), (20,)) / 2
    >>> new = jax.random.normal(jax.random.key(2), (100, 5))
    >>> found = double_descent(jax.random.split(jax.random.key(3), 20), x, y, new, new[:, 0], widths=[5, 20, 200])
    >>> small, peak, large = jnp.median(found.test, axis=0)
    >>> bool(peak > 3 * small), bool(peak > 3 * large)
    (True, True)

    Raises:
      ValueError: sizes out of range, or of different lengths.

    References: Belkin et al., "Reconciling modern machine-learning practice and the classical bias-variance trade-off",
    2019; Nakkiran et al., "Deep double descent: where bigger models and more data hurt", 2020; Mei and Montanari 2022.
    """
    x, y, x_test, y_test = (jnp.asarray(a) for a in (x, y, x_test, y_test))
    n = len(x)
    given = np.asarray(widths), np.asarray(n if samples is None else samples)
    if given[0].ndim > 1 or given[1].ndim > 1 or len({a.size for a in given if a.ndim}) > 1:
        raise ValueError(f"widths and samples must be numbers or of one length, got shapes {[a.shape for a in given]}")
    sizes = [np.atleast_1d(a) for a in np.broadcast_arrays(*given)]
    if min(a.min() for a in sizes) < 1 or sizes[1].max() > n:
        raise ValueError(f"widths and samples must be at least 1, samples at most {n}, got {widths} and {samples}")
    longest = int(sizes[1].max())
    found = _fits(
        keys, x, y, x_test, y_test, tuple(jnp.asarray(a) for a in sizes), strength, int(sizes[0].max()), longest,
        activation,
    )  # fmt: skip
    return Sweep(sizes[0], sizes[1], *found)


@functools.partial(jax.jit, static_argnums=(7, 8, 9))
def _fits(
    keys: Any, x: Any, y: Any, x_test: Any, y_test: Any, sizes: Any, strength: Any, most: int, longest: int,
    activation: Any,
) -> tuple[Any, ...]:  # fmt: skip
    def member(key: Any) -> Any:
        order = jax.random.permutation(fold_name(key, "rows"), len(x))[:longest]
        inside, outside = (random_features(key, a, most, activation) for a in (x[order], x_test))
        targets = y[order]

        def fit(size: Any) -> Any:
            width, rows = size
            used, seen = jnp.arange(most) < width, jnp.arange(longest) < rows
            phi = inside * (used[None] & seen[:, None]).astype(x.dtype)
            # `ridge` divides by all rows there are, so the strength that it takes is that for the rows in use.
            share = rows.astype(x.dtype) / longest
            w = ridge(phi, targets * seen.astype(x.dtype), strength * share)
            predictions, wrong = outside @ w, (phi @ w - targets) ** 2
            return (
                jnp.sum(jnp.where(seen, wrong, 0)) / rows.astype(x.dtype),
                jnp.mean((predictions - y_test) ** 2),
                jnp.sqrt(jnp.sum(w**2)),
                predictions,
            )

        return jax.lax.map(fit, sizes)

    return jax.lax.map(member, keys)


def interpolation_threshold(sizes: Any, train_error: Any, *, tol: float = 1e-3) -> float:
    """The smallest size from which on the training error is at most `tol` times its largest: where the fit is exact.

    Args:
      sizes: `[S]`, ascending: widths, or epochs. train_error: `[S]`.
      tol: what counts as none.

    >>> interpolation_threshold([10, 20, 30, 40], [1.0, 0.3, 1e-9, 1e-12])
    30.0

    Raises:
      ValueError: it is never reached, or sizes that do not ascend.
    """
    sizes, error = np.asarray(sizes, np.float64), np.asarray(train_error, np.float64)
    if sizes.shape != error.shape or sizes.ndim != 1 or np.any(np.diff(sizes) <= 0):
        raise ValueError(f"sizes must ascend, one for each training error, got {sizes} and {error.shape} errors")
    above = np.flatnonzero(~(error <= tol * error.max()))
    first = int(above[-1]) + 1 if len(above) else 0
    if first == len(sizes):
        raise ValueError(
            f"the training error at the largest size is {error[-1]:.3g}, above {tol:g} of {error.max():.3g}"
        )
    return float(sizes[first])
