"""Connectionist temporal classification: labels without an alignment."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from dlkit.batches import as_float

__all__ = ["ctc"]

# Finite, so that differences of two impossible scores are 0 and not NaN; far below any real sum of log-probabilities.
_IMPOSSIBLE = -1e30


def _lengths(name: str, lengths: ArrayLike | None, batch: int, full: int) -> Array:
    if lengths is None:
        return jnp.full(batch, full, jnp.int32)
    lengths = jnp.asarray(lengths)
    if lengths.shape != (batch,):
        raise ValueError(f"ctc: {name} has shape {list(lengths.shape)}, expected [{batch}]")
    return lengths.astype(jnp.int32)


def _delayed(scores: Array, by: int) -> Array:
    """`scores[:, s - by]`, impossible where there is none."""
    size = scores.shape[1]
    return jnp.pad(scores, ((0, 0), (by, 0)), constant_values=_IMPOSSIBLE)[:, :size]


def ctc(
    logits: Float[ArrayLike, "b t c"],
    labels: ArrayLike,
    logit_lengths: ArrayLike | None = None,
    label_lengths: ArrayLike | None = None,
    *,
    blank: int = 0,
) -> Float[Array, "b"]:
    r"""Connectionist temporal classification: minus the log-probability of a label sequence, over all its alignments.

    .. math:: \ell = -\log \sum_{\pi \in \mathcal B^{-1}(y)} \prod_{t=1}^{T} p_t(\pi_t)

    where :math:`\mathcal B` merges repeats and then drops blanks, and :math:`p_t` is the softmax of the logits. It is
    computed by the forward recursion over the 2N + 1 states "blank, label 1, blank, ..., label N, blank", in logs.

    >>> two_frames = jnp.zeros((1, 2, 2))  # blank or label 1, each 1/2: "1 1", "1 -" and "- 1" spell 1
    >>> round(float(ctc(two_frames, jnp.array([[1]]))[0]), 4)  # -log(3/4)
    0.2877

    Args:
      logits: `[B, T, C]`, not normalized.
      labels: `[B, N]`, in [0, C) without `blank`; what lies beyond a label length is not read.
      logit_lengths: `[B]`, the frames of each example, at least 1 (default: all T).
      label_lengths: `[B]`, the labels of each example (default: all N).
      blank: the class that stands for no label.

    Returns: `[B]`. A label sequence that does not fit into its frames (each repeat needs a blank between) gives inf,
      with gradient 0.

    Raises:
      ValueError: the shapes do not fit, or `blank` is outside [0, C).
      TypeError: the labels are not integers.

    torch `CTCLoss` takes log-probabilities `[T, B, C]`, has NaN gradients for what does not fit unless
    `zero_infinity=True`, and by default divides each loss by its label length before the mean. optax `ctc_loss` takes
    paddings (1 = padded) instead of lengths and gives about 1e5 for what does not fit.

    Reference: Graves et al., Connectionist Temporal Classification, 2006.
    """
    logits, labels = as_float(logits, "logits"), jnp.asarray(labels)
    if logits.ndim != 3 or labels.ndim != 2:
        raise ValueError(
            f"ctc: got logits {list(logits.shape)} and labels {list(labels.shape)}, expected [B, T, C] and [B, N]"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"ctc: labels must be integers, got {labels.dtype}; convert with .astype(jnp.int32)")
    batch, frames, classes = logits.shape
    if labels.shape[0] != batch:
        raise ValueError(f"ctc: logits {list(logits.shape)} and labels {list(labels.shape)} differ in the batch axis")
    if not 0 <= blank < classes:
        raise ValueError(f"ctc: blank is {blank}, expected a class in [0, {classes})")
    count = labels.shape[1]
    frame_count = _lengths("logit_lengths", logit_lengths, batch, frames)
    label_count = _lengths("label_lengths", label_lengths, batch, count)

    log_p = jax.nn.log_softmax(logits)
    real = jnp.arange(count, dtype=jnp.int32)[None, :] < label_count[:, None]
    labels = jnp.where(real, labels.astype(jnp.int32), blank)
    states = jnp.full((batch, 2 * count + 1), blank, jnp.int32).at[:, 1::2].set(labels)
    emissions = jnp.take_along_axis(log_p, jnp.broadcast_to(states[:, None], (batch, frames, states.shape[1])), axis=2)
    # From one label to the next without a blank between, unless they are the same label.
    skips = (states != blank) & (states != jnp.pad(states, ((0, 0), (2, 0)), constant_values=blank)[:, :-2])

    def step(alpha, frame):
        t, emission = frame
        skipped = jnp.where(skips, _delayed(alpha, 2), _IMPOSSIBLE)
        ways = jnp.stack([alpha, _delayed(alpha, 1), skipped])
        arrived = jax.nn.logsumexp(ways, axis=0) + emission
        return jnp.where((t < frame_count)[:, None], arrived, alpha), None

    first = jnp.arange(2 * count + 1)[None, :] < 2
    alpha = jnp.where(first, emissions[:, 0], _IMPOSSIBLE)
    alpha, _ = jax.lax.scan(step, alpha, (jnp.arange(1, frames, dtype=jnp.int32), jnp.moveaxis(emissions, 1, 0)[1:]))

    end = 2 * label_count[:, None]
    last_blank = jnp.take_along_axis(alpha, end, axis=1)[:, 0]
    last_label = jnp.take_along_axis(alpha, jnp.maximum(end - 1, 0), axis=1)[:, 0]
    last_label = jnp.where(label_count > 0, last_label, _IMPOSSIBLE)
    repeats = jnp.sum((labels[:, 1:] == labels[:, :-1]) & real[:, 1:], axis=1, dtype=jnp.int32)
    return jnp.where(frame_count >= label_count + repeats, -jnp.logaddexp(last_blank, last_label), jnp.inf)
