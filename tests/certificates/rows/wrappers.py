"""Wrappers that other libraries have as options of their optimizers: accumulation, hyperparameters as data."""

import optax

from certificates.case import Case
from dlkit import optim

RATE = 0.05

CASES = [
    Case(
        "multi_steps(sgd(0.05, momentum=0.9), 2)",
        optim.multi_steps(optim.sgd(RATE, 0.9), 2),
        lambda: optax.MultiSteps(optax.sgd(RATE, 0.9), 2, accumulator_dtype=None).gradient_transformation(),
        keras=("SGD", {"learning_rate": RATE, "momentum": 0.9, "gradient_accumulation_steps": 2}),
        flags={"keras": "gradient_accumulation_steps=2", "optax": "accumulator_dtype=None"},
        fully=True,
    ),
    Case(
        "inject_hyperparams(adam)(0.05)",
        optim.inject_hyperparams(optim.adam)(RATE),
        lambda: optax.inject_hyperparams(optax.adam)(RATE),
        ("Adam", {"lr": RATE}),
    ),
]
