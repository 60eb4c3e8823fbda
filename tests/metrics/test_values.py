"""Each metric beside scikit-learn or a closed form; weights, shapes, messages; metrics are values."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as sk

from dlkit import losses, metrics

N, C = 200, 4
RNG = np.random.default_rng(5)
LOGITS = (2 * RNG.normal(size=(N, C))).astype(np.float32)
LABELS = RNG.integers(0, C, N)
WEIGHT = RNG.uniform(0, 2, N).astype(np.float32) * (RNG.uniform(size=N) > 0.2)
BITS = RNG.integers(0, 2, N)
SCORES = (BITS + RNG.normal(size=N)).round(1).astype(np.float32)
PREDICTED = LOGITS.argmax(1)


def value(metric, outputs, targets, weight=WEIGHT):
    targets = np.asarray(targets)
    targets = jnp.asarray(targets, jnp.float32 if targets.dtype.kind == "f" else jnp.int32)
    weight = None if weight is None else jnp.asarray(weight, jnp.float32)
    return metric.result(metric.measure(jnp.asarray(outputs), targets, weight))


def close(got, expected, tolerance=1e-6):
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_accuracy_and_top_k(weight):
    close(value(metrics.Accuracy(), LOGITS, LABELS, weight), sk.accuracy_score(LABELS, PREDICTED, sample_weight=weight))
    for k in (1, 2, 3):
        expected = sk.top_k_accuracy_score(LABELS, LOGITS, k=k, sample_weight=weight)
        close(value(metrics.TopKAccuracy(k), LOGITS, LABELS, weight), expected)
    assert value(metrics.TopKAccuracy(C), LOGITS, LABELS, weight) == 1


def test_accuracy_of_ties_nan_soft_labels_and_labels_out_of_range():
    tied = jnp.zeros((3, 4))
    sums = metrics.Accuracy().measure(tied, jnp.array([0, 1, 3]))
    assert metrics.Accuracy().result(sums) == pytest.approx(1 / 3)  # the first of equal scores, as argmax
    assert value(metrics.TopKAccuracy(2), tied, np.array([0, 1, 3]), None) == pytest.approx(2 / 3)
    broken = jnp.full((2, 4), jnp.nan)
    assert value(metrics.Accuracy(), broken, np.array([0, 1]), None) == 0  # a diverged model is not right by chance
    assert value(metrics.Accuracy(), LOGITS[:2], np.array([-1, 4]), None) == 0
    one_hot = np.eye(C, dtype=np.float32)[LABELS]
    assert value(metrics.Accuracy(), LOGITS, one_hot) == value(metrics.Accuracy(), LOGITS, LABELS)


def test_binary_accuracy_takes_both_label_conventions():
    expected = sk.accuracy_score(BITS, SCORES > 0, sample_weight=WEIGHT)
    close(value(metrics.BinaryAccuracy(), SCORES, BITS), expected)
    close(value(metrics.BinaryAccuracy(), SCORES, 2 * BITS - 1), expected)
    probabilities = np.asarray(jax.nn.sigmoid(SCORES)) + 1e-6 * np.sign(SCORES)
    close(value(metrics.BinaryAccuracy(threshold=0.5), probabilities.astype(np.float32), BITS), expected)


def test_perplexity_and_mean_loss():
    log_p = LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum(1, keepdims=True))
    nll = -np.average(log_p[np.arange(N), LABELS], weights=WEIGHT)
    close(value(metrics.Mean(losses.cross_entropy), LOGITS, LABELS), nll)
    close(value(metrics.Perplexity(), LOGITS, LABELS), np.exp(nll))
    assert value(metrics.Perplexity(), np.array([[2e3, 0.0]], np.float32), np.array([1]), None) == np.inf


def test_confusion_matrix():
    expected = sk.confusion_matrix(LABELS, PREDICTED, sample_weight=WEIGHT)
    close(value(metrics.ConfusionMatrix(C), LOGITS, LABELS), expected)
    got = value(metrics.ConfusionMatrix(C), LOGITS, LABELS, None)
    np.testing.assert_array_equal(got, sk.confusion_matrix(LABELS, PREDICTED))
    np.testing.assert_array_equal(
        value(metrics.ConfusionMatrix(2), SCORES, BITS, None), sk.confusion_matrix(BITS, SCORES > 0)
    )


@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "none"])
def test_precision_recall_f1(average):
    # A class that is never predicted and one that never occurs: the zero divisions.
    logits, labels = LOGITS.copy(), np.where(LABELS == 2, 1, LABELS)
    logits[:, 3] = -100
    got = value(metrics.PrecisionRecallF1(C, average=average), logits, labels)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels,
        logits.argmax(1),
        labels=range(C),
        average=None if average == "none" else average,
        sample_weight=WEIGHT,
        zero_division=0,
    )
    for name, expected in {"precision": precision, "recall": recall, "f1": f1}.items():
        close(got[name], expected)


def test_precision_recall_f1_binary():
    metric = metrics.PrecisionRecallF1(2, average="binary")
    expected = sk.precision_recall_fscore_support(BITS, SCORES > 0, average="binary", sample_weight=WEIGHT)
    got = value(metric, SCORES, BITS)
    close([got["precision"], got["recall"], got["f1"]], expected[:3])
    two = np.stack([np.zeros_like(SCORES), SCORES], 1)
    assert value(metric, two, BITS) == got


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_auc(weight):
    expected = sk.roc_auc_score(BITS, SCORES, sample_weight=weight)
    close(value(metrics.AUC(), SCORES, BITS, weight), expected)
    two = np.stack([-SCORES, SCORES], 1)
    close(value(metrics.AUC(), two, BITS, weight), expected)
    probabilities = np.asarray(jax.nn.softmax(LOGITS), np.float64)
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = sk.roc_auc_score(LABELS, probabilities, multi_class="ovr", average="macro", sample_weight=weight)
    close(value(metrics.AUC(C), LOGITS, LABELS, weight), expected)


def test_auc_of_extremes():
    bits = np.array([0, 0, 1, 1])
    assert value(metrics.AUC(), np.array([1.0, 2.0, 3.0, 4.0], np.float32), bits, None) == 1
    assert value(metrics.AUC(), np.array([3.0, 4.0, 1.0, 2.0], np.float32), bits, None) == 0
    assert value(metrics.AUC(), np.zeros(4, np.float32), bits, None) == 0.5
    assert np.isnan(value(metrics.AUC(), np.arange(4, dtype=np.float32), np.ones(4, int), None))
    assert np.isnan(value(metrics.AUC(), np.array([np.nan, 0, 1, 2], np.float32), bits, None))
    assert np.isnan(value(metrics.AUC(), np.arange(4, dtype=np.float32), bits, np.zeros(4)))


@pytest.mark.parametrize("norm", ["l1", "max"])
def test_calibration_error(norm):
    p = np.exp(LOGITS.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    confidence, correct, weight = p.max(1), p.argmax(1) == LABELS, WEIGHT.astype(np.float64)
    gaps, masses = [], []
    for m in range(10):
        held = (confidence > m / 10) & (confidence <= (m + 1) / 10) & (weight > 0)
        if held.any():
            mass = weight[held]
            gaps.append(abs(np.average(correct[held], weights=mass) - np.average(confidence[held], weights=mass)))
            masses.append(mass.sum())
    expected = max(gaps) if norm == "max" else np.average(gaps, weights=masses)
    close(value(metrics.CalibrationError(bins=10, norm=norm), LOGITS, LABELS), expected)


def test_calibration_of_one_logit_is_that_of_two():
    metric = metrics.CalibrationError()
    two = np.stack([np.zeros_like(SCORES), SCORES], 1)
    assert value(metric, SCORES, BITS) == value(metric, two, BITS)
    sure = np.full(4, 100.0, np.float32)
    close(value(metric, sure, np.array([1, 1, 1, 0]), None), 0.25)


def test_regression():
    y = RNG.normal(size=(N, 3)).astype(np.float32)
    guess = (y + RNG.normal(size=(N, 3)) * [0.1, 1, 3]).astype(np.float32)
    close(value(metrics.MSE(), guess, y), sk.mean_squared_error(y, guess, sample_weight=WEIGHT))
    close(value(metrics.MAE(), guess, y), sk.mean_absolute_error(y, guess, sample_weight=WEIGHT))
    close(value(metrics.R2(), guess, y), sk.r2_score(y, guess, sample_weight=WEIGHT))
    raw = sk.r2_score(y, guess, sample_weight=WEIGHT, multioutput="raw_values")
    close(value(metrics.R2("raw_values"), guess, y), raw)


@pytest.mark.parametrize("mean", [0.0, 1e4, 1e6])
def test_r2_far_from_zero(mean):
    y = (mean + RNG.normal(size=N)).astype(np.float32)
    guess = (y + 0.3 * RNG.normal(size=N)).astype(np.float32)
    expected = sk.r2_score(y.astype(np.float64), guess.astype(np.float64), sample_weight=WEIGHT)
    close(value(metrics.R2(), guess, y), expected)
    metric = metrics.R2()
    sums = None
    for i in range(0, N, 3):
        rows = slice(i, i + 3)
        new = metric.measure(jnp.asarray(guess[rows]), jnp.asarray(y[rows]), jnp.asarray(WEIGHT[rows], jnp.float32))
        sums = new if sums is None else metric.merge(sums, new)
    close(metric.result(sums), expected)


def test_r2_of_constant_targets_and_of_one_example():
    constant = np.full(5, 3.0, np.float32)
    assert value(metrics.R2(), constant, constant, None) == sk.r2_score(constant, constant) == 1
    assert value(metrics.R2(), constant + 1, constant, None) == sk.r2_score(constant, constant + 1) == 0
    assert np.isnan(value(metrics.R2(), constant, constant, np.eye(5)[0]))


TOKENS = {
    "accuracy": metrics.Accuracy(),
    "top2": metrics.TopKAccuracy(2),
    "loss": metrics.Mean(losses.cross_entropy),
    "perplexity": metrics.Perplexity(),
    "confusion": metrics.ConfusionMatrix(C),
    "f1": metrics.PrecisionRecallF1(C),
    "calibration": metrics.CalibrationError(),
    "auc": metrics.AUC(C),
}


@pytest.mark.parametrize("per_token", [False, True])
def test_sequences_equal_their_tokens_one_by_one(per_token):
    logits, labels = LOGITS.reshape(20, 10, C), LABELS.reshape(20, 10)
    weight = WEIGHT.reshape(20, 10)
    weight = weight if per_token else weight[:, 0]
    spread = np.broadcast_to(weight if per_token else weight[:, None], (20, 10)).ravel()
    for metric in TOKENS.values():
        got, expected = value(metric, logits, labels, weight), value(metric, LOGITS, LABELS, spread)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            close(a, b)
    y = RNG.normal(size=(20, 10)).astype(np.float32)
    guess = y + RNG.normal(size=(20, 10)).astype(np.float32)
    token_weight = WEIGHT.reshape(20, 10)
    close(
        value(metrics.R2(), guess, y, token_weight),
        sk.r2_score(y.ravel(), guess.ravel(), sample_weight=token_weight.ravel()),
    )


def test_nothing_counted_is_nan():
    for metric in (metrics.Accuracy(), metrics.Perplexity(), metrics.CalibrationError()):
        assert np.isnan(value(metric, LOGITS, LABELS, np.zeros(N)))


def test_bfloat16_outputs():
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    whole = np.asarray(half.astype(jnp.float32))
    for metric in TOKENS.values():
        got, expected = (value(metric, x, LABELS, None) for x in (half, whole))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            close(a, b)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: value(metrics.Accuracy(), LOGITS, LABELS[:3], None),
            ValueError,
            r"\[200, 4\] need integer targets \[200\] or soft",
        ),
        (
            lambda: value(metrics.Accuracy(), LOGITS, LABELS.astype(float)),
            TypeError,
            "integers, got float32.*binary form",
        ),
        (lambda: value(metrics.BinaryAccuracy(), SCORES[:, None], BITS), ValueError, r"outputs\[\.\.\., 0\]"),
        (lambda: value(metrics.Accuracy(), LOGITS, LABELS, WEIGHT[:3]), ValueError, r"weight \[3\].*\[200\]"),
        (lambda: metrics.TopKAccuracy(0), ValueError, "k=0"),
        (lambda: metrics.ConfusionMatrix(1), ValueError, "ConfusionMatrix: got classes=1"),
        (lambda: value(metrics.ConfusionMatrix(3), LOGITS, LABELS), ValueError, r"expected outputs \[\.\.\., 3\]"),
        (lambda: value(metrics.ConfusionMatrix(C), LOGITS, LABELS + 1, None), ValueError, r"lie outside \[0, 4\)"),
        (lambda: value(metrics.PrecisionRecallF1(C), LOGITS, LABELS - 1), ValueError, r"lie outside \[0, 4\)"),
        (lambda: metrics.PrecisionRecallF1(3, average="binary"), ValueError, "for 2 classes, got 3"),
        (lambda: value(metrics.AUC(), SCORES, 2 * BITS - 1, None), ValueError, r"\[0, 2\), got -1"),
        (lambda: value(metrics.AUC(3), LOGITS, LABELS), ValueError, r"need outputs \[200, 3\]"),
        (lambda: metrics.CalibrationError(bins=0), ValueError, "bins=0"),
        (lambda: value(metrics.MSE(), SCORES[:, None], SCORES), ValueError, r"MSE.*outputs\[\.\.\., 0\]"),
    ],
)
def test_errors_name_the_thing(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_metrics_are_values():
    for metric in [*TOKENS.values(), metrics.AUC(), metrics.R2(), metrics.MSE(), metrics.BinaryAccuracy(0.5)]:
        copy = pickle.loads(pickle.dumps(metric))  # noqa: S301
        assert copy == metric
        assert hash(copy) == hash(metric)
    assert repr(metrics.TopKAccuracy(5)) == "TopKAccuracy(k=5)"
    assert repr(metrics.Mean(losses.mse)) == "Mean(dlkit.losses.regression.mse)"
    assert metrics.Mean(losses.mse) != metrics.Mean(losses.mae)
    assert metrics.MSE() != metrics.MAE()


def test_result_all_names_the_parts():
    both = {"auc": metrics.AUC(), "class": metrics.PrecisionRecallF1(2, average="binary")}
    sums = metrics.measure_all(both, jnp.asarray(SCORES), jnp.asarray(BITS, jnp.int32))
    assert set(metrics.result_all(both, sums)) == {"auc", "class/precision", "class/recall", "class/f1"}


def test_lists_and_numpy_arrays_in_float64_are_taken_quietly(unchecked):
    cases = [
        (metrics.Accuracy(), [[1.0, 2.0], [2.0, 1.0]], [1, 1]),
        (metrics.Perplexity(), [[1.0, 2.0], [2.0, 1.0]], [1, 1]),
        (metrics.ConfusionMatrix(2), [[1.0, 2.0], [2.0, 1.0]], [1, 1]),
        (metrics.AUC(), [0.5, 1.5], [0, 1]),
        (metrics.CalibrationError(), [0.5, 1.5], [0, 1]),
        (metrics.R2(), [0.5, 1.5], [0, 1]),
        (metrics.MSE(), [0.5, 1.5], [0.0, 1.0]),
        (metrics.Mean(losses.mae), [0.5, 1.5], [0.0, 1.0]),
    ]
    for metric, outputs, targets in cases:
        expected = value(metric, outputs, targets, [1.0, 2.0])
        np.testing.assert_array_equal(metric.result(metric.measure(outputs, targets, [1.0, 2.0])), expected)
        as_numpy = metric.measure(*(np.asarray(a) for a in (outputs, targets, [1.0, 2.0])))
        np.testing.assert_array_equal(metric.result(as_numpy), expected)
