"""The factors of models: by hand, by dense Fisher matrices, by explicit windows, by kfac-jax (golden numbers)."""

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import losses, nn, optim, train, tree
from dlkit.train.curvature import Curvature, kfac_layers

KEY = jax.random.key(0)


def batch_of(*shape, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x": jnp.asarray(rng.standard_normal(shape), jnp.result_type(float)),
        "y": jnp.asarray(rng.integers(classes, size=shape[0])),
    }


def cast(params):
    return jax.tree.map(lambda p: p.astype(jnp.result_type(float)), params)


MLP = nn.Chain(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def test_moments_by_hand(x64):
    """Empirical: A = E[a a^T] with a 1 for the bias, G = E[g g^T], g from the gradient of each example's bias."""
    task, params, batch = train.Task(MLP, losses.cross_entropy), cast(MLP.init(KEY)), batch_of(7, 4)
    found = Curvature(estimator="empirical").factors(task, params, None, batch, nn.EVAL)

    def loss(p, x, y):
        return losses.cross_entropy(MLP(p, x[None]), y[None])[0]

    each = jax.vmap(jax.grad(loss), (None, 0, 0))(params, batch["x"], batch["y"])
    hidden = jnp.tanh(batch["x"] @ params["linear1"]["w"] + params["linear1"]["b"][None])
    for name, a in (("linear1", batch["x"]), ("linear2", hidden)):
        a = np.concatenate([a, np.ones((7, 1))], axis=1)
        g = np.asarray(each[name]["b"])  # the gradient of the outputs
        # Factors are float32: 7 terms.
        np.testing.assert_allclose(found[name].a, a.T @ a / 7, atol=1e-6)
        np.testing.assert_allclose(found[name].g, g.T @ g / 7, atol=1e-6)


@pytest.mark.parametrize("outputs", ["normal", "bernoulli", "categorical"])
def test_exact_fisher_of_a_linear_model(outputs, x64):
    """One example: the factors' product is the Fisher matrix J^T H J itself. Gaussian: for every batch, as H = I."""
    model = nn.Linear(3, 2)
    task, params = train.Task(model, losses.cross_entropy), cast(model.init(KEY))
    batch = batch_of(6 if outputs == "normal" else 1, 3)
    pair = Curvature(outputs, "exact").factors(task, params, None, batch, nn.EVAL)[""]

    def flat(p):
        return jnp.concatenate([p["w"], p["b"][None]]).reshape(-1)

    def fisher(x):
        jacobian = jax.jacobian(lambda p: model(p, x))(params)
        j = jax.vmap(lambda i: flat(jax.tree.map(lambda leaf: leaf[i], jacobian)))(jnp.arange(2))
        z = model(params, x)
        p = jax.nn.softmax(z) if outputs == "categorical" else jax.nn.sigmoid(z)
        curvature = {"normal": jnp.eye(2), "bernoulli": jnp.diag(p * (1 - p))}.get(
            outputs, jnp.diag(p) - jnp.outer(p, p)
        )
        return j.T @ curvature @ j

    wanted = np.mean([fisher(x) for x in batch["x"]], axis=0)
    np.testing.assert_allclose(np.kron(pair.a, pair.g), wanted, atol=1e-6)


@pytest.mark.parametrize("outputs", ["normal", "bernoulli", "categorical"])
def test_samples_have_the_exact_mean(outputs):
    task, params, batch = train.Task(MLP, losses.cross_entropy), MLP.init(KEY), batch_of(4, 4)

    def drawn(key):
        return Curvature(outputs).factors(task, params, None, batch, nn.training(key))

    many = jax.jit(jax.vmap(drawn))(jax.random.split(KEY, 2000))
    exact = Curvature(outputs, "exact").factors(task, params, None, batch, nn.EVAL)
    for name in exact:
        g = np.asarray(many[name].g)
        error = np.abs(g.mean(axis=0) - exact[name].g)
        assert np.all(error < 5 * g.std(axis=0) / np.sqrt(2000) + 1e-6)  # five standard errors
        np.testing.assert_allclose(many[name].a[0], exact[name].a, rtol=1e-6, atol=1e-7)


def windows(x, conv):
    """Every window as a row, in loops; the borders by numpy's own padding."""
    k, s, d = conv.kernel_shape, conv.stride, conv.dilation
    padding = conv.padding if isinstance(conv.padding, tuple) else ((0, 0), (0, 0))
    mode = {"zeros": "constant", "reflect": "reflect", "circular": "wrap", "replicate": "edge"}[conv.padding_mode]
    x = np.pad(x, ((0, 0), *padding, (0, 0)), mode=mode)
    out = [(x.shape[1 + i] - (k[i] - 1) * d - 1) // s + 1 for i in range(2)]
    rows = []
    for n, i, j in itertools.product(range(len(x)), *map(range, out)):
        row = [x[n, i * s + a * d, j * s + b * d] for a, b in itertools.product(range(k[0]), range(k[1]))]
        rows.append(np.concatenate(row))
    return np.stack(rows), out


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv(2, 3, 3, padding="VALID"),
        nn.Conv(2, 3, (2, 3), stride=2, padding=((1, 0), (1, 1)), bias=False),
        nn.Conv(2, 3, 2, dilation=2, padding=((1, 1), (2, 0)), padding_mode="reflect"),
    ],
    ids=["plain", "strided", "reflected"],
)
def test_convolutions_against_windows(conv, x64):
    """Omega kron Gamma = E[sum_t a_t a_t^T] kron E[sum_t g_t g_t^T] / T, the sums over places."""
    model = nn.Chain(conv=conv, flat=nn.Flatten())
    task, batch = train.Task(model, lambda z, y: jnp.sum(jnp.sin(z), axis=1)), batch_of(3, 5, 6, 2)
    params = cast(model.init(KEY))
    pair = Curvature(estimator="empirical").factors(task, params, None, batch, nn.EVAL)["conv"]
    a, out = windows(np.asarray(batch["x"]), conv)
    outputs = conv(params["conv"], batch["x"])
    assert outputs.shape[1:3] == tuple(out)
    w, b = np.asarray(params["conv"]["w"]).reshape(-1, 3), np.asarray(params["conv"].get("b", 0))
    np.testing.assert_allclose(a @ w + b, outputs.reshape(-1, 3), atol=1e-12)
    if conv.bias:
        a = np.concatenate([a, np.ones((len(a), 1))], axis=1)
    g = np.cos(np.asarray(outputs)).reshape(-1, 3)
    places = len(a) // 3
    omega, gamma = a.T @ a / 3, g.T @ g / 3 / places
    np.testing.assert_allclose(pair.a, omega / places, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.kron(pair.a, pair.g), np.kron(omega, gamma), rtol=1e-5, atol=1e-5)


def test_equals_kfac_jax(x64):
    """A dense and a convolutional layer; exact Fisher matrix of the softmax."""
    model = nn.Chain(conv=nn.Conv(2, 3, 3, padding="VALID"), act=nn.Tanh(), flat=nn.Flatten(), head=nn.Linear(12, 3))
    task, batch = train.Task(model, losses.cross_entropy), batch_of(4, 4, 4, 2, seed=1)
    rng = np.random.default_rng(4)
    shapes = jax.eval_shape(model.init, KEY)
    params = jax.tree.map(lambda s: jnp.asarray(rng.standard_normal(s.shape) / 4), shapes)

    def compute():
        import warnings

        with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            warnings.simplefilter("ignore")
            import kfac_jax
            from kfac_jax._src import tag_graph_matcher, tracer

            def evaluated(eqn, values):  # version 0.0.8 and JAX 0.10 disagree about `get_bind_params`
                given = eqn.primitive.get_bind_params(eqn.params)
                found = eqn.primitive.bind(*values, **given)
                return found if eqn.primitive.multiple_results else [found]

            tag_graph_matcher.eval_jaxpr_eqn = tracer.tgm.eval_jaxpr_eqn = evaluated

            def loss(p, x):
                z = jax.lax.conv_general_dilated(
                    x, p["conv"]["w"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
                z = jnp.tanh(z + p["conv"]["b"]).reshape(4, -1)
                logits = z @ p["head"]["w"] + p["head"]["b"]
                kfac_jax.register_softmax_cross_entropy_loss(logits)
                return jnp.mean(jax.nn.logsumexp(logits, axis=1))

            estimator = kfac_jax.BlockDiagonalCurvature(loss)
            args, key = (params, batch["x"]), jax.random.key(0)
            state = estimator.init(
                key, args, exact_powers_to_cache=-1, approx_powers_to_cache=None, cache_eigenvalues=False
            )
            state = estimator.update_curvature_matrix_estimate(state, 0.0, 1.0, None, 4, key, args, "fisher_exact")
            found = {}
            for name, block, held in zip(("conv", "head"), estimator.blocks, state.blocks_states, strict=True):
                a, g = (np.asarray(f.value) for f in held.factors)
                found |= {f"{name}_0": a, f"{name}_1": g * block.fixed_scale()}  # it keeps the number of places apart
            return found

    wanted = reference("preconditioners/kfac_jax", compute, needs="kfac_jax")
    found = Curvature(estimator="exact").factors(task, params, None, batch, nn.EVAL)
    for name, pair in found.items():
        product = np.kron(wanted[f"{name}_0"], wanted[f"{name}_1"])
        np.testing.assert_allclose(np.kron(pair.a, pair.g), product, rtol=1e-4, atol=1e-6)


def test_stacks_scanned_and_unrolled():
    def factors(scan, remat="none"):
        block = nn.Chain(fc=nn.Linear(4, 4), act=nn.Tanh())
        model = nn.Chain(stack=nn.Stack(block, 3, scan=scan, remat=remat), head=nn.Linear(4, 3))
        params = model.init(KEY)
        task = train.Task(model, losses.cross_entropy)
        return jax.jit(lambda b: Curvature("categorical", "exact").factors(task, params, None, b, nn.EVAL))(
            batch_of(5, 4)
        ), kfac_layers(model)

    scanned, layers = factors(True)
    assert layers == (optim.KfacLayer("head"), optim.KfacLayer("stack/fc", 1))
    for other in (factors(False)[0], factors(True, "full")[0]):
        assert not tree.diff(scanned, other)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), scanned, other)
    assert scanned["stack/fc"].a.shape == (3, 5, 5)


def test_which_layers():
    model = nn.Chain(
        nn.Conv(4, 4, 3, groups=2),
        nn.Residual(nn.Chain(nn.Conv(4, 4, 1), nn.LayerNorm(4))),
        nn.Flatten(),
        nn.LoRALinear(16, 4, rank=1),
        nn.Linear(4, 3),
    )
    assert [layer.path for layer in kfac_layers(model)] == ["linear1", "residual1/body/conv1"]
    tx = optim.kfac(0.1, layers=kfac_layers(model))
    params = model.init(KEY)
    batch = batch_of(2, 2, 2, 4)
    task = train.Task(model, losses.cross_entropy)
    found = Curvature(estimator="exact").factors(task, params, None, batch, nn.EVAL)
    updates, _ = tx.update(params, tx.init(params), params, factors=found)
    assert not tree.diff(params, updates)


@dataclass(frozen=True)
class Shared(nn.Pure):
    """A layer used twice, and one that is not used."""

    fc: nn.Linear
    idle: nn.Linear

    def __call__(self, params, x):
        return self.fc(params["fc"], jnp.tanh(self.fc(params["fc"], x)))


def test_layers_called_twice_and_never(x64):
    """The moments of both uses are added, as two places of one example; an idle layer has identities."""
    model = Shared(nn.Linear(3, 3), nn.Linear(2, 2))
    task, params, batch = train.Task(model, losses.cross_entropy), cast(model.init(KEY)), batch_of(5, 3)
    found = Curvature(estimator="exact").factors(task, params, None, batch, nn.EVAL)
    hidden = jnp.tanh(batch["x"] @ params["fc"]["w"] + params["fc"]["b"][None])
    a = np.concatenate([np.concatenate([batch["x"], hidden]), np.ones((10, 1))], axis=1)
    np.testing.assert_allclose(found["fc"].a, a.T @ a / 10, atol=1e-6)
    np.testing.assert_array_equal(found["idle"].a, np.eye(3))
    np.testing.assert_array_equal(found["idle"].g, np.eye(2))


def test_rows_without_weight_do_not_count_in_g():
    task, params = train.Task(MLP, losses.cross_entropy), MLP.init(KEY)
    full = batch_of(6, 4)
    some = jax.tree.map(lambda a: a[:4], full)
    padded = {**full, "weight": jnp.array([1.0, 1, 1, 1, 0, 0])}
    a, b = (Curvature(estimator="exact").factors(task, params, None, of, nn.EVAL) for of in (some, padded))
    for name in a:
        np.testing.assert_allclose(a[name].g, b[name].g, rtol=1e-5, atol=1e-7)


def test_bfloat16():
    task = train.Task(MLP, losses.cross_entropy)
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), MLP.init(KEY))
    batch = {**batch_of(4, 4), "x": batch_of(4, 4)["x"].astype(jnp.bfloat16)}
    narrow = Curvature(estimator="exact").factors(task, params, None, batch, nn.EVAL)
    wide = Curvature(estimator="exact").factors(
        task,
        jax.tree.map(lambda p: p.astype(jnp.float32), params),
        None,
        {**batch, "x": batch["x"].astype(jnp.float32)},
        nn.EVAL,
    )
    for name in wide:
        assert narrow[name].a.dtype == jnp.float32
        np.testing.assert_allclose(narrow[name].g, wide[name].g, atol=0.02 * float(jnp.max(wide[name].g)))


def test_errors():
    task, params, batch = train.Task(MLP, losses.cross_entropy), MLP.init(KEY), batch_of(4, 4)
    with pytest.raises(ValueError, match='estimator "sample" draws: pass training'):
        Curvature().factors(task, params, None, batch, nn.EVAL)
    with pytest.raises(ValueError, match=r"wants outputs \[B, C\], got \[2, 2, 3\]"):
        Curvature(estimator="exact").factors(task, params, None, {**batch, "x": jnp.ones((2, 2, 4))}, nn.EVAL)


@pytest.mark.parametrize("wrong", [{"outputs": "poisson"}, {"estimator": "all"}])
def test_unknown_kinds(wrong, unchecked):
    with pytest.raises(ValueError, match=r"^Curvature: .*wanted one of"):
        Curvature(**wrong)


def test_a_step_is_traced_once_and_beats_gradient_descent():
    """Least squares, inputs of scales 1 to 1/30: for K-FAC they are all alike, for any one rate they are not."""
    model = nn.Linear(4, 3)
    task = train.Task(model, lambda z, y: jnp.sum(jnp.square(z - y), axis=1) / 2)
    x = batch_of(64, 4)["x"] * jnp.array([1.0, 0.3, 0.1, 0.03])[None]
    batch = {"x": x, "y": x @ jnp.asarray(np.random.default_rng(9).standard_normal((4, 3)) * 10, jnp.float32)}

    def trained(tx, curvature=None):
        state = train.create_state(model, tx, KEY)
        step = train.make_step(task, tx, curvature=curvature)
        for _ in range(25):
            state, measured = step(state, batch)
        assert step.traces == 1
        return float(task.result(measured)["loss"])

    natural = trained(optim.kfac(0.5, 1e-6, 0.0, kl_clip=None), Curvature("normal"))
    plain = min(trained(optim.sgd(rate)) for rate in (0.3, 1.0, 1.7))
    assert natural < 0.01 * plain
