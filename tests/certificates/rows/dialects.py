"""torch's optimizers beside `optim.torch`, Keras's beside `optim.keras`, with their options."""

from typing import Any

from certificates.case import Case
from dlkit import optim

HALVED = ("ExponentialLR", {"gamma": 0.5**0.1})


def halved(rate: float) -> Any:
    return optim.exponential_decay(rate, 10, 0.5)


def keras_halved(rate: float) -> Any:
    return lambda keras: keras.optimizers.schedules.ExponentialDecay(rate, 10, 0.5)


def of_torch(call: str, ours: Any, name: str, scheduled: bool = False, **arguments: Any) -> Case:
    return Case(f"torch.{call}", ours, torch=(name, arguments), torch_schedule=HALVED if scheduled else None)


def of_keras(call: str, ours: Any, name: str, tolerance: float = 1e-12, **arguments: Any) -> Case:
    return Case(f"keras.{call}", ours, keras=(name, arguments), tolerance=tolerance)


# Outside of TensorFlow, Keras takes the mean and the norm of float64 arrays in float32.
FLOAT32_INSIDE = 1e-6


t, k = optim.torch, optim.keras

CASES = [
    of_torch(
        "sgd(halved(0.05), momentum=0.9, dampening=0.3, weight_decay=0.1)",
        t.sgd(halved(0.05), momentum=0.9, dampening=0.3, weight_decay=0.1),
        "SGD",
        scheduled=True,
        lr=0.05,
        momentum=0.9,
        dampening=0.3,
        weight_decay=0.1,
    ),
    of_torch(
        "adam(0.02, weight_decay=0.1, amsgrad=True, maximize=True)",
        t.adam(0.02, weight_decay=0.1, amsgrad=True, maximize=True),
        "Adam",
        lr=0.02,
        weight_decay=0.1,
        amsgrad=True,
        maximize=True,
    ),
    of_torch(
        "adamw(halved(0.02), (0.8, 0.95), eps=0.1, amsgrad=True)",
        t.adamw(halved(0.02), (0.8, 0.95), eps=0.1, amsgrad=True),
        "AdamW",
        scheduled=True,
        lr=0.02,
        betas=(0.8, 0.95),
        eps=0.1,
        amsgrad=True,
    ),
    of_torch("adamax(weight_decay=0.1)", t.adamax(weight_decay=0.1), "Adamax", weight_decay=0.1),
    of_torch(
        "nadam(0.02, weight_decay=0.1, decoupled_weight_decay=True)",
        t.nadam(0.02, weight_decay=0.1, decoupled_weight_decay=True),
        "NAdam",
        lr=0.02,
        weight_decay=0.1,
        decoupled_weight_decay=True,
    ),
    of_torch(
        "radam(halved(0.02), weight_decay=0.1, decoupled_weight_decay=True)",
        t.radam(halved(0.02), weight_decay=0.1, decoupled_weight_decay=True),
        "RAdam",
        scheduled=True,
        lr=0.02,
        weight_decay=0.1,
        decoupled_weight_decay=True,
    ),
    of_torch(
        "adagrad(0.1, lr_decay=0.1, weight_decay=0.1)",
        t.adagrad(0.1, lr_decay=0.1, weight_decay=0.1),
        "Adagrad",
        lr=0.1,
        lr_decay=0.1,
        weight_decay=0.1,
    ),
    of_torch("adadelta(maximize=True)", t.adadelta(maximize=True), "Adadelta", maximize=True),
    of_torch(
        "rmsprop(0.01, eps=0.01, weight_decay=0.1, momentum=0.9, centered=True)",
        t.rmsprop(0.01, eps=0.01, weight_decay=0.1, momentum=0.9, centered=True),
        "RMSprop",
        lr=0.01,
        eps=0.01,
        weight_decay=0.1,
        momentum=0.9,
        centered=True,
    ),
    of_torch("rprop(maximize=True)", t.rprop(maximize=True), "Rprop", maximize=True),
    of_torch(
        "asgd(halved(0.05), lambd=0.1, t0=20, weight_decay=0.1)",
        t.asgd(halved(0.05), lambd=0.1, t0=20, weight_decay=0.1),
        "ASGD",
        scheduled=True,
        lr=0.05,
        lambd=0.1,
        t0=20,
        weight_decay=0.1,
    ),
    of_torch("sparse_adam(0.02)", t.sparse_adam(0.02), "SparseAdam", lr=0.02),
    of_torch(
        "adafactor(halved(0.1), weight_decay=0.1)",
        t.adafactor(halved(0.1), weight_decay=0.1),
        "Adafactor",
        scheduled=True,
        lr=0.1,
        weight_decay=0.1,
    ),
    of_keras(
        "sgd(halved(0.05), momentum=0.9, nesterov=True, weight_decay=0.1)",
        k.sgd(halved(0.05), momentum=0.9, nesterov=True, weight_decay=0.1),
        "SGD",
        learning_rate=keras_halved(0.05),
        momentum=0.9,
        nesterov=True,
        weight_decay=0.1,
    ),
    of_keras(
        "rmsprop(0.01, momentum=0.9, epsilon=0.01, centered=True, weight_decay=0.1)",
        k.rmsprop(0.01, momentum=0.9, epsilon=0.01, centered=True, weight_decay=0.1),
        "RMSprop",
        learning_rate=0.01,
        momentum=0.9,
        epsilon=0.01,
        centered=True,
        weight_decay=0.1,
    ),
    of_keras("rmsprop()", k.rmsprop(), "RMSprop"),
    of_keras("adam(0.02, epsilon=0.1)", k.adam(0.02, epsilon=0.1), "Adam", learning_rate=0.02, epsilon=0.1),
    of_keras(
        "adam(halved(0.02), amsgrad=True, weight_decay=0.1)",
        k.adam(halved(0.02), amsgrad=True, weight_decay=0.1),
        "Adam",
        learning_rate=keras_halved(0.02),
        amsgrad=True,
        weight_decay=0.1,
    ),
    of_keras(
        "adamw(0.02, global_clipnorm=0.5)",
        k.adamw(0.02, global_clipnorm=0.5),
        "AdamW",
        learning_rate=0.02,
        global_clipnorm=0.5,
    ),
    of_keras(
        "adadelta(1.0, clipvalue=0.5)",
        k.adadelta(1.0, clipvalue=0.5),
        "Adadelta",
        learning_rate=1.0,
        clipvalue=0.5,
    ),
    of_keras("adagrad(0.1, clipnorm=0.5)", k.adagrad(0.1, clipnorm=0.5), "Adagrad", learning_rate=0.1, clipnorm=0.5),
    of_keras("adamax(0.02, epsilon=0.1)", k.adamax(0.02, epsilon=0.1), "Adamax", learning_rate=0.02, epsilon=0.1),
    of_keras("nadam(0.02)", k.nadam(0.02), "Nadam", learning_rate=0.02),
    of_keras(
        "adafactor(0.03, weight_decay=0.1)",
        k.adafactor(0.03, weight_decay=0.1),
        "Adafactor",
        FLOAT32_INSIDE,
        learning_rate=0.03,
        weight_decay=0.1,
    ),
    of_keras(
        "ftrl(0.5, l1=0.1, l2=0.1, l2_shrinkage=0.01, beta=0.1, weight_decay=0.1)",
        k.ftrl(0.5, -0.5, 0.1, 0.1, 0.1, 0.01, 0.1, weight_decay=0.1),
        "Ftrl",
        learning_rate=0.5,
        l1_regularization_strength=0.1,
        l2_regularization_strength=0.1,
        l2_shrinkage_regularization_strength=0.01,
        beta=0.1,
        weight_decay=0.1,
    ),
    of_keras(
        "lion(0.01, weight_decay=0.1)", k.lion(0.01, weight_decay=0.1), "Lion", learning_rate=0.01, weight_decay=0.1
    ),
    of_keras(
        "lamb(0.02, weight_decay=0.1)", k.lamb(0.02, weight_decay=0.1), "Lamb", learning_rate=0.02, weight_decay=0.1
    ),
    of_keras(
        "muon(0.02, weight_decay=0.1)",
        k.muon(0.02, weight_decay=0.1),
        "Muon",
        FLOAT32_INSIDE,
        learning_rate=0.02,
        weight_decay=0.1,
    ),
    of_keras(
        "schedule_free_adamw(0.05, warmup_steps=10, weight_decay=0.1)",
        k.schedule_free_adamw(0.05, warmup_steps=10, weight_decay=0.1),
        "ScheduleFreeAdamW",
        learning_rate=0.05,
        warmup_steps=10,
        weight_decay=0.1,
    ),
]
