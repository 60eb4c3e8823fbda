"""AdaBelief, Adadelta, Adamax, AMSGrad, NAdam, RAdam, Adan, Yogi, NovoGrad, Rprop with their options."""

import optax

from certificates.case import Case
from dlkit import optim

RATE = 0.02
TORCH = {name: optim.preset("torch", name) for name in ("amsgrad", "nadam", "radam", "rprop")}

CASES = [
    Case("adabelief(0.02)", optim.adabelief(RATE), lambda: optax.adabelief(RATE)),
    Case(
        "adabelief(0.02, nesterov=True)",
        optim.adabelief(RATE, nesterov=True),
        lambda: optax.adabelief(RATE, nesterov=True),
    ),
    Case(
        "adadelta(1.0, weight_decay=0.1)",
        optim.adadelta(1.0, weight_decay=0.1),
        lambda: optax.adadelta(1.0, weight_decay=0.1),
        ("Adadelta", {"weight_decay": 0.1}),
        ("Adadelta", {"learning_rate": 1.0, "weight_decay": 0.1}),
        differs={"keras": "rho 0.95, eps 1e-7, decoupled decay"},
    ),
    Case(
        "adamax(0.02)",
        optim.adamax(RATE),
        lambda: optax.adamax(RATE),
        ("Adamax", {"lr": RATE}),
    ),
    Case(
        "adamaxw(0.02, weight_decay=0.1)",
        optim.adamaxw(RATE, weight_decay=0.1),
        lambda: optax.adamaxw(RATE, weight_decay=0.1),
    ),
    Case(
        "amsgrad(0.02)",
        optim.amsgrad(RATE),
        lambda: optax.amsgrad(RATE),
        ("Adam", {"lr": RATE, "amsgrad": True}),
        ("Adam", {"learning_rate": RATE, "amsgrad": True}),
        differs={
            "torch": "the maximum is taken before the correction",
            "keras": "the same, and eps 1e-7 beside the uncorrected root",
        },
    ),
    Case(
        'amsgrad(0.02, **preset("torch", "amsgrad"))',
        optim.amsgrad(RATE, **TORCH["amsgrad"]),
        torch=("Adam", {"lr": RATE, "amsgrad": True}),
    ),
    Case(
        "nadam(0.02)",
        optim.nadam(RATE),
        lambda: optax.nadam(RATE),
        ("NAdam", {"lr": RATE}),
        ("Nadam", {"learning_rate": RATE}),
        differs={
            "torch": "the momentum rises, with momentum_decay 0.004",
            "keras": "the momentum rises, with momentum_decay 1; eps 1e-7",
        },
    ),
    Case(
        'nadam(0.02, **preset("torch", "nadam"), l2=0.1)',
        optim.nadam(RATE, **TORCH["nadam"], l2=0.1),
        torch=("NAdam", {"lr": RATE, "weight_decay": 0.1}),
    ),
    Case(
        "nadamw(0.02, weight_decay=0.1)",
        optim.nadamw(RATE, weight_decay=0.1),
        lambda: optax.nadamw(RATE, weight_decay=0.1),
    ),
    Case(
        "radam(exponential_decay(0.02, 10, 0.5))",
        optim.radam(optim.exponential_decay(RATE, 10, 0.5)),
        lambda: optax.radam(lambda count: RATE * 0.5 ** (count / 10.0)),
    ),
    Case(
        "radam(0.02, b2=0.9, nesterov=True)",
        optim.radam(RATE, b2=0.9, nesterov=True),
        lambda: optax.radam(RATE, b2=0.9, nesterov=True),
    ),
    Case(
        'radam(0.02, **preset("torch", "radam"), l2=0.1)',
        optim.radam(RATE, **TORCH["radam"], l2=0.1),
        torch=("RAdam", {"lr": RATE, "weight_decay": 0.1}),
    ),
    Case(
        "adan(0.02, weight_decay=0.1)",
        optim.adan(RATE, weight_decay=0.1),
        lambda: optax.adan(RATE, weight_decay=0.1),
    ),
    Case("yogi(0.02)", optim.yogi(RATE), lambda: optax.yogi(RATE)),
    Case(
        "novograd(0.02, weight_decay=0.1)",
        optim.novograd(RATE, weight_decay=0.1),
        lambda: optax.novograd(RATE, weight_decay=0.1),
    ),
    Case(
        "rprop(0.02)",
        optim.rprop(RATE),
        lambda: optax.rprop(RATE),
        ("Rprop", {"lr": RATE}),
        differs={"torch": "optax 0.2.8 takes every step one update late"},
        tolerance32=5e-6,  # a step size is a product of up to 50 factors, each rounded
    ),
    Case(
        'rprop(0.02, **preset("torch", "rprop"))',
        optim.rprop(RATE, **TORCH["rprop"]),
        torch=("Rprop", {"lr": RATE}),
    ),
]
