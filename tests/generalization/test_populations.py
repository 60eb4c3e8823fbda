"""Populations beside `train.fit` and beside themselves one by one; labels, subsets and memorization by counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import data, losses, metrics, models, nn, optim, train
from dlkit import generalization as g

KEYS = jnp.stack([jax.random.key(seed) for seed in range(3)])


def blobs(n, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.standard_normal((n, 4)) + 2 * np.eye(3, 4)[y]
    return data.Arrays(x=x.astype(np.float32), y=y)


TASK = train.Task(models.mlp((4, 8, 3), dropout=0.1), losses.cross_entropy, {"accuracy": metrics.Accuracy()})


def test_a_member_is_a_run_of_fit():
    """Whole batches, dropout included: the parameters that `fit` gets for each seed, to float32's rounding."""
    few, held = blobs(24), blobs(16, 1)
    found = g.train_population(TASK, optim.adam(0.02), KEYS, few, epochs=6, test=held, every=3)
    assert (len(found), found.epochs.tolist()) == (3, [0, 3, 6])
    fixed = data.Loader(few, 24, seed=1, shuffle=False)
    alone = train.fit(TASK, optim.adam(0.02), fixed, epochs=6, seed=1)
    for ours, theirs in zip(jax.tree.leaves(found.member(1).params), jax.tree.leaves(alone.state.params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    state = found.member(2)
    for part, examples in (("train", few), ("test", held)):
        measured = train.evaluate(TASK, state.params, state.state, examples)
        for name, value in measured.items():
            assert found.final(f"{part}/{name}")[2] == pytest.approx(value, abs=1e-6)
            assert found.curves[f"{part}/{name}"].shape == (3, 3)


def test_batches_cover_an_epoch_and_members_are_their_own():
    """The mean gradient of the batches of an epoch is that of all: with a linear loss the sum of the steps is exact."""
    x = np.arange(12, dtype=np.float32)[:, None]
    task = train.Task(nn.Linear(1, 1), lambda outputs, y: outputs[:, 0])
    few = data.Arrays(x=x, y=np.zeros(12, np.float32))
    found = g.train_population(task, optim.sgd(0.1), KEYS, few, epochs=2, batch_size=4)
    start = jax.vmap(lambda key: train.create_state(task.model, optim.sgd(0.1), key).params["w"])(KEYS)
    np.testing.assert_allclose(found.params["w"] - start, np.full((3, 1, 1), -0.1 * 6 * x.mean()), rtol=1e-5)
    assert found.states.step.tolist() == [6, 6, 6]
    ragged = g.train_population(task, optim.sgd(0.1), KEYS, few, epochs=1, batch_size=5)
    moved = np.asarray(ragged.params["w"] - start).ravel() / -0.1
    assert ragged.states.step.tolist() == [2, 2, 2]  # two rows sit this epoch out
    assert len(set(moved.round(4).tolist())) > 1  # and not the same ones for everyone


def test_what_members_have_of_their_own():
    """Learning rates, labels and weights by member, beside each run alone."""
    few = blobs(20)
    task = train.Task(nn.Linear(4, 3), losses.cross_entropy)
    labels = jnp.stack([jnp.asarray(few["y"]), (jnp.asarray(few["y"]) + 1) % 3])
    weights = g.random_subsets(KEYS[:2], 20, 0.5)
    rates = jnp.array([0.1, 0.5])
    given = {"x": few["x"], "y": labels, "weight": weights}
    found = g.train_population(task, optim.sgd, KEYS[:2], given, epochs=5, each=("y", "weight"), hyper=rates)
    for k in range(2):
        rows = np.flatnonzero(np.asarray(weights[k]))
        alone = data.Arrays(x=few["x"][rows], y=np.asarray(labels[k])[rows])
        other = g.train_population(task, optim.sgd(float(rates[k])), KEYS[k : k + 1], alone, epochs=5)
        np.testing.assert_allclose(found.member(k).params["w"], other.member(0).params["w"], atol=1e-6)
        assert found.final("train/loss")[k] == pytest.approx(other.final("train/loss")[0], abs=1e-6)


def test_labels_are_corrupted_as_said():
    """Counts, classes and nesting."""
    labels = jnp.arange(6000) % 5
    some = g.corrupt_labels(KEYS[0], labels, 0.5, 5)
    share = float(some.changed.mean())
    assert share == pytest.approx(0.5 * 4 / 5, abs=4 * np.sqrt(0.16 / 6000))  # a fifth of the drawn come out alike
    wrong = g.corrupt_labels(KEYS[0], labels, 0.5, 5, other=True)
    assert int(wrong.changed.sum()) == 3000
    counts = np.bincount(np.asarray((wrong.labels - labels)[wrong.changed] % 5), minlength=5)
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:], 750, atol=4 * np.sqrt(3000 * 0.25 * 0.75))
    nested = jax.vmap(lambda f: g.corrupt_labels(KEYS[0], labels, f, 5, other=True).labels)(jnp.array([0.0, 0.2, 0.5]))
    assert np.all(nested[0] == labels)
    assert np.all((nested[1] == labels) | (nested[1] == nested[2]))
    assert np.all(nested[2] == wrong.labels)


def test_nearest_neighbours_memorize_outliers():
    """1-nearest-neighbour (scikit-learn) knows each example by heart that its neighbours contradict, and no other."""
    neighbors = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 30)
    x = rng.standard_normal((60, 2)) * 0.3 + 5 * y[:, None]
    y[[3, 40]] = 1 - y[[3, 40]]
    included = np.asarray(g.random_subsets(jax.random.split(jax.random.key(5), 60), 60, 0.7))
    correct = []
    for mask in included != 0:
        model = neighbors.KNeighborsClassifier(1).fit(x[mask], y[mask])
        correct.append(model.predict(x) == y)
    found = g.memorization(np.array(correct), included)
    assert np.all(found[[3, 40]] == 1)
    assert np.mean(np.delete(found, [3, 40])) < 0.05
    assert np.isnan(g.memorization([[1.0]], [[1.0]])).all()


def test_bagging_takes_variance_away():
    """How often examples are drawn, beside the binomial; the mean of the members is better than the members."""
    weights = np.asarray(g.bootstrap(jax.random.split(jax.random.key(0), 40), 50))
    assert np.all(weights.sum(1) == 50)
    assert np.mean(weights == 0) == pytest.approx((1 - 1 / 50) ** 50, abs=0.03)  # 2000 draws: 3 standard errors
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 12)).astype(np.float32)
    y, new = x[:, 0] + 2 * rng.standard_normal(50).astype(np.float32), rng.standard_normal((200, 12)).astype(np.float32)
    task = train.Task(nn.Linear(12, 1), losses.mse)
    given = {"x": x, "y": y[:, None], "weight": weights}
    found = g.train_population(task, optim.sgd(0.1), jnp.stack([KEYS[0]] * 40), given, epochs=100, each=["weight"])
    outputs = jax.vmap(lambda p: task.model(p, jnp.asarray(new))[:, 0])(found.params)
    parts = g.bias_variance(outputs, jnp.asarray(new[:, 0])).mean()
    assert parts.bias < 0.8 * parts.error  # the bias is the error of the mean of all
    assert float(jnp.mean((outputs.mean(0) - new[:, 0]) ** 2)) == pytest.approx(float(parts.bias), rel=1e-4)


def many(**change):
    given = {"epochs": 2, "keys": KEYS, "data": blobs(8)} | change
    return g.train_population(TASK, optim.sgd(0.1), given.pop("keys"), given.pop("data"), **given)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: many(keys=KEYS[0]), "one for each member"),
        (lambda: many(epochs=3, every=2), "multiple of every"),
        (lambda: many(batch_size=9), "the 8 examples"),
        (lambda: many(each=("z",)), "'z'"),
        (lambda: many(each=("y",)), "the 3 members"),
        (lambda: many(data={"x": np.zeros((4, 4), np.float32), "y": np.zeros(5, int)}), "one row for each example"),
        (lambda: g.corrupt_labels(KEYS[0], jnp.zeros(3, jnp.int32), 1.5, 3), r"\[0, 1\]"),
        (lambda: g.corrupt_labels(KEYS[0], jnp.zeros(3, jnp.int32), 0.5, 1), "2 classes"),
        (lambda: g.random_subsets(KEYS, 3, 1.0), "take one between"),
        (lambda: g.memorization([1.0], [1.0]), r"\[K, N\]"),
    ],
)
def test_bad_input_is_named(call, said, unchecked):
    with pytest.raises(ValueError, match=said):
        call()


def test_an_optimizer_of_hyper_is_a_function(unchecked):
    with pytest.raises(TypeError, match="function of a member's values"):
        many(hyper=jnp.ones(3))
