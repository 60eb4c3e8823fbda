"""Adam's relatives: what the certificates do not show. Traced numbers, complex ones, edges, RAdam's lengths."""

import decimal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlkit import optim
from dlkit.optim.rules.radam import lengths

B1, B2 = 0.8, 0.95
MAKE = {
    "adabelief": lambda rate, b: optim.adabelief(rate, b, eps=1e-8, l2=rate),
    "adadelta": lambda rate, b: optim.adadelta(rate, b, eps=rate, weight_decay=rate),
    "adamax": lambda rate, b: optim.adamax(rate, b, l2=rate),
    "adamaxw": lambda rate, b: optim.adamaxw(rate, b, eps=rate, weight_decay=rate, eps_in_max=False),
    "amsgrad": lambda rate, b: optim.amsgrad(rate, b, b, eps=rate, weight_decay=rate, correct_after_max=True),
    "nadam": lambda rate, b: optim.nadam(rate, b, b, eps_root=rate, momentum_decay=rate),
    "nadamw": lambda rate, b: optim.nadamw(rate, b, weight_decay=rate),
    "radam": lambda rate, b: optim.radam(rate, b, b, threshold=4 + rate, weight_decay=rate),
    "adan": lambda rate, b: optim.adan(rate, b, b, b, weight_decay=rate),
    "yogi": lambda rate, b: optim.yogi(rate, b, b),
    "novograd": lambda rate, b: optim.novograd(rate, b, b, weight_decay=rate),
    "rprop": lambda rate, b: optim.rprop(rate, b, 2 - b, rate / 8, 4 * rate, delayed=False),
    "asgd": lambda rate, b: optim.torch.asgd(rate, rate, b, t0=rate, weight_decay=rate),
    "sparse_adam": lambda rate, b: optim.torch.sparse_adam(rate, (b, b)),
    "adafactor": lambda rate, b: optim.torch.adafactor(rate, -b, (rate, rate), weight_decay=rate),
    "torch_sgd": lambda rate, b: optim.torch.sgd(rate, b, dampening=rate),
    "torch_adagrad": lambda rate, b: optim.torch.adagrad(rate, lr_decay=rate, initial_accumulator_value=rate),
    "torch_rmsprop": lambda rate, b: optim.torch.rmsprop(rate, b, momentum=b, centered=True, eps=rate),
    "ftrl": lambda rate, b: optim.keras.ftrl(rate, -b, rate, rate, rate, rate, rate, weight_decay=rate),
    "lion": lambda rate, b: optim.keras.lion(rate, b, clipnorm=rate),
    "lamb": lambda rate, b: optim.keras.lamb(rate, b, weight_decay=rate, global_clipnorm=rate),
    "keras_muon": lambda rate, b: optim.keras.muon(rate, b, momentum=b, adam_lr_ratio=b, weight_decay=rate),
    "schedule_free": lambda rate, b: optim.keras.schedule_free_adamw(rate, b, weight_decay=rate, clipvalue=rate),
}
START = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.3, -0.1])}


def after(tx, steps=1):
    p, state = START, tx.init(START)
    for _ in range(steps):
        updates, state = tx.update(jax.tree.map(lambda x: 2 * x - 1, p), state, p)
        p = optim.apply_updates(p, updates)
    return p


def test_hyperparameters_may_be_traced():
    """Two members of a vmap equal two plain runs, up to float32 roundings (1 - b^t is another expression)."""
    rates, b = [0.02, 0.1], [0.9, 0.75]

    def all_of_them(rate, b):
        return {name: after(make(rate, b)) for name, make in MAKE.items()}

    many = jax.jit(jax.vmap(all_of_them))(jnp.array(rates), jnp.array(b))
    for i in (1,):
        alone = jax.jit(lambda i=i: all_of_them(rates[i], b[i]))()
        for name, params in alone.items():
            for leaf, p in params.items():
                np.testing.assert_allclose(many[name][leaf][i], p, rtol=1e-5, atol=1e-5, err_msg=name)


def test_complex_parameters_equal_optax(x64):
    """Averages of |g|^2, as in optax where it says that complex numbers are supported."""
    p = {"z": jnp.array([1.0 + 2.0j, -0.5j])}
    for ours, theirs in (
        (optim.adabelief(0.1), optax.adabelief(0.1)),
        (optim.amsgrad(0.1), optax.amsgrad(0.1)),
        (optim.radam(0.1, b2=0.5), optax.radam(0.1, b2=0.5)),
        (optim.adan(0.1), optax.adan(0.1)),
        (optim.yogi(0.1), optax.yogi(0.1)),
        (optim.adamax(0.1), optax.adamax(0.1)),
    ):
        a, b, state, other = p, p, ours.init(p), theirs.init(p)
        for _ in range(3):
            g = jax.tree.map(lambda z: jnp.conj(z) - 1.0, a)
            updates, state = ours.update(g, state, a)
            with jax.numpy_dtype_promotion("standard"):
                expected, other = theirs.update(g, other, b)
            np.testing.assert_allclose(updates["z"], expected["z"], rtol=1e-12)
            a, b = optim.apply_updates(a, updates), optax.apply_updates(b, expected)


def test_rprop_has_no_complex_form():
    with pytest.raises(TypeError, match=r"^scale_by_rprop: .* real gradients"):
        optim.rprop(0.1).init({"z": jnp.ones(2, jnp.complex64)})


@pytest.mark.parametrize("b2", [0.5, 0.9, 0.99, 0.999, 0.9999])
@pytest.mark.parametrize("precise", [False, True])
def test_lengths_of_radam(b2, precise):
    """rho_t keeps the digits of its dtype where its formula, here with 60 digits, loses many."""
    t = np.unique(np.geomspace(1, 1e6, 60).astype(int))
    with decimal.localcontext(prec=60):
        b = decimal.Decimal(b2)
        limit = 2 / (1 - b) - 1
        expected = [float(limit - 2 * int(n) * b ** int(n) / (1 - b ** int(n))) for n in t]
    with jax.enable_x64(precise):
        found, got = jax.jit(jax.vmap(lambda count: lengths(b2, count)))(jnp.asarray(t, jnp.int32))
        rtol = 1e-13 if precise else 2e-6
        np.testing.assert_allclose(found, float(limit), rtol=rtol)
        np.testing.assert_allclose(got, expected, rtol=rtol)


def test_radam_is_momentum_until_the_squares_are_known():
    """At b2 = 0.999 for five steps (rho_5 = 4.996), also where b2 is too small for ever."""
    g = jnp.array([3.0, -1e-3])
    for b2, momentum in ((0.999, 5), (0.5, 12)):
        tx = optim.scale_by_radam(b1=0.0, b2=b2)
        state, plain = tx.init(g), []
        for _ in range(12):
            u, state = tx.update(g, state)
            plain.append(np.allclose(u, g, rtol=1e-6))
        assert plain == [True] * momentum + [False] * (12 - momentum)


def test_amsgrad_forms_part_where_the_first_gradient_is_large():
    """Corrected before the maximum, the first square stays; corrected after it, it fades as in Adam."""
    tx = {after: optim.scale_by_amsgrad(correct_after_max=after) for after in (False, True)}
    largest = {}
    for form, scaling in tx.items():
        state = scaling.init(jnp.ones(1))
        for g in (10.0, *([0.1] * 50)):
            _, state = scaling.update(jnp.full(1, g), state)
        largest[form] = float(state.nu_max[0])
    np.testing.assert_allclose(largest[False], 100.0, rtol=1e-6)
    np.testing.assert_allclose(largest[True], 0.1, rtol=1e-3)  # (1 - b2) 10^2, and fading


def test_nadam_without_a_rise_is_optax_s():
    """With momentum_decay = 0 the momentum is b1 / 2 from first to last; at a large one it is b1 at once."""
    g = jnp.array([2.0, -0.3])
    fixed, large = optim.scale_by_adam(nesterov=True), optim.scale_by_nadam(momentum_decay=1e4)
    a, b = fixed.init(g), large.init(g)
    for _ in range(3):
        expected, a = fixed.update(g, a)
        got, b = large.update(g, b)
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_novograd_keeps_one_number_an_array():
    tx = optim.novograd(0.1)
    state = tx.init(START)
    assert jax.tree.map(jnp.shape, state[0].nu) == {"w": (), "b": ()}
    decayed = optim.novograd(0.1, weight_decay=0.1)
    with pytest.raises(ValueError, match="reads the parameters"):
        decayed.update(START, decayed.init(START))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.adabelief(0.1, b1=1.0), "^scale_by_belief: b1 is 1.0, wanted 0 <= b1 < 1"),
        (lambda: optim.adadelta(rho=1.0), "^scale_by_adadelta: rho is 1.0"),
        (lambda: optim.adamax(0.1, eps=-1.0), "^scale_by_adamax: eps is -1.0, wanted 0 or more"),
        (lambda: optim.amsgrad(0.1, bias_correction_nu=False, tf_style=True), "^scale_by_amsgrad: correct_after_max"),
        (lambda: optim.nadam(0.1, nesterov=False, momentum_decay=1.0), "^nadam: momentum_decay=1.0 needs nesterov"),
        (lambda: optim.nadam(0.1, momentum_decay=-1.0), "^scale_by_nadam: momentum_decay is -1.0"),
        (lambda: optim.radam(0.1, threshold=3.0), "^scale_by_radam: threshold is 3.0, wanted 4 or more"),
        (lambda: optim.adan(0.1, b3=-0.1), "^scale_by_adan: b3 is -0.1"),
        (lambda: optim.scale_by_yogi(initial_accumulator_value=-1.0), "^scale_by_yogi: initial_acc"),
        (lambda: optim.novograd(0.1, weight_decay=-1.0), "^scale_by_novograd: weight_decay is -1.0"),
        (lambda: optim.rprop(0.1, eta_minus=0.0), "^scale_by_rprop: eta_minus is 0.0, wanted 0 < eta_minus < 1"),
        (lambda: optim.rprop(0.1, eta_plus=0.9), "^scale_by_rprop: eta_plus is 0.9, wanted 1 or more"),
        (lambda: optim.rprop(0.1, 0.5, 1.2, 1.0, 0.1), "^scale_by_rprop: min_step_size is 1.0, above"),
    ],
)
def test_hyperparameters_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
