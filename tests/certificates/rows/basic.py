"""SGD, Adagrad, RMSProp, Adam and AdamW with their options."""

import optax

from certificates.case import Case
from dlkit import optim

RATE = 0.05
TORCH_RMS, KERAS_ADAM = optim.preset("torch", "rmsprop"), optim.preset("keras", "adam")
NO_NESTEROV = "torch and Keras vary the momentum by a schedule"

CASES = [
    Case(
        "sgd(0.05)",
        optim.sgd(RATE),
        lambda: optax.sgd(RATE),
        ("SGD", {"lr": RATE}),
        ("SGD", {"learning_rate": RATE}),
    ),
    Case(
        "sgd(0.05, momentum=0.9)",
        optim.sgd(RATE, 0.9),
        lambda: optax.sgd(RATE, 0.9),
        ("SGD", {"lr": RATE, "momentum": 0.9}),
        ("SGD", {"learning_rate": RATE, "momentum": 0.9}),
    ),
    Case(
        "sgd(0.05, momentum=0.9, nesterov=True)",
        optim.sgd(RATE, 0.9, True),
        lambda: optax.sgd(RATE, 0.9, True),
        ("SGD", {"lr": RATE, "momentum": 0.9, "nesterov": True}),
        ("SGD", {"learning_rate": RATE, "momentum": 0.9, "nesterov": True}),
    ),
    Case(
        "rmsprop(0.01)",
        optim.rmsprop(0.01),
        lambda: optax.rmsprop(0.01),
        ("RMSprop", {"lr": 0.01}),
        ("RMSprop", {"learning_rate": 0.01}),
        differs={"torch": "decay 0.99, eps outside of the root", "keras": "eps 1e-7"},
    ),
    Case(
        'rmsprop(0.01, **preset("torch", "rmsprop"))',
        optim.rmsprop(0.01, **TORCH_RMS),
        lambda: optax.rmsprop(0.01, 0.99, eps_in_sqrt=False),
        ("RMSprop", {"lr": 0.01}),
        flags={"optax": "decay=0.99, eps_in_sqrt=False"},
    ),
    Case(
        "adam(0.05)",
        optim.adam(RATE),
        lambda: optax.adam(RATE),
        ("Adam", {"lr": RATE}),
        ("Adam", {"learning_rate": RATE}),
        differs={"keras": "eps 1e-7, beside the uncorrected root"},
    ),
    Case(
        "adamw(0.05, weight_decay=0.01)",
        optim.adamw(RATE, weight_decay=0.01),
        lambda: optax.adamw(RATE, weight_decay=0.01),
        ("AdamW", {"lr": RATE}),
    ),
]
