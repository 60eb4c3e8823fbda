"""Signs, trust ratios, Adafactor, SM3, noise, optimism, Polyak's step, Muon, GaLore, steepest descent."""

import warnings

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from certificates.case import Case
from dlkit import optim

RATE = 0.05
MASK = {"mlp": {"hidden": True, "out": False}, "quadratic": True, "rosenbrock": False}
SCHEDULE = optim.cosine_decay_schedule(0.02, 40)
# The average in float64: in float32, whether a last digit is rounded up or down is chance.
AVERAGED = {"momentum": 0.9, "dtype_momentum": "float64", "weight_decay_rate": 0.01}
LINEAR = optim.linear_schedule(0.1, 0.01, 30)
KERAS_DECAY = "decay 0.004, momentum without bias correction, another scale"

# Newton-Schulz multiplies a small singular value by up to 3.4445 in each of its five steps, 500 in all, and so the
# rounding of it: float32's 6e-8 becomes 3e-5.
NEWTON_SCHULZ = 1e-4
# Roundings of Adam's direction, of two norms and of their ratio add up.
LENGTHS = 2e-6


def in_full(count, power):
    """Adafactor's decay in the default float dtype: in float64 here."""
    return 1 - (count + 1).astype(jnp.result_type(float)) ** -power


def old_optimistic_adam():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optax.optimistic_adam(0.02, 0.03)


def of_matrices(params):
    """What `muon` leaves to Adam here: the output layer, and every vector."""
    numbers = jax.tree.map(lambda _: None, params)
    numbers["mlp"]["hidden"]["w"] = contrib.MuonDimensionNumbers(0, 1)
    return numbers


NUMBERS = {
    "mlp": {"hidden": {"b": None, "w": optim.MuonDimensionNumbers(1, 0)}, "out": None},
    "quadratic": None,
    "rosenbrock": None,
}
OPTAX_NUMBERS = {
    "mlp": {"hidden": {"b": None, "w": contrib.MuonDimensionNumbers(1, 0)}, "out": None},
    "quadratic": None,
    "rosenbrock": None,
}

CASES = [
    Case("sign_sgd(linear_schedule(0.1, 0.01, 30))", optim.sign_sgd(LINEAR), lambda: optax.sign_sgd(LINEAR)),
    Case("signum(0.05, beta=0.8)", optim.signum(RATE, 0.8), lambda: optax.signum(RATE, 0.8)),
    Case(
        "lion(0.05, weight_decay=0)",
        optim.lion(RATE, weight_decay=0.0),
        lambda: optax.lion(RATE, weight_decay=0.0),
        keras=("Lion", {"learning_rate": RATE}),
    ),
    Case(
        "lion(cosine_decay_schedule(0.02, 40), b1=0.8, weight_decay=0.1, mask=...)",
        optim.lion(SCHEDULE, 0.8, weight_decay=0.1, mask=MASK),
        lambda: optax.lion(SCHEDULE, 0.8, weight_decay=0.1, mask=MASK),
        keras=("Lion", {"learning_rate": 0.02, "beta_1": 0.8, "weight_decay": 0.1}),
        differs={"keras": "a constant rate, decay of everything"},
    ),
    Case(
        "lars(0.05, weight_decay=0.01, trust_coefficient=0.1, trust_ratio_mask=...)",
        optim.lars(RATE, 0.01, trust_coefficient=0.1, trust_ratio_mask=MASK),
        lambda: optax.lars(RATE, 0.01, trust_coefficient=0.1, trust_ratio_mask=MASK),
    ),
    Case(
        "lars(linear_schedule(0.1, 0.01, 30), weight_decay_mask=..., nesterov=True)",
        optim.lars(LINEAR, 0.1, MASK, 0.1, 1e-3, nesterov=True),
        lambda: optax.lars(LINEAR, 0.1, MASK, 0.1, 1e-3, nesterov=True),
    ),
    Case(
        "lamb(0.05, eps=1e-7)",
        optim.lamb(RATE, eps=1e-7),
        lambda: optax.lamb(RATE, eps=1e-7),
        keras=("Lamb", {"learning_rate": RATE}),
        tolerance32=LENGTHS,
    ),
    Case(
        "lamb(cosine_decay_schedule(0.02, 40), weight_decay=0.1, mask=...)",
        optim.lamb(SCHEDULE, weight_decay=0.1, mask=MASK),
        lambda: optax.lamb(SCHEDULE, weight_decay=0.1, mask=MASK),
        tolerance32=LENGTHS,
    ),
    Case("fromage(0.05)", optim.fromage(RATE), lambda: optax.fromage(RATE)),
    Case("fromage(cosine_decay_schedule(0.02, 40))", optim.fromage(SCHEDULE), lambda: optax.fromage(SCHEDULE)),
    Case(
        "adafactor(0.05, min_dim_size_to_factor=1)",
        optim.adafactor(RATE, 1),
        lambda: optax.adafactor(RATE, 1),
        ("Adafactor", {"lr": RATE}),
        ("Adafactor", {"learning_rate": RATE}),
        differs={"torch": "its decay is in float64, optax's in float32", "keras": "as torch; its means are in float32"},
    ),
    Case(
        "adafactor(0.05, min_dim_size_to_factor=1), from its links, with a decay in float64",
        optim.chain(
            optim.scale_by_factored_rms(min_dim_size_to_factor=1, decay_rate_fn=in_full),
            optim.clip_by_block_rms(1.0),
            optim.scale_by_param_block_rms(),
            optim.scale_by_learning_rate(RATE),
        ),
        torch=("Adafactor", {"lr": RATE}),
        fully=True,
    ),
    Case(
        "adafactor(linear_schedule(0.1, 0.01, 30), 2, momentum=0.9, weight_decay_rate=0.01, ...)",
        optim.adafactor(LINEAR, 2, weight_decay_mask=MASK, **AVERAGED),
        lambda: optax.adafactor(LINEAR, 2, weight_decay_mask=MASK, **AVERAGED),
    ),
    Case("sm3(0.1)", optim.sm3(0.1), lambda: optax.sm3(0.1)),
    Case(
        "noisy_sgd(0.05, key=7)",
        optim.noisy_sgd(RATE, key=7),
        lambda: optax.noisy_sgd(RATE, key=7),
        tolerance32=None,  # a key gives other numbers in float32 than in float64: test_norms.py compares in float32
    ),
    Case(
        "optimistic_gradient_descent(0.05, alpha=0.8, beta=0.5)",
        optim.optimistic_gradient_descent(RATE, 0.8, 0.5),
        lambda: optax.optimistic_gradient_descent(RATE, 0.8, 0.5),
    ),
    Case("optimistic_adam(0.02, 0.03)", optim.optimistic_adam(0.02, 0.03), old_optimistic_adam),
    Case(
        "optimistic_adam_v2(cosine_decay_schedule(0.02, 40), beta=0.5)",
        optim.optimistic_adam_v2(SCHEDULE, beta=0.5),
        lambda: optax.optimistic_adam_v2(SCHEDULE, beta=0.5),
    ),
    Case("polyak_sgd()", optim.polyak_sgd(), lambda: optax.polyak_sgd(), value=True, fully=True),
    Case(
        'polyak_sgd(0.1, linear_schedule(0.1, 0.01, 30), 0.2, 1e-3, "sps+")',
        optim.polyak_sgd(0.1, LINEAR, 0.2, 1e-3, "sps+"),
        lambda: optax.polyak_sgd(0.1, LINEAR, 0.2, 1e-3, "sps+"),
        value=True,
    ),
    Case(
        "muon(0.05)",
        optim.muon(RATE),
        lambda: contrib.muon(RATE),
        keras=("Muon", {"learning_rate": RATE}),
        differs={"keras": KERAS_DECAY},
        tolerance32=NEWTON_SCHULZ,
    ),
    Case(
        'muon(0.05, "dion", nesterov=False, adaptive=True, preconditioning="aol", weight_decay=0.1)',
        optim.muon(RATE, "dion", nesterov=False, adaptive=True, preconditioning="aol", weight_decay=0.1),
        lambda: contrib.muon(RATE, "dion", nesterov=False, adaptive=True, preconditioning="aol", weight_decay=0.1),
        tolerance32=NEWTON_SCHULZ,
    ),
    Case(
        'muon(cosine_decay_schedule(0.02, 40), preconditioning="spectral", consistent_rms=0.2, ...)',
        optim.muon(
            SCHEDULE,
            ns_steps=4,
            beta=0.8,
            preconditioning="spectral",
            consistent_rms=0.2,
            adam_learning_rate=0.03,
            adam_weight_decay=0.1,
            muon_weight_dimension_numbers=NUMBERS,
        ),
        lambda: contrib.muon(
            SCHEDULE,
            ns_steps=4,
            beta=0.8,
            preconditioning="spectral",
            consistent_rms=0.2,
            adam_learning_rate=0.03,
            adam_weight_decay=0.1,
            muon_weight_dimension_numbers=OPTAX_NUMBERS,
        ),
        tolerance32=NEWTON_SCHULZ,
    ),
    Case(
        'muon(0.01, preconditioning="schatten", muon_weight_dimension_numbers=of_matrices)',
        optim.muon(0.01, preconditioning="schatten", muon_weight_dimension_numbers=of_matrices),
        lambda: contrib.muon(0.01, preconditioning="schatten", muon_weight_dimension_numbers=of_matrices),
        tolerance32=NEWTON_SCHULZ,
    ),
    Case("galore(0.05, rank=2)", optim.galore(RATE, 2), lambda: contrib.galore(RATE, 2)),
    Case(
        "galore(0.05, rank=1, update_proj_gap=20, scale=0.5, base_optimizer=trace(0.9), weight_decay=0.1, mask=...)",
        optim.galore(RATE, 1, 20, 0.5, optim.trace(0.9), 0.1, MASK),
        lambda: contrib.galore(RATE, 1, 20, 0.5, optax.trace(0.9), 0.1, MASK),
    ),
    Case(
        "steepest_descent(0.05, momentum=0.9)",
        optim.steepest_descent(RATE, momentum=0.9),
        lambda: optax.sgd(RATE, 0.9),
        ("SGD", {"lr": RATE, "momentum": 0.9}),
        ("SGD", {"learning_rate": RATE, "momentum": 0.9}),
        flags={"optax": "sgd", "torch": "SGD", "keras": "SGD"},
        fully=True,
    ),
    Case(
        'steepest_descent(linear_schedule(0.1, 0.01, 30), "linf", scaling="unit")',
        optim.steepest_descent(LINEAR, "linf", scaling="unit"),
        lambda: optax.sign_sgd(LINEAR),
        flags={"optax": "sign_sgd"},
    ),
]
