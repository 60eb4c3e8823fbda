"""Closed forms, extreme inputs, dtypes, shapes and messages."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dlkit import losses

RNG = np.random.default_rng(1)
X = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
Y = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
LABELS = jnp.array([0, 2, 1, 2])
SIGNS = jnp.asarray(np.sign(RNG.normal(size=(4, 3))), jnp.float32)
BITS = (SIGNS + 1) / 2
SOFT = jax.nn.softmax(Y)
PAIRS = jnp.array([1, 0, 0, 1])

# Every loss on [4, 3]; the second argument on is closed over.
LOSSES = {
    "cross_entropy": lambda x: losses.cross_entropy(x, LABELS, label_smoothing=0.1),
    "cross_entropy_soft": lambda x: losses.cross_entropy(x, SOFT, class_weight=jnp.array([1.0, 2.0, 3.0])),
    "focal": lambda x: losses.focal(x, LABELS, class_weight=[1.0, 2.0, 3.0]),
    "multiclass_hinge": lambda x: losses.multiclass_hinge(x, LABELS),
    "crammer_singer": lambda x: losses.multiclass_hinge(x, LABELS, variant="crammer_singer"),
    "kl_divergence": lambda x: losses.kl_divergence(jax.nn.log_softmax(x.astype(jnp.float32)), SOFT),
    "binary_cross_entropy": lambda x: losses.binary_cross_entropy(x, BITS, pos_weight=2.0),
    "binary_focal": lambda x: losses.binary_focal(x, BITS, alpha=0.25),
    "logistic": lambda x: losses.logistic(x, SIGNS),
    "hinge": lambda x: losses.hinge(x, SIGNS),
    "squared_hinge": lambda x: losses.squared_hinge(x, SIGNS),
    "mse": lambda x: losses.mse(x, Y),
    "l2_loss": lambda x: losses.l2_loss(x, Y),
    "mae": lambda x: losses.mae(x, Y),
    "huber": lambda x: losses.huber(x, Y, delta=0.5),
    "smooth_l1": lambda x: losses.smooth_l1(x, Y, beta=0.5),
    "log_cosh": lambda x: losses.log_cosh(x, Y),
    "poisson_nll": lambda x: losses.poisson_nll(x, BITS, full=True),
    "gaussian_nll": lambda x: losses.gaussian_nll(x, Y, jnp.exp(Y)),
    "cosine_distance": lambda x: losses.cosine_distance(x, Y),
    "cosine_embedding": lambda x: losses.cosine_embedding(x, Y, 2 * PAIRS - 1),
    "contrastive": lambda x: losses.contrastive(x, Y, PAIRS),
    "triplet": lambda x: losses.triplet(x, Y, Y[::-1]),
    "gaussian_kl": lambda x: losses.gaussian_kl(x, Y),
    "negative_elbo": lambda x: losses.negative_elbo(SimpleNamespace(logits=x, mean=x, log_var=Y), BITS),
    "AuxLoss": lambda x: losses.AuxLoss()((x, 2 * x), LABELS),
    "ctc": lambda x: losses.ctc(jnp.stack([x, 2 * x, x], axis=1), jnp.array([[1, 2], [2, 1], [1, 1], [1, 2]])),
}


@pytest.mark.parametrize("name", LOSSES)
def test_jit_equals_eager_and_half_precision_is_computed_in_float32(name):
    loss = LOSSES[name]
    jitted = jax.jit(loss)
    value = jitted(X)
    assert value.shape == (4,)
    assert value.dtype == jnp.float32
    # The same operations, fused: a few units in the last place.
    np.testing.assert_allclose(value, loss(X), rtol=1e-6, atol=1e-6)
    half = X.astype(jnp.bfloat16)
    value, grad = jax.jit(jax.value_and_grad(lambda x: jnp.sum(loss(x))))(half)
    assert value.dtype == jnp.float32
    assert grad.dtype == jnp.bfloat16
    assert np.isfinite(value)
    assert np.isfinite(grad.astype(np.float32)).all()
    np.testing.assert_allclose(value, np.sum(jitted(half.astype(jnp.float32))), rtol=1e-6)


def test_all_losses_are_in_the_table_above():
    functions = set(losses.__all__) - {"WEIGHTS", "Penalty", "elastic_net", "l1", "l2", "weighted_mean"}
    functions -= {"masked_cross_entropy", "simple_diffusion"}  # of what models put out: their tests hold them
    assert functions <= set(LOSSES)


def test_multiclass_hinge_on_three_by_four_by_hand():
    scores = jnp.array([[3.0, 1.0, 2.5, 5.0], [0.0, 4.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    labels = jnp.array([0, 1, 3])
    # Row 0: max(0, 1-3+1) + max(0, 2.5-3+1) + max(0, 5-3+1); row 1: every margin is met; row 2: three violations of 1.
    np.testing.assert_array_equal(losses.multiclass_hinge(scores, labels), [0.5 + 3.0, 0.0, 3.0])
    crammer_singer = losses.multiclass_hinge(scores, labels, variant="crammer_singer")
    np.testing.assert_array_equal(crammer_singer, [3.0, 0.0, 1.0])


def test_large_logits_give_exact_losses_and_finite_gradients():
    np.testing.assert_array_equal(losses.logistic(jnp.array([1e3, -1e3]), jnp.array([1, 1])), [0, 1e3])
    size = 1e4
    logits = jnp.array([[size, -size, 0.0], [-size, size, 0.0]])
    labels = jnp.array([0, 0])
    np.testing.assert_array_equal(losses.cross_entropy(logits, labels), [0, 2 * size])
    np.testing.assert_array_equal(losses.cross_entropy(logits, jax.nn.one_hot(labels, 3)), [0, 2 * size])
    scores = jnp.array([size, -size])
    np.testing.assert_array_equal(losses.logistic(scores, jnp.array([1, 1])), [0, size])
    np.testing.assert_array_equal(losses.binary_cross_entropy(scores, jnp.array([0, 0])), [size, 0])
    np.testing.assert_allclose(losses.binary_focal(scores, jnp.array([0, 0])), [size, 0])
    np.testing.assert_allclose(losses.focal(logits, labels), [0, 2 * size])
    cases = [
        (lambda x: losses.cross_entropy(x, labels, label_smoothing=0.1), logits),
        (lambda x: losses.focal(x, labels, gamma=0.5), logits),
        (lambda x: losses.logistic(x, jnp.array([1, 1])), scores),
        (lambda x: losses.binary_focal(x, jnp.array([0, 0]), gamma=0.5), scores),
        (lambda x: losses.log_cosh(x, jnp.zeros(2)), scores),
    ]
    for loss, x in cases:
        grad = jax.jit(jax.grad(lambda x, loss=loss: jnp.sum(loss(x))))(x)
        assert np.isfinite(grad).all()
    grad = jax.grad(lambda x: losses.logistic(x, jnp.array([1, 1])).sum())(scores)
    np.testing.assert_array_equal(grad, [0, -1])


def test_cross_entropy_keeps_its_digits_far_from_zero():
    # log(1 + e^-1) with 1e4 added to both logits: logsumexp - logit would keep three digits.
    loss = losses.cross_entropy(jnp.array([[1e4, 1e4 - 1]]), jnp.array([0]))
    np.testing.assert_allclose(loss, [np.log1p(np.exp(-1))], rtol=1e-6)


def test_impossible_classes_may_have_logit_minus_infinity():
    logits = jnp.array([[1.0, 2.0, -jnp.inf]])
    for labels in (jnp.array([1]), jnp.array([[0.0, 1.0, 0.0]])):
        loss = jax.jit(jax.value_and_grad(lambda x, y=labels: losses.cross_entropy(x, y)[0]))
        value, grad = loss(logits)
        np.testing.assert_allclose(value, np.log1p(np.exp(-1)), rtol=1e-6)
        np.testing.assert_allclose(grad, [[1 / (1 + np.e), -1 / (1 + np.e), 0]], rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_of_impossible_classes(gamma):
    # Rows: all else impossible (p = 1), one of three impossible, the target impossible (p = 0).
    logits = jnp.array([[1.0, -jnp.inf, -jnp.inf], [1.0, 2.0, -jnp.inf], [1.0, 1.0, -jnp.inf]])
    labels = jnp.array([0, 1, 2])
    value, grad = jax.jit(jax.vmap(jax.value_and_grad(lambda x, y: losses.focal(x, y, gamma=gamma))))(logits, labels)
    p = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(value, [0, -((1 - p) ** gamma) * np.log(p), np.inf], rtol=1e-6)
    # d/ds_y of -(1 - p)^g log p is g p (1 - p)^g log p - (1 - p)^(g + 1); in the last row it tends to cross-entropy's.
    slope = gamma * p * (1 - p) ** gamma * np.log(p) - (1 - p) ** (gamma + 1)
    np.testing.assert_allclose(grad, [[0, 0, 0], [-slope, slope, 0], [0.5, 0.5, -1]], rtol=1e-5, atol=1e-7)


def test_labels_out_of_range_show_and_cost_no_gradient_with_weight_0():
    logits, labels = X, jnp.array([0, -1, 3, -100])
    assert np.isnan(losses.cross_entropy(logits, labels)).tolist() == [False, True, True, True]
    weight = jnp.array([1.0, 0.0, 0.0, 0.0])

    def mean(x):
        return losses.weighted_mean(losses.cross_entropy(x, labels, label_smoothing=0.1), weight)

    value, grad = jax.jit(jax.value_and_grad(mean))(logits)
    expected = losses.cross_entropy(logits[:1], labels[:1], label_smoothing=0.1)[0]
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert jnp.isfinite(grad).all()
    assert not grad[1:].any()


def test_smoothing_changes_without_a_new_trace():
    traces = []

    @jax.jit
    def loss(x, smoothing):
        traces.append(1)
        return losses.cross_entropy(x, LABELS, label_smoothing=smoothing)

    for smoothing in (0.0, 0.3):
        expected = losses.cross_entropy(X, LABELS, label_smoothing=smoothing)
        np.testing.assert_allclose(loss(X, jnp.float32(smoothing)), expected, rtol=1e-6)
    assert len(traces) == 1


def test_gradients_of_the_squares():
    grad = jax.grad(lambda x: losses.l2_loss(x, Y).sum())(X)
    np.testing.assert_allclose(grad, X - Y, rtol=1e-6)  # the residual itself
    grad = jax.grad(lambda x: losses.mse(x, Y).sum())(X)
    np.testing.assert_allclose(grad, 2 * (X - Y) / 3, rtol=1e-6)


def test_log_cosh_near_zero(x64):
    residual = np.array([1e-6, 1e-3, 0.5, 0.999, 1.001, 30.0])
    # The series r^2/2 - r^4/12 is exact to 1e-16 for the first two; numpy's log(cosh) is good from there on.
    expected = np.where(residual < 0.01, residual**2 / 2 - residual**4 / 12, np.log(np.cosh(residual)))
    ours = losses.log_cosh(jnp.asarray(residual), jnp.zeros(6))
    np.testing.assert_allclose(ours, expected, rtol=1e-11)
    grad = jax.jit(jax.grad(lambda r: losses.log_cosh(r, jnp.zeros(6)).sum()))(jnp.asarray(residual))
    np.testing.assert_allclose(grad, np.tanh(residual), rtol=1e-12)


def test_likelihoods_equal_scipys(x64):
    rng = np.random.default_rng(2)
    rate, counts = rng.uniform(0.1, 8, 20), rng.integers(0, 9, 20)
    ours = losses.poisson_nll(jnp.log(rate), jnp.asarray(counts), full=True)
    np.testing.assert_allclose(ours, -scipy.stats.poisson.logpmf(counts, rate), rtol=1e-12)
    mean, y, std = rng.normal(size=20), rng.normal(size=20), rng.uniform(0.1, 2, 20)
    ours = losses.gaussian_nll(jnp.asarray(mean), jnp.asarray(y), jnp.asarray(std**2), full=True)
    np.testing.assert_allclose(ours, -scipy.stats.norm.logpdf(y, mean, std), rtol=1e-12)
    p, q = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5))
    ours = losses.kl_divergence(jnp.log(q), jnp.asarray(p))
    np.testing.assert_allclose(ours, scipy.stats.entropy(p, q), rtol=1e-12)


def test_gaussian_variance_has_a_floor():
    loss = losses.gaussian_nll(jnp.zeros(2), jnp.zeros(2), jnp.array([0.0, -1.0]), eps=1e-2)
    np.testing.assert_allclose(loss, 0.5 * np.log([1e-2, 1e-2]), rtol=1e-6)


def test_kl_of_zero_probabilities():
    q = jnp.log(jnp.array([0.5, 0.5]))
    for p, logs in ((jnp.array([1.0, 0.0]), False), (jnp.array([0.0, -jnp.inf]), True)):
        value, grad = jax.value_and_grad(partial(losses.kl_divergence, log_targets=logs))(q, p)
        np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
        np.testing.assert_allclose(grad, [-1, 0], atol=1e-7)


def test_focal_reduces_to_cross_entropy_and_to_its_binary_form():
    np.testing.assert_allclose(losses.focal(X, LABELS, gamma=0.0), losses.cross_entropy(X, LABELS), rtol=1e-5)
    two = jnp.stack([jnp.zeros(4), X[:, 0]], axis=-1)
    bits = jnp.array([0, 1, 1, 0])
    np.testing.assert_allclose(losses.focal(two, bits), losses.binary_focal(X[:, 0], bits), rtol=1e-5)
    p = np.take_along_axis(np.asarray(jax.nn.softmax(X)), np.asarray(LABELS)[:, None], 1)[:, 0]
    np.testing.assert_allclose(losses.focal(X, LABELS, gamma=3.0), -((1 - p) ** 3) * np.log(p), rtol=1e-5)


def test_squared_hinge_is_the_square_of_hinge():
    hinge = losses.hinge(X, SIGNS, batch_axes=2)
    np.testing.assert_allclose(losses.squared_hinge(X, SIGNS, batch_axes=2), np.square(hinge), rtol=1e-6)
    np.testing.assert_allclose(hinge, np.maximum(0, 1 - np.asarray(SIGNS * X)), rtol=1e-6)
    assert float(losses.hinge(jnp.array([1.5]), jnp.array([1]), margin=2)[0]) == 0.5


def test_contrastive_by_hand_and_at_zero_distance():
    distance = np.linalg.norm(np.asarray(X - Y), axis=-1)
    expected = np.where(PAIRS == 1, distance**2 / 2, np.maximum(0, 2.5 - distance) ** 2 / 2)
    np.testing.assert_allclose(losses.contrastive(X, Y, PAIRS, margin=2.5), expected, rtol=1e-5)
    for loss in (
        lambda x: losses.contrastive(x, X, PAIRS),
        lambda x: losses.triplet(x, X, X),
        lambda x: losses.cosine_distance(0 * x, X),
    ):
        assert np.isfinite(jax.jit(jax.grad(lambda x, loss=loss: loss(x).sum()))(X)).all()


def test_triplet_squared():
    square = np.square(np.asarray(X - Y)).sum(1) - np.square(np.asarray(X - Y[::-1])).sum(1)
    ours = losses.triplet(X, Y, Y[::-1], margin=0.5, squared=True)
    np.testing.assert_allclose(ours, np.maximum(0, square + 0.5), rtol=1e-5)


def test_batch_axes():
    x, y = jnp.arange(24.0).reshape(2, 3, 4), jnp.zeros((2, 3, 4))
    square = np.square(np.asarray(x))
    np.testing.assert_allclose(losses.mse(x, y), square.mean((1, 2)))
    np.testing.assert_allclose(losses.mse(x, y, batch_axes=2), square.mean(2))
    np.testing.assert_allclose(losses.mse(x, y, batch_axes=3), square)
    np.testing.assert_allclose(jax.vmap(partial(losses.mse, batch_axes=0))(x, y), square.mean((1, 2)))
    np.testing.assert_allclose(losses.l2_loss(x, y, batch_axes=2), square.sum(2) / 2)
    tokens = losses.cross_entropy(x, jnp.zeros((2, 3), jnp.int32))
    assert tokens.shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: losses.mse(jnp.ones((4, 1)), jnp.ones(4)), ValueError, r"mse.*\[4, 1\].*\[4\].*outputs\[\.\.\., 0\]"),
        (lambda: losses.mse(jnp.ones(4), jnp.ones(4), batch_axes=-1), ValueError, "batch_axes: got -1"),
        (lambda: losses.l2_loss(jnp.ones(4), jnp.ones(4), batch_axes=-1), ValueError, "batch_axes: got -1"),
        (lambda: losses.cross_entropy(X, LABELS, label_smoothing=np.float32(1.5)), ValueError, "got 1.5, expected"),
        (lambda: losses.ctc(jnp.ones((1, 2, 3)), np.ones((1, 2))), TypeError, "ctc: labels must be integers"),
        (lambda: losses.ctc(jnp.ones((1, 2, 3)), jnp.array([1])), ValueError, r"labels \[1\], expected \[B, T, C\]"),
        (lambda: losses.cross_entropy(X, jnp.ones(4)), TypeError, "must be integers, got float32"),
        (lambda: losses.cross_entropy(X, jnp.zeros(3, int)), ValueError, r"\[4, 3\] need integer targets \[4\]"),
        (lambda: losses.cross_entropy(X, LABELS, label_smoothing=1.5), ValueError, "label_smoothing: got 1.5"),
        (lambda: losses.cross_entropy(X, LABELS, class_weight=[1.0]), ValueError, r"class_weight: got shape \[1\]"),
        (lambda: losses.focal(X[:, :1], LABELS), ValueError, "binary_focal"),
        (lambda: losses.multiclass_hinge(X, LABELS, margin=1.0, variant="max"), Exception, "crammer_singer"),
        (lambda: losses.contrastive(X, Y, SIGNS), ValueError, r"one label a pair, \[4\]"),
        (lambda: losses.gaussian_nll(X, Y, jnp.ones(4)), ValueError, "variance"),
        (lambda: losses.weighted_mean(jnp.ones((4, 2)), jnp.ones(2)), ValueError, r"weight \[2\].*losses \[4, 2\]"),
    ],
)
def test_errors_name_the_thing(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_weighted_mean():
    values, weight = jnp.array([1.0, 2.0, jnp.nan]), jnp.array([3.0, 1.0, 0.0])
    value, grad = jax.value_and_grad(losses.weighted_mean)(values, weight)
    assert float(value) == 1.25
    np.testing.assert_array_equal(grad, [0.75, 0.25, 0])
    value, grad = jax.value_and_grad(losses.weighted_mean)(values, jnp.zeros(3))
    assert float(value) == 0
    np.testing.assert_array_equal(grad, [0, 0, 0])
    tokens = jnp.array([[1.0, 3.0], [jnp.inf, jnp.nan]])
    assert float(losses.weighted_mean(tokens, jnp.array([1.0, 0.0]))) == 2
    assert float(losses.weighted_mean(tokens, jnp.array([[1.0, 0.0], [0.0, 0.0]]))) == 1
    assert float(losses.weighted_mean(jnp.array([1.0, 2.0]))) == 1.5
    assert losses.weighted_mean(jnp.ones(4, jnp.bfloat16), jnp.ones(4)).dtype == jnp.float32


AS_LISTS = {
    "cross_entropy": (([[1.0, 2.0]], [1]), {}),
    "focal": (([[1.0, 2.0]], [1]), {}),
    "multiclass_hinge": (([[1.0, 2.0]], [1]), {}),
    "kl_divergence": (([[-1.0, -2.0]], [[0.5, 0.5]]), {}),
    "binary_cross_entropy": (([1.0, 2.0], [1, 0]), {"pos_weight": [2.0, 1.0]}),
    "binary_focal": (([1.0, 2.0], [1, 0]), {}),
    "logistic": (([1.0, 2.0], [1, -1]), {}),
    "hinge": (([1.0, 2.0], [1, -1]), {}),
    "squared_hinge": (([1.0, 2.0], [1, -1]), {}),
    "mse": (([1.0, 2.0], [0.0, 1.0]), {}),
    "l2_loss": (([1.0, 2.0], [0.0, 1.0]), {}),
    "mae": (([1.0, 2.0], [0.0, 1.0]), {}),
    "huber": (([1.0, 2.0], [0.0, 1.0]), {}),
    "smooth_l1": (([1.0, 2.0], [0.0, 1.0]), {"beta": np.float32(0)}),
    "log_cosh": (([1.0, 2.0], [0.0, 1.0]), {}),
    "poisson_nll": (([1.0, 2.0], [1, 0]), {}),
    "gaussian_nll": (([1.0, 2.0], [0.0, 1.0], [0.5, 0.5]), {}),
    "cosine_distance": (([[1.0, 2.0]], [[2.0, 1.0]]), {}),
    "cosine_embedding": (([[1.0, 2.0]], [[2.0, 1.0]], [1]), {}),
    "contrastive": (([[1.0, 2.0]], [[2.0, 1.0]], [1]), {}),
    "triplet": (([[1.0, 2.0]], [[2.0, 1.0]], [[0.0, 1.0]]), {}),
    "ctc": (([[[1.0, 2.0], [0.0, 1.0]]], [[1]], [2], [1]), {}),
    "gaussian_kl": (([[1.0, 2.0]], [[0.0, 1.0]]), {}),
    "weighted_mean": (([1.0, 2.0], [1.0, 3.0]), {}),
}
OF_OUTPUTS = {"negative_elbo", "AuxLoss"}  # these take what a model gives


@pytest.mark.parametrize("name", AS_LISTS)
def test_lists_and_numpy_arrays_in_float64_are_taken_quietly(name, unchecked):
    assert set(AS_LISTS) == {*LOSSES, "weighted_mean"} - {"cross_entropy_soft", "crammer_singer"} - OF_OUTPUTS
    loss, (lists, options) = getattr(losses, name), AS_LISTS[name]
    expected = loss(*(jnp.asarray(a) for a in lists), **options)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(loss(*lists, **options), expected)
    np.testing.assert_array_equal(loss(*(np.asarray(a) for a in lists), **options), expected)  # float64 and int64
