"""Greedy layer-wise pretraining: which layers move, towards what."""

import jax
import numpy as np
import pytest

from dlkit import data, models, nn, optim, train, tree
from dlkit.nn import fold_name

MODEL = models.mlp((6, 5, 4, 2), "tanh")


def factors(n=64):
    """Six features that two numbers explain."""
    rng = np.random.default_rng(0)
    return data.Arrays(x=(rng.standard_normal((n, 2)) @ rng.standard_normal((2, 6)) / 2).astype(np.float32))


def test_each_layer_is_trained_in_its_turn_and_those_before_it_stay_to_the_bit():
    params, seen = MODEL.init(jax.random.key(0)), []
    new = train.pretrain(
        MODEL, params, factors(), optim.adam(3e-2), epochs=20, batch_size=32,
        on_layer=lambda name, held, rows: seen.append((name, jax.device_get(held), rows)),
    )  # fmt: skip
    assert [name for name, _, _ in seen] == ["linear1", "linear2"]
    before = tree.flatten(jax.device_get(params))
    first, second = (tree.flatten(held) for _, held, _ in seen)

    def moved(a, b):
        return {path.split("/")[0] for path in a if a[path].tobytes() != b[path].tobytes()}

    assert moved(before, first) == {"linear1"}
    assert moved(first, second) == {"linear2"}
    assert moved(second, tree.flatten(jax.device_get(new))) == set()
    for _, _, rows in seen:
        assert rows[-1]["train/loss"] < 0.3 * rows[0]["train/loss"]


def test_a_layer_learns_what_an_autoencoder_of_its_input_learns():
    """The second layer's training is `fit` on the outputs of the first."""
    ds, optimizer = factors(), optim.sgd(0.1)
    params = MODEL.init(jax.random.key(0))
    seen = {}
    train.pretrain(
        MODEL, params, ds, optimizer, epochs=2, batch_size=32, seed=3,
        on_layer=lambda name, held, rows: seen.update({name: held}),
    )  # fmt: skip
    h = np.tanh(ds.x @ np.asarray(seen["linear1"]["linear1"]["w"]) + np.asarray(seen["linear1"]["linear1"]["b"]))
    decoder = nn.Linear(4, 5)
    whole = nn.Chain(encoder=nn.Chain(linear2=nn.Linear(5, 4), relu=nn.Tanh()), decoder=decoder)
    held = whole.init(fold_name(jax.random.key(3), "linear2"))
    w, b, v, c = (np.asarray(a, np.float64) for a in (
        params["linear2"]["w"], params["linear2"]["b"], held["decoder"]["w"], held["decoder"]["b"]))  # fmt: skip
    loader = data.Loader(data.Arrays(x=h), 32, seed=4)
    for epoch in range(2):
        for batch in loader.epoch(epoch):  # gradient descent by hand
            x = batch["x"].astype(np.float64)
            code = np.tanh(x @ w + b)
            error = 2 * (code @ v + c - x) / x.size
            back = (error @ v.T) * (1 - code**2)
            w, b, v, c = w - 0.1 * x.T @ back, b - 0.1 * back.sum(0), v - 0.1 * code.T @ error, c - 0.1 * error.sum(0)
    np.testing.assert_allclose(seen["linear2"]["linear2"]["w"], w, atol=2e-6)  # float32, four steps
    np.testing.assert_allclose(seen["linear2"]["linear2"]["b"], b, atol=2e-6)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (nn.Linear(6, 2), TypeError, "wants a Chain"),
        (models.mlp((6, 2)), ValueError, "a hidden Linear layer and a head"),
        (models.mlp((6, 4, 2), norm="batch"), ValueError, "do not remember"),
    ],
)
def test_errors_say_what_is_wrong(model, error, message, unchecked):
    with pytest.raises(error, match=message):
        train.pretrain(model, {}, factors(), optim.sgd(0.1), epochs=1, batch_size=8)
