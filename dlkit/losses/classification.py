"""Losses over C classes: cross-entropy, focal, multiclass hinge, Kullback-Leibler divergence."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from dlkit.batches import as_float, class_labels, is_class
from dlkit.losses.arrays import Scalar, is_number, matched

__all__ = ["cross_entropy", "focal", "kl_divergence", "multiclass_hinge"]


def _hits(loss: str, logits: Array, targets: Array, *, soft: bool = False) -> tuple[Array, Array]:
    """Where the class is the target, `[..., C]`, and whether each target lies in [0, C), `[...]`."""
    labels = class_labels(loss, logits, targets, soft=soft)
    return is_class(logits, labels), (labels >= 0) & (labels < logits.shape[-1])


def _pick(hits: Array, values: Array) -> Array:
    # A masked sum where one would expect a gather: its gradient is elementwise too, where that of a gather scatters.
    return jnp.sum(jnp.where(hits, values, 0), axis=-1)


def _class_weights(class_weight: ArrayLike | Sequence[float] | None, logits: Array) -> Array | None:
    if class_weight is None:
        return None
    weights = jnp.asarray(class_weight).astype(logits.dtype)
    if weights.shape != logits.shape[-1:]:
        raise ValueError(f"class_weight: got shape {list(weights.shape)}, expected [{logits.shape[-1]}], one a class")
    return jnp.broadcast_to(weights, logits.shape)


def cross_entropy(
    logits: Float[ArrayLike, "... c"],
    targets: ArrayLike,
    *,
    label_smoothing: Scalar = 0.0,
    class_weight: ArrayLike | Sequence[float] | None = None,
) -> Float[Array, "..."]:
    r"""Softmax cross-entropy from integer or soft labels.

    .. math:: \ell = -\sum_c a_c\, t'_c \log p_c, \qquad p = \mathrm{softmax}(\text{logits}), \qquad
       t'_c = (1 - \epsilon)\, t_c + \epsilon / C

    where :math:`t` is the soft label or the one-hot vector of the integer one, :math:`\epsilon` the label smoothing
    and :math:`a` the class weights (1 by default).

    >>> logits = jnp.array([[2.0, 0.0], [1e4, -1e4]])
    >>> [round(float(loss), 4) for loss in cross_entropy(logits, jnp.array([0, 1]))]
    [0.1269, 20000.0]

    Args:
      logits: `[..., C]`, unnormalized log-probabilities. They may be large (1e4) or -inf (a class that cannot be).
      targets: integers `[...]` in [0, C), or a distribution `[..., C]`.
      label_smoothing: in [0, 1]; a number, or a scalar array that changes without a new trace.
      class_weight: `[C]`.

    Returns:
      `[...]`, one loss an example (or a token), in float32 at least. An integer label outside [0, C) gives NaN, and no
      gradient, so a wrong label shows; to leave a position out, give it weight 0 (`weighted_mean` does not read it).

    Raises:
      ValueError: the shapes do not fit, or `label_smoothing` is a number outside [0, 1].
      TypeError: labels of shape `[...]` are not integers.

    With class weights, torch's mean divides by the sum of the weights of the labels; per example
    (`reduction="none"`) the numbers are the same. torch leaves out labels equal to `ignore_index` (-100): here that is
    weight 0. optax: `softmax_cross_entropy` (soft) and `..._with_integer_labels`, where label -1 means the last class.
    Keras: `CategoricalCrossentropy(from_logits=True)`; its default reads *probabilities*, clipped at 1e-7.

    Reference: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016 (label smoothing).
    """
    logits, targets = as_float(logits, "logits"), jnp.asarray(targets)
    if is_number(label_smoothing):
        label_smoothing = float(label_smoothing)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing: got {label_smoothing}, expected a number in [0, 1]")
    smooth = not (is_number(label_smoothing) and label_smoothing == 0)
    weights = _class_weights(class_weight, logits)
    count = logits.shape[-1]
    # Shifted first, and never formed as logsumexp - logit: at logits of 1e4 that difference has lost three digits.
    shifted = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    log_normalizer = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))

    if targets.shape == logits.shape:
        targets = targets.astype(logits.dtype)
        if smooth:
            targets = (1 - label_smoothing) * targets + label_smoothing / count
        if weights is not None:
            targets = targets * weights
        log_p = shifted - log_normalizer[..., None]
        return -jnp.sum(targets * jnp.where(targets == 0, 0, log_p), axis=-1)

    hits, valid = _hits("cross_entropy", logits, targets, soft=True)
    loss = log_normalizer - _pick(hits, shifted)
    if weights is not None:
        loss = loss * _pick(hits, weights)
    if smooth:
        surprise = log_normalizer[..., None] - shifted
        uniform = jnp.mean(surprise if weights is None else weights * surprise, axis=-1)
        loss = (1 - label_smoothing) * loss + label_smoothing * uniform
    return jnp.where(valid, loss, jnp.nan)


def focal(
    logits: Float[ArrayLike, "... c"],
    targets: ArrayLike,
    *,
    gamma: Scalar = 2.0,
    class_weight: ArrayLike | Sequence[float] | None = None,
) -> Float[Array, "..."]:
    r"""Multiclass focal loss: cross-entropy that turns away from what is already right.

    .. math:: \ell = -a_y (1 - p_y)^\gamma \log p_y, \qquad p = \mathrm{softmax}(\text{logits})

    >>> round(float(focal(jnp.array([[0.0, 0.0]]), jnp.array([1]))[0]), 4)  # (1/2)^2 log 2
    0.1733

    Args:
      logits: `[..., C]` with C of 2 or more.
      targets: integers `[...]` in [0, C); another one gives NaN, as in `cross_entropy`.
      gamma: the focus; 0 is cross-entropy. The power is taken as exp(gamma log(1 - p)), so gradients are finite
        for every gamma, also where p is 1 in floating point and where logits are -inf.
      class_weight: `[C]`, the paper's alpha.

    Returns: `[...]`.

    Raises:
      ValueError: C is 1, or the shapes do not fit.
      TypeError: labels are not integers.

    `binary_focal` is the form with one logit. Neither torch nor optax has the multiclass form; Keras
    `CategoricalFocalCrossentropy` sums over classes of one-hot labels, with alpha 0.25 unless told otherwise.

    Reference: Lin et al., Focal Loss for Dense Object Detection, 2017.
    """
    logits = as_float(logits, "logits")
    if logits.shape[-1] < 2:
        raise ValueError(f"focal: got logits {list(logits.shape)}; one logit an example is `binary_focal`'s")
    hits, valid = _hits("focal", logits, jnp.asarray(targets))
    weights = _class_weights(class_weight, logits)
    log_p = _pick(hits, jax.nn.log_softmax(logits))
    # Where p is exactly 1 (every other class at -inf) log(1 - p) is -inf, and where p is exactly 0 the loss is inf: the
    # factor (1 - p)^gamma changes neither loss, but would make their gradients inf * 0. So it is a constant 1 there.
    inner = jnp.any(~hits & (logits > -jnp.inf), axis=-1) & (log_p > -jnp.inf)
    others = jnp.where(inner[..., None], jnp.where(hits, -jnp.inf, logits), 0)
    log_rest = jnp.where(inner, jax.nn.logsumexp(others, axis=-1) - jax.nn.logsumexp(logits, axis=-1), 0)
    loss = -jnp.exp(gamma * log_rest) * log_p
    if weights is not None:
        loss = loss * _pick(hits, weights)
    return jnp.where(valid, loss, jnp.nan)


def multiclass_hinge(
    scores: Float[ArrayLike, "... c"],
    targets: ArrayLike,
    *,
    margin: Scalar = 1.0,
    variant: Literal["sum", "crammer_singer"] = "sum",
) -> Float[Array, "..."]:
    r"""The loss of the multiclass support vector machine, in its two forms.

    .. math:: \ell_\text{sum} = \sum_{j \ne y} \max(0,\, s_j - s_y + m), \qquad
       \ell_\text{crammer\_singer} = \max(0,\, \max_{j \ne y} s_j - s_y + m)

    >>> scores = jnp.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    >>> [round(float(loss), 4) for loss in multiclass_hinge(scores, jnp.array([0, 1, 2]))]
    [2.9, 0.0, 12.9]

    Args:
      scores: `[..., C]`.
      targets: integers `[...]` in [0, C); another one gives NaN.
      margin: m.
      variant: "sum" (Weston-Watkins) or "crammer_singer".

    Returns: `[...]`.

    Raises:
      ValueError: an unknown variant, or the shapes do not fit.
      TypeError: labels are not integers.

    torch `MultiMarginLoss` is "sum" divided by C; optax `multiclass_hinge_loss` is "crammer_singer" with margin 1;
    Keras `CategoricalHinge` is "crammer_singer" with the best wrong score taken as at least 0.

    References: Weston and Watkins, Support Vector Machines for Multi-Class Pattern Recognition, 1999; Crammer and
    Singer, On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines, 2001.
    """
    if variant not in ("sum", "crammer_singer"):
        raise ValueError(f'multiclass_hinge: got variant {variant!r}, expected "sum" or "crammer_singer"')
    scores = as_float(scores, "scores")
    hits, valid = _hits("multiclass_hinge", scores, jnp.asarray(targets))
    violation = jnp.where(hits, 0, jnp.maximum(scores - _pick(hits, scores)[..., None] + margin, 0))
    loss = jnp.sum(violation, axis=-1) if variant == "sum" else jnp.max(violation, axis=-1)
    return jnp.where(valid, loss, jnp.nan)


def kl_divergence(
    log_q: Float[ArrayLike, "... c"], p: Float[ArrayLike, "... c"], *, log_targets: bool = False
) -> Float[Array, "..."]:
    r"""Kullback-Leibler divergence of the predicted distribution q from the target p.

    .. math:: \mathrm{KL}(p \,\|\, q) = \sum_c p_c (\log p_c - \log q_c)

    The first argument is what the model says and holds **log-probabilities** (`jax.nn.log_softmax` of the logits), the
    second is the target and holds **probabilities**, or their logs with `log_targets=True`.

    >>> round(float(kl_divergence(jnp.log(jnp.array([0.5, 0.5])), jnp.array([1.0, 0.0]))), 4)  # log 2
    0.6931

    Args:
      log_q: `[..., C]`, logs, normalized over the last axis.
      p: `[..., C]`; where it is 0 the term is 0.
      log_targets: `p` holds logs (finite or -inf).

    Returns: `[...]`, the sum over the last axis.

    Raises:
      ValueError: the shapes differ.

    torch `kl_div(input, target, reduction="none")` has the same order and the same logs but does not sum; its default
    `"mean"` divides by C too (`"batchmean"` does not). optax `kl_divergence` is the same. Keras `KLDivergence(y_true,
    y_pred)` takes probabilities on both sides, target first, clipped at 1e-7.

    Reference: Kullback and Leibler, On Information and Sufficiency, 1951.
    """
    log_q, p = matched("kl_divergence", log_q, p)
    if log_targets:
        log_p, p = p, jnp.exp(p)
        impossible = log_p == -jnp.inf
    else:
        impossible = p == 0
        log_p = jnp.log(jnp.where(impossible, 1, p))
    return jnp.sum(p * jnp.where(impossible, 0, log_p - log_q), axis=-1)
