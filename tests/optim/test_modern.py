"""What the rules of optim.modern mean: closed forms, and optax beside what certificates do not show."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlkit import optim

H = jnp.array([[3.0, 0.5, -1.0], [0.5, 2.0, 0.25], [-1.0, 0.25, 1.0]])
P = {"w": jnp.array([1.0, -2.0, 0.5])}


def quadratic(params):
    return params["w"] @ H @ params["w"] / 2


def grad_at(params):
    return jax.grad(quadratic)(params)


OTHERS = {"muon", "scale_by_muon", "galore", "scale_by_galore"}
CONTRIB = [n for n in dir(optax.contrib) if n[0].islower() and n not in OTHERS and callable(getattr(optax.contrib, n))]


@pytest.mark.parametrize("name", CONTRIB)
def test_contrib_has_the_names_and_arguments_of_optax(name):
    ours, theirs = (inspect.signature(getattr(of, name)).parameters for of in (optim.contrib, optax.contrib))
    assert list(ours)[: len(theirs)] == list(theirs)
    assert all(p.kind is p.KEYWORD_ONLY for p in list(ours.values())[len(theirs) :])
    for argument, parameter in theirs.items():
        if type(parameter.default) in (int, float, bool, str, tuple, type(None)):
            assert ours[argument].default == parameter.default
    assert getattr(optim, name) is getattr(optim.contrib, name)


def test_schedule_free_evaluates_at_the_weighted_average_of_z():
    rates = [0.0, 0.05, 0.1, 0.1, 0.05]
    tx = optim.schedule_free(optim.sgd(lambda t: jnp.array(rates)[t]), lambda t: jnp.array(rates)[t], b1=0.8)
    params, state, zs = P, tx.init(P), []
    for _ in rates:
        updates, state = tx.update(grad_at(params), state, params)
        params = optim.apply_updates(params, updates)
        zs.append(state.z["w"])
    weights = np.maximum.accumulate(rates) ** 2
    x = optim.schedule_free_eval_params((state,), params)["w"]
    np.testing.assert_allclose(x, np.average(zs, axis=0, weights=weights), rtol=1e-5)
    np.testing.assert_allclose(params["w"], 0.8 * x + 0.2 * zs[-1], rtol=1e-5)
    with pytest.raises(ValueError, match="holds no ScheduleFreeStates"):
        optim.schedule_free_eval_params(optim.sgd(0.1).init(P), P)


def test_schedule_free_warms_up_from_the_first_number_of_the_schedule():
    tx = optim.schedule_free_sgd(0.1, warmup_steps=4)
    updates, state = tx.update(P, tx.init(P), P)
    np.testing.assert_array_equal(updates["w"], 0)
    _, state = tx.update(P, state, P)
    np.testing.assert_allclose(state.max_lr, 0.025)


def test_sam_descends_with_the_gradient_uphill():
    rate, rho = 0.1, 0.05
    g = H @ P["w"]
    expected = P["w"] - rate * H @ (P["w"] + rho * g / jnp.linalg.norm(g))
    adversary = optim.chain(optim.normalize(), optim.sgd(rho))
    opaque = optim.sam(optim.sgd(rate), adversary, opaque_mode=True)
    updates, _ = opaque.update(grad_at(P), opaque.init(P), P, grad_fn=lambda p, i: grad_at(p))
    np.testing.assert_allclose(optim.apply_updates(P, updates)["w"], expected, rtol=1e-6)

    tx = optim.sam(optim.sgd(rate), adversary)
    params, state = P, tx.init(P)
    for t in range(2):
        assert int(state.steps_since_sync) == t
        updates, state = tx.update(grad_at(params), state, params)
        params = optim.apply_updates(params, updates)
        if t == 0:
            np.testing.assert_allclose(params["w"], P["w"] + rho * g / jnp.linalg.norm(g), rtol=1e-6)
    assert int(state.steps_since_sync) == 0
    np.testing.assert_allclose(params["w"], expected, rtol=1e-6)
    with pytest.raises(TypeError, match="opaque_mode needs"):
        opaque.update(P, opaque.init(P), P)


def test_asam_goes_uphill_in_the_norm_of_the_parameters():
    """Kwon et al.'s formula; and where a layer is rescaled, so is the step uphill."""
    rate, rho, eta = 0.1, 0.05, 0.01
    g, scales = H @ P["w"], jnp.abs(P["w"]) + eta
    uphill = rho * scales**2 * g / jnp.linalg.norm(scales * g)
    tx = optim.asam(optim.sgd(rate), rho, eta, opaque_mode=True)
    updates, _ = tx.update(grad_at(P), tx.init(P), P, grad_fn=lambda p, i: grad_at(p))
    np.testing.assert_allclose(updates["w"], -rate * H @ (P["w"] + uphill), rtol=1e-5)
    norm = optim.normalize_adaptively(0.0)
    small, large = (norm.update({"w": g / k}, optim.EmptyState(), {"w": k * P["w"]})[0]["w"] for k in (1.0, 4.0))
    np.testing.assert_allclose(large, 4 * small, rtol=1e-6)


def test_hutchinson_is_exact_on_a_diagonal_and_unbiased_elsewhere():
    exact = optim.hutchinson_estimator_diag_hessian(jax.random.key(1))
    got, _ = exact.update(P, exact.init(P), P, obj_fn=lambda p: jnp.sum(jnp.array([1.0, 2.0, 3.0]) * p["w"] ** 2))
    np.testing.assert_allclose(got["w"], [2.0, 4.0, 6.0], rtol=1e-6)

    def estimate(key):
        return exact.update(P, optim.HutchinsonState(key), P, obj_fn=quadratic)[0]["w"]

    n = 2000
    many = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(2), n))
    deviation = jnp.sqrt(jnp.sum((H - jnp.diag(jnp.diag(H))) ** 2, axis=1))  # of z_i sum_j H_ij z_j
    np.testing.assert_array_less(jnp.abs(many.mean(0) - jnp.diag(H)), 4 * deviation / n**0.5)
    np.testing.assert_allclose(many.std(0), deviation, rtol=0.1)  # 4 / sqrt(2 n) is 0.06


def test_gauss_newton_bartlett_is_unbiased():
    """Softmax regression: the diagonal is the mean of p (1 - p) x^2."""
    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.standard_normal((6, 2)), jnp.float32), jnp.asarray(rng.standard_normal((2, 3)), jnp.float32)
    tx = optim.gauss_newton_bartlett_estimator_diag_hessian(0)
    p = jax.nn.softmax(x @ w)
    exact = jnp.einsum("nd,nc->dc", x**2, p * (1 - p)) / 6

    def estimate(key):
        return tx.update(w, optim.HutchinsonState(key), w, logits_fn=lambda w: x @ w)[0]

    n = 2000
    many = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(2), n))
    assert bool(jnp.all(many >= 0))
    np.testing.assert_array_less(jnp.abs(many.mean(0) - exact), 4 * many.std(0) / n**0.5)
    with pytest.raises(TypeError, match="logits_fn=lambda"):
        tx.update(w, tx.init(w), w)


def test_sophia_estimates_every_few_updates():
    tx = optim.scale_by_sophia(update_interval=3)
    state, seen = tx.init(P), []
    for _ in range(4):
        _, state = tx.update(P, state, P, obj_fn=quadratic)
        seen.append((float(state.nu["w"][0]), tuple(state.hessian_fn_state.key.tolist())))
    assert seen[0] == seen[1] == seen[2] != seen[3]
    with pytest.raises(TypeError, match="obj_fn=lambda"):
        tx.update(P, state, P)


def test_sophia_prints_how_many_updates_are_not_clipped(capsys):
    tx = optim.scale_by_sophia(gamma=1.0, eps=2.0, verbose=True, print_win_rate_every_n_steps=1)
    tx.update({"w": jnp.array([1.0, 3.0, 4.0, 0.0])}, tx.init({"w": jnp.ones(4)}), {"w": jnp.ones(4)}, obj_fn=_sum)
    jax.effects_barrier()
    assert "not clipped: 0.5" in capsys.readouterr().out


def _sum(p):
    return jnp.sum(p["w"])


@pytest.mark.parametrize(("power", "interval"), [(1.0, 1), (0.5, 2)])
def test_adahessian_is_its_formula(power, interval):
    """Yao et al., Algorithm 1, in numpy. The Hessian is diagonal, so that the estimate is exact."""
    start = np.array([1.0, -2.0])
    tx = optim.adahessian(0.1, weight_decay=0.1, hessian_power=power, update_interval=interval)

    def quartic(p):
        return jnp.sum(p["w"] ** 4)

    params = {"w": jnp.asarray(start, jnp.float32)}
    state = tx.init(params)
    p, m, v = start, np.zeros(2), np.zeros(2)
    for t in range(1, 6):
        updates, state = tx.update(jax.grad(quartic)(params), state, params, obj_fn=quartic)
        params = optim.apply_updates(params, updates)
        g, h = 4 * p**3, (12 * p**2 if (t - 1) % interval == 0 else h)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * h**2
        root = np.sqrt(v / (1 - 0.999**t)) ** power + 1e-4
        p = p - 0.1 * (m / (1 - 0.9**t) / root + 0.1 * p)
    np.testing.assert_allclose(params["w"], p, rtol=1e-5)


def test_adahessian_averages_over_the_window_of_a_kernel():
    curvature = jnp.arange(1.0, 5.0).reshape(2, 1, 2)
    tx = optim.scale_by_adahessian(eps=0.0, spatial_averaging=True)
    p = {"w": jnp.ones((2, 1, 2))}
    updates, _ = tx.update(p, tx.init(p), p, obj_fn=lambda p: jnp.sum(curvature * p["w"] ** 2) / 2)
    np.testing.assert_allclose(updates["w"], jnp.broadcast_to(1 / jnp.array([2.0, 3.0]), (2, 1, 2)), rtol=1e-5)


def test_split_complex_parameters_equal_optax(x64):
    z = {"z": jnp.array([1 + 2j, 3 - 1j]), "r": jnp.array([2.0])}
    ours = optim.split_real_and_imaginary(optim.adam(0.1))
    theirs = optax.contrib.split_real_and_imaginary(optax.adam(0.1))
    state, other = ours.init(z), theirs.init(z)
    for t in range(3):
        g = jax.tree.map(lambda x, t=t: x * (t + 1 + (1j if jnp.iscomplexobj(x) else 0)), z)
        updates, state = ours.update(g, state, z)
        with jax.numpy_dtype_promotion("standard"):
            expected, other = theirs.update(g, other, z)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), updates, expected)


@pytest.mark.parametrize(
    ("make", "at", "extra"),
    [
        (lambda h: optim.prodigy(h, weight_decay=h, beta3=h, estim_lr0=h), 0.1, {}),
        (lambda h: optim.dadapt_adamw(h, estim_lr0=h, eps=h), 0.1, {}),
        (lambda h: optim.dog(h, ("distance", h), eps=h), 0.1, {}),
        (lambda h: optim.mechanize(optim.sgd(h), weight_decay=h, s_init=h), 0.1, {}),
        (lambda h: optim.momo(h, beta=h, lower_bound=h, weight_decay=h, adapt_lower_bound=True), 0.1, {"value": 1.0}),
        (lambda h: optim.momo_adam(h, b1=h, b2=h, eps=h, weight_decay=h), 0.1, {"value": 1.0}),
        (lambda h: optim.schedule_free_adamw(h, b1=h, b2=h, weight_lr_power=h), 0.1, {}),
        (lambda h: optim.sophia(h, b1=h, gamma=h, clip_threshold=h), 0.1, {"obj_fn": quadratic}),
        (lambda h: optim.adopt(h, b1=h, b2=h, eps=h), 0.1, {}),
        (lambda h: optim.madgrad(h, momentum=h, eps=h), 0.1, {}),
        (lambda h: optim.reduce_on_plateau(h, rtol=h, atol=h, min_scale=h), 0.1, {"value": 1.0}),
        (lambda h: optim.cocob(h, alpha=h, eps=h), 0.1, {}),
    ],
)
def test_hyperparameters_may_be_traced(make, at, extra):
    def two_steps(h):
        tx = make(h)
        _, state = tx.update(P, tx.init(P), P, **extra)
        return tx.update(P, state, P, **extra)[0]["w"]

    np.testing.assert_allclose(jax.jit(two_steps)(at), two_steps(at), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.schedule_free_sgd(b1=0.0), ValueError, "^schedule_free: b1 is 0.0, wanted 0 < b1 <= 1"),
        (lambda: optim.schedule_free_sgd(lambda t: 0.1, 5), TypeError, "^schedule_free: warmup_steps with"),
        (lambda: optim.prodigy(betas=(0.9, 1.0)), ValueError, "^prodigy: betas is"),
        (lambda: optim.prodigy(estim_lr0=0.0), ValueError, "^prodigy: estim_lr0 is 0.0, wanted more than 0"),
        (lambda: optim.dog(init_step=("guess", 1.0)), ValueError, "^scale_by_dog: init_step begins with 'guess'"),
        (lambda: optim.dog(init_step=("distance", 0.0)), ValueError, "wanted a number above 0"),
        (lambda: optim.dowg(eps=-1.0), ValueError, "^scale_by_dowg: eps is -1.0"),
        (lambda: optim.mechanize(optim.sgd(1.0), num_betas=0), ValueError, "^mechanize: num_betas is 0"),
        (lambda: optim.mechanize(3), TypeError, "^mechanize: got 3"),
        (lambda: optim.momo(beta=1.0), ValueError, "^momo: beta is 1.0"),
        (lambda: optim.momo().update(P, optim.momo().init(P), P), TypeError, "^momo: it reads the loss"),
        (lambda: optim.ademamix(0.1, b3=1.0), ValueError, "^scale_by_ademamix: b3 is 1.0"),
        (lambda: optim.sophia(0.1, update_interval=0), ValueError, "^scale_by_sophia: update_interval is 0"),
        (lambda: optim.sam(optim.sgd(0.1), optim.sgd(0.1), 0), ValueError, "^sam: sync_period is 0"),
        (lambda: optim.reduce_on_plateau(1.0), ValueError, "^reduce_on_plateau: factor is 1.0"),
        (lambda: optim.reduce_on_plateau(patience=0), ValueError, "^reduce_on_plateau: patience is 0"),
        (lambda: optim.reduce_on_plateau(rtol=0.0), ValueError, "^reduce_on_plateau: rtol and atol are both 0"),
        (lambda: optim.dpsgd(0.1, -1.0, 1.0, 0), ValueError, "l2_norm_clip is -1.0"),
        (lambda: optim.madgrad(0.1).update(P, optim.madgrad(0.1).init(P)), ValueError, "it reads the parameters"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
