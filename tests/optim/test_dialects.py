"""The dialects: what the certificates cannot show, since their problem is dense and has vectors in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import optim
from dlkit.optim import keras, preset, torch

SAME = {
    ("torch", "sgd"): (optim.sgd, torch.sgd),
    ("torch", "adagrad"): (optim.adagrad, torch.adagrad),
    ("torch", "adadelta"): (optim.adadelta, torch.adadelta),
    ("torch", "rmsprop"): (optim.rmsprop, torch.rmsprop),
    ("torch", "adam"): (optim.adam, torch.adam),
    ("torch", "adamw"): (optim.adamw, torch.adamw),
    ("torch", "amsgrad"): (optim.amsgrad, lambda lr: torch.adam(lr, amsgrad=True)),
    ("torch", "adamax"): (optim.adamax, torch.adamax),
    ("torch", "nadam"): (optim.nadam, torch.nadam),
    ("torch", "radam"): (optim.radam, torch.radam),
    ("torch", "rprop"): (optim.rprop, torch.rprop),
    ("keras", "sgd"): (optim.sgd, keras.sgd),
    ("keras", "adagrad"): (optim.adagrad, keras.adagrad),
    ("keras", "adadelta"): (optim.adadelta, keras.adadelta),
    ("keras", "rmsprop"): (optim.rmsprop, keras.rmsprop),
    ("keras", "adam"): (optim.adam, keras.adam),
    ("keras", "adamw"): (optim.adamw, keras.adamw),
    ("keras", "amsgrad"): (optim.amsgrad, lambda lr: keras.adam(lr, amsgrad=True)),
    ("keras", "adamax"): (optim.adamax, keras.adamax),
    ("keras", "nadam"): (optim.nadam, keras.nadam),
}


@pytest.mark.parametrize(("library", "name"), SAME)
def test_presets_are_the_dialects(library, name):
    """So what the certificates say of the one is true of the other."""
    recipe, dialect = SAME[library, name]
    assert recipe(0.1, **preset(library, name)) == dialect(0.1)


def test_presets_with_momentum_are_the_dialects():
    assert optim.sgd(0.1, 0.9, **preset("keras", "sgd")) == keras.sgd(0.1, 0.9)
    assert optim.rmsprop(0.1, **preset("keras", "rmsprop"), momentum=0.9) == keras.rmsprop(0.1, momentum=0.9)
    assert optim.rmsprop(0.1, **preset("torch", "rmsprop"), momentum=0.9) == torch.rmsprop(0.1, momentum=0.9)


MATRICES = [np.random.default_rng(i).standard_normal(shape) for i, shape in enumerate([(3, 5), (5, 3), (4, 4)])]
GRADS = [[np.random.default_rng(10 * t + i).standard_normal(m.shape) for i, m in enumerate(MATRICES)] for t in range(3)]


def torch_muon(exact, **arguments):
    """torch's Muon on three matrices; `exact` leaves its iteration in float64, where torch itself goes to bfloat16."""

    def compute():
        import torch

        params = [torch.nn.Parameter(torch.tensor(m)) for m in MATRICES]
        optimizer, narrow = torch.optim.Muon(params, lr=0.1, **arguments), torch.Tensor.bfloat16
        if exact:
            torch.Tensor.bfloat16 = torch.Tensor.clone
        try:
            for grads in GRADS:
                for p, g in zip(params, grads, strict=True):
                    p.grad = torch.tensor(g)
                optimizer.step()
        finally:
            torch.Tensor.bfloat16 = narrow
        return {str(i): p.detach().numpy() for i, p in enumerate(params)}

    return compute


def ours_after(tx, params, all_grads):
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    for grads in all_grads:
        updates, state = tx.update(jax.tree.map(jnp.asarray, grads), state, params)
        params = optim.apply_updates(params, updates)
    return params, state


MUON = {
    "default": {},
    "options": {"momentum": 0.8, "nesterov": False, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3},
}


@pytest.mark.parametrize("case", MUON)
def test_muon_equals_torch(case, x64):
    expected = reference(f"dialects/muon_{case}", torch_muon(True, **MUON[case]))
    got, _ = ours_after(torch.muon(0.1, **MUON[case], dtype=None), MATRICES, GRADS)
    for i, matrix in enumerate(got):
        np.testing.assert_allclose(matrix, expected[str(i)], rtol=0, atol=1e-12)


def test_muon_in_bfloat16_is_near_torch(x64):
    """bfloat16 has 8 bits, and both libraries round five times in their own order: some % of a step of 0.1."""
    expected = reference("dialects/muon_bfloat16", torch_muon(False))
    got, _ = ours_after(torch.muon(0.1), MATRICES, GRADS)
    for i, matrix in enumerate(got):
        np.testing.assert_allclose(matrix, expected[str(i)], rtol=0, atol=2e-2)


def test_newton_schulz_makes_singular_values_near_one():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 4)), jnp.float32)
    tx = torch.NewtonSchulz()
    u, _ = tx.update(x, tx.init(x))
    values = np.linalg.svd(u, compute_uv=False)
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_takes_matrices_only():
    tx = torch.muon(0.1)
    with pytest.raises(ValueError, match=r"^muon: a gradient has the shape \(3,\), wanted matrices"):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)), jnp.ones(3))


ROWS = [[0, 2], [2], [1, 2], [0]]  # of a table of four, step by step: the last row is never seen


def test_sparse_adam_equals_torch(x64):
    """Rows that a batch does not hold keep parameters and moments; then the momentum goes on from where it was."""
    table = np.random.default_rng(0).standard_normal((4, 3))
    weights = np.random.default_rng(1).standard_normal((4, 3))

    def compute():
        import torch

        p = torch.nn.Parameter(torch.tensor(table))
        optimizer, seen = torch.optim.SparseAdam([p], lr=0.1), []
        for rows in ROWS:
            values = torch.tensor(weights[rows]) * p.detach()[rows]
            p.grad = torch.sparse_coo_tensor(torch.tensor([rows]), values, p.shape, check_invariants=True)
            optimizer.step()
            seen.append(p.detach().numpy().copy())
        return {"table": np.stack(seen), "nu": optimizer.state[p]["exp_avg_sq"].numpy()}

    expected = reference("dialects/sparse_adam", compute)
    tx, p, seen = torch.sparse_adam(0.1), jnp.asarray(table), []
    state = tx.init(p)
    for rows in ROWS:
        g = jnp.zeros_like(p).at[jnp.array(rows)].set((weights * p)[jnp.array(rows)])
        updates, state = tx.update(g, state, p)
        p = optim.apply_updates(p, updates)
        seen.append(np.asarray(p))
    np.testing.assert_allclose(np.stack(seen), expected["table"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(state[0].nu, expected["nu"], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(p[3], table[3])
    np.testing.assert_array_equal(seen[1][:2], seen[0][:2])


def test_the_average_of_asgd_equals_torch(x64):
    start = np.array([1.0, -2.0])

    def compute():
        import torch

        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            p = torch.nn.Parameter(torch.tensor(start))
            optimizer = torch.optim.ASGD([p], lr=0.3, lambd=0.05, t0=2)
            for _ in range(6):
                p.grad = torch.sin(p.detach())
                optimizer.step()
            return {"ax": optimizer.state[p]["ax"].numpy(), "p": p.detach().numpy()}
        finally:
            torch.set_default_dtype(usual)

    expected = reference("dialects/asgd", compute)
    tx, p = torch.asgd(0.3, lambd=0.05, t0=2), jnp.asarray(start)
    state = tx.init(p)
    np.testing.assert_array_equal(torch.asgd_average(state), start)
    for _ in range(6):
        updates, state = tx.update(jnp.sin(p), state, p)
        p = optim.apply_updates(p, updates)
    np.testing.assert_allclose(p, expected["p"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(torch.asgd_average(state), expected["ax"], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"^asgd_average: the state holds no averages"):
        torch.asgd_average(optim.sgd(0.1).init(p))


PARAMS = {"block": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, "embed": {"table": jnp.ones((2, 2))}}


@pytest.mark.parametrize(
    "tx",
    [
        torch.adamw(0.1, weight_decay=0.5, mask="**/w"),
        torch.adafactor(0.1, weight_decay=0.5, mask="**/w"),
        keras.adamw(0.1, weight_decay=0.5, mask="**/w"),
        keras.sgd(0.1, 0.9, weight_decay=0.5, mask="**/w"),
        keras.lamb(0.1, weight_decay=0.5, mask="**/w"),
        keras.muon(0.1, weight_decay=0.5, adam_weight_decay=0.5, mask="**/w"),
    ],
    ids=lambda tx: repr(tx)[6:40],
)
def test_masks_of_decay(tx):
    """With zero gradients, what decays loses a share of 0.1 * 0.5 and nothing else moves."""
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = tx.update(zeros, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["block"]["w"], -0.05, rtol=1e-6)
    assert not np.any(updates["block"]["b"])
    assert not np.any(updates["embed"]["table"])


def test_muon_of_keras_leaves_embeddings_and_patterns_to_adamw():
    params = {"embedding": {"w": jnp.ones((2, 2))}, **PARAMS, "head": {"w": jnp.ones((2, 2))}}
    chosen = keras.ByMuon(("^head",))(params)
    found = {"embedding": {"w": False}, "block": {"w": True, "b": False}}
    assert chosen == {**found, "embed": {"table": False}, "head": {"w": False}}
    assert keras.ByMuon(exclude_embeddings=False)(params)["embed"]["table"]
    state = keras.muon(exclude_layers=["^head"]).init(params)
    assert len(jax.tree.leaves(state[0])) == 1  # one velocity: block/w
    assert optim.learning_rate(state) == np.float32(0.001)


def test_learning_rates_are_reported():
    """By those steps too that compute with their rate: the one last used."""
    params = {"w": jnp.ones(2)}
    for tx, rate in (
        (keras.ftrl(0.5), 0.5),
        (keras.schedule_free_adamw(0.5, warmup_steps=2), 0.25),
        (torch.asgd(0.5), 0.5),
        (torch.adafactor(2.0), 1.0),  # min(2, 1 / sqrt(1))
        (keras.sgd(0.5, 0.9, weight_decay=0.1), 0.5),
    ):
        _, state = tx.update(params, tx.init(params), params)
        assert optim.learning_rate(state) == rate


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.adam(0.1, betas=0.9), "^adam: betas is 0.9, wanted a pair of numbers"),
        (lambda: torch.adam(0.1, (0.9, 1.0)), "^scale_by_adam: b2 is 1.0"),
        (lambda: torch.adam(0.1, weight_decay=-1.0), "^coupled decay: l2 is -1.0"),
        (lambda: torch.adamw(0.1, weight_decay=-1.0), "^add_decayed_weights: weight_decay is -1.0"),
        (lambda: torch.sgd(0.1, nesterov=True), "^sgd: nesterov=True needs a momentum"),
        (lambda: torch.adagrad(0.1, lr_decay=-1.0), "^adagrad: lr_decay is -1.0"),
        (lambda: torch.sparse_adam(0.1, eps=0.0), "^sparse_adam: eps is 0.0, wanted more than 0"),
        (lambda: torch.adafactor(0.1, beta2_decay=0.8), "^adafactor: beta2_decay is 0.8, wanted 0 or less"),
        (lambda: torch.adafactor(0.1, d=0.5), "^adafactor: d is 0.5, wanted 1 or more"),
        (lambda: torch.adafactor(0.1, weight_decay=-0.5), "^adafactor: weight_decay is -0.5"),
        (lambda: torch.asgd(0.1, lambd=-1.0), "^asgd: lambd is -1.0"),
        (lambda: torch.muon(0.1, ns_steps=100), "^muon: ns_steps is 100, wanted less than 100"),
        (lambda: torch.muon(0.1, adjust_lr_fn="rms"), "^muon: adjust_lr_fn is 'rms', wanted None"),
        (lambda: keras.adam(0.1, clipnorm=1.0, clipvalue=1.0), "^adam: clipnorm and clipvalue were given"),
        (lambda: keras.adam(0.1, clipnorm=-1.0), "^adam: clipnorm is -1.0, wanted 0 or more"),
        (lambda: keras.sgd(0.1, 0.9, weight_decay=-1.0), "^weight decay: weight_decay is -1.0"),
        (lambda: keras.ftrl(0.1, learning_rate_power=0.5), "^ftrl: learning_rate_power is 0.5, wanted 0 or less"),
        (lambda: keras.schedule_free_adamw(beta_1=0.0), "^schedule_free: b1 is 0.0, wanted 0 < b1 <= 1"),
        (lambda: keras.lion(beta_1=1.0), "^scale_by_lion: b1 is 1.0"),
    ],
)
def test_arguments_out_of_range(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()


def test_clipping_comes_before_everything_else():
    """Of Keras's three kinds; 0 means none."""
    g = {"w": jnp.array([3.0, 4.0]), "b": jnp.array([0.0, 12.0])}
    for given, expected in (
        ({"clipnorm": 1.0}, {"w": [0.6, 0.8], "b": [0.0, 1.0]}),
        ({"global_clipnorm": 6.5}, {"w": [1.5, 2.0], "b": [0.0, 6.0]}),
        ({"clipvalue": 3.5}, {"w": [3.0, 3.5], "b": [0.0, 3.5]}),
        ({"clipnorm": 0.0}, g),
    ):
        tx = keras.sgd(1.0, **given)
        updates, _ = tx.update(g, tx.init(g), g)
        for name in g:
            np.testing.assert_allclose(-updates[name], np.asarray(expected[name]), rtol=1e-6)
