"""CTC beside torch, optax and the sum over every alignment."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.reference import reference

from dlkit import losses

ctc = jax.jit(losses.ctc, static_argnames="blank")

RNG = np.random.default_rng(3)
B, T, C, N = 4, 7, 4, 3
LOGITS = RNG.normal(size=(B, T, C))
# Adjacent repeats, an empty sequence, and what lies beyond a length is nonsense.
LABELS = np.array([[1, 1, 2], [3, 2, -5], [-1, 99, 0], [2, 3, 3]])
LABEL_LENGTHS = np.array([3, 2, 0, 3])
LOGIT_LENGTHS = np.array([7, 5, 3, 6])


def torch_ctc() -> dict[str, np.ndarray]:
    import torch

    x = torch.tensor(LOGITS, requires_grad=True)
    value = torch.nn.functional.ctc_loss(
        x.log_softmax(-1).transpose(0, 1),
        torch.tensor(np.clip(LABELS, 1, C - 1)),
        torch.tensor(LOGIT_LENGTHS),
        torch.tensor(LABEL_LENGTHS),
        reduction="none",
    )
    (value * torch.arange(1, 1 + B)).sum().backward()
    return {"value": value.detach().numpy(), "grad": x.grad.numpy()}


def ours(logits):
    return ctc(logits, jnp.asarray(LABELS, jnp.int32), jnp.asarray(LOGIT_LENGTHS), jnp.asarray(LABEL_LENGTHS))


def weighted(logits):
    value, pull = jax.vjp(ours, logits)
    return value, pull(jnp.arange(1, 1 + B, dtype=value.dtype))[0]


def test_torch_float64(x64):
    expected = reference("losses/ctc", torch_ctc)
    value, grad = jax.jit(weighted)(jnp.asarray(LOGITS))
    np.testing.assert_allclose(value, expected["value"], rtol=1e-12)
    np.testing.assert_allclose(grad, expected["grad"], rtol=1e-12, atol=1e-12)


def test_torch_float32():
    expected = reference("losses/ctc", torch_ctc)
    value, grad = jax.jit(weighted)(jnp.asarray(LOGITS, jnp.float32))
    np.testing.assert_allclose(value, expected["value"], rtol=1e-5)
    np.testing.assert_allclose(grad, expected["grad"], rtol=1e-5, atol=1e-5)


def test_optax_with_the_last_class_as_blank(x64):
    labels = np.where(LABELS == 3, 0, np.clip(LABELS, 0, 2))
    logit_paddings = (np.arange(T) >= LOGIT_LENGTHS[:, None]).astype(float)
    label_paddings = (np.arange(N) >= LABEL_LENGTHS[:, None]).astype(float)
    with jax.numpy_dtype_promotion("standard"):
        theirs = optax.ctc_loss(
            jnp.asarray(LOGITS),
            jnp.asarray(logit_paddings),
            jnp.asarray(labels, jnp.int32),
            jnp.asarray(label_paddings),
            blank_id=C - 1,
        )
    args = (jnp.asarray(labels, jnp.int32), jnp.asarray(LOGIT_LENGTHS), jnp.asarray(LABEL_LENGTHS))
    # optax writes an impossible score as -1e5, whose rounding error leaves about 1e-12 in its sums.
    np.testing.assert_allclose(ctc(jnp.asarray(LOGITS), *args, blank=C - 1), theirs, rtol=1e-10)


@pytest.mark.parametrize("labels", [(), (1,), (1, 1), (2, 1)])
def test_sum_over_all_alignments(labels, x64):
    frames, classes = 4, 3
    log_p = np.asarray(jax.nn.log_softmax(jnp.asarray(LOGITS[0, :frames, :classes])))
    probability = 0.0
    for path in itertools.product(range(classes), repeat=frames):
        merged = [c for c, _ in itertools.groupby(path)]
        if tuple(c for c in merged if c != 0) == labels:
            probability += np.exp(sum(log_p[t, c] for t, c in enumerate(path)))
    padded = jnp.asarray([(*labels, 0, 0)[:2]], jnp.int32)
    logits = jnp.asarray(LOGITS[:1, :frames, :classes])
    loss = ctc(logits, padded, label_lengths=jnp.asarray([len(labels)], jnp.int32))
    np.testing.assert_allclose(loss, [-np.log(probability)], rtol=1e-12)


def test_what_does_not_fit_is_infinite_with_gradient_0():
    labels = jnp.array([[1, 1], [1, 2]])  # "1 1" needs three frames, "1 2" two
    logits = jnp.asarray(LOGITS[:2, :2], jnp.float32)

    @jax.jit
    def both(x):
        value, pull = jax.vjp(lambda x: losses.ctc(x, labels), x)
        mean = losses.weighted_mean(value, jnp.array([0.0, 1.0]))
        return value, pull(jnp.ones(2))[0], mean

    value, grad, mean = both(logits)
    assert np.isinf(value).tolist() == [True, False]
    assert mean == value[1]
    np.testing.assert_array_equal(grad[0], np.zeros((2, C)))
    assert np.isfinite(grad[1]).all()
    assert grad[1].any()


def test_no_labels_at_all(x64):
    loss = ctc(jnp.asarray(LOGITS[:1]), jnp.zeros((1, 0), jnp.int32))
    np.testing.assert_allclose(loss, [-jax.nn.log_softmax(jnp.asarray(LOGITS[0]))[:, 0].sum()], rtol=1e-12)


def test_frames_beyond_the_length_are_not_read():
    logits = jnp.asarray(LOGITS, jnp.float32)
    beyond = (np.arange(T) >= LOGIT_LENGTHS[:, None])[:, :, None]
    other = jnp.where(beyond, 50.0, logits)
    both = jax.jit(ours)
    np.testing.assert_array_equal(both(logits), both(other))


def test_errors_name_the_thing():
    logits = jnp.zeros((2, 3, 4))
    with pytest.raises(ValueError, match="blank is 4, expected a class in"):
        ctc(logits, jnp.ones((2, 1), int), blank=4)
    with pytest.raises(ValueError, match=r"label_lengths has shape \[3\], expected \[2\]"):
        ctc(logits, jnp.ones((2, 1), int), label_lengths=jnp.ones(3, int))
