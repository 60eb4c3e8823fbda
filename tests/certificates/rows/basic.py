"""SGD and Adagrad with their options: both forms of momentum, under a schedule too."""

import optax

from certificates.case import Case
from certificates.schedules import STEP, keras_step, optax_step, precise
from dlkit import optim

RATE = 0.05
WARM = {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 5, "decay_steps": 40, "end_value": 0.01}
STEPPED = optim.step_decay(RATE, 15, 0.2)
ADAGRAD = optim.preset("torch", "adagrad")

SGD = [
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
        fully=True,
    ),
    Case(
        "sgd(0.05, momentum=0.9, nesterov=True)",
        optim.sgd(RATE, 0.9, True),
        lambda: optax.sgd(RATE, 0.9, True),
        ("SGD", {"lr": RATE, "momentum": 0.9, "nesterov": True}),
        ("SGD", {"learning_rate": RATE, "momentum": 0.9, "nesterov": True}),
    ),
    Case(
        "sgd(0.05, momentum=0.9, dampening=0.3, l2=0.1)",
        optim.sgd(RATE, 0.9, dampening=0.3, l2=0.1),
        torch=("SGD", {"lr": RATE, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
        flags={"torch": "weight_decay=0.1"},
    ),
    Case(
        "sgd(0.05, momentum=0.9, nesterov=True, l2=0.1)",
        optim.sgd(RATE, 0.9, True, l2=0.1),
        lambda: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(RATE, 0.9, True)),
        ("SGD", {"lr": RATE, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        flags={"optax": "chain(add_decayed_weights(0.1), ...)", "torch": "weight_decay=0.1"},
    ),
    Case(
        "sgd(step_decay(0.05, 15, 0.2), momentum=0.9)",
        optim.sgd(STEPPED, 0.9),
        lambda: optax.sgd(optax_step(RATE), 0.9),
        ("SGD", {"lr": RATE, "momentum": 0.9}),
        ("SGD", {"learning_rate": keras_step(RATE), "momentum": 0.9}),
        differs={"keras": "the rate enters the velocity"},
        torch_schedule=STEP,
        fully=True,
    ),
    Case(
        "sgd(step_decay(0.05, 15, 0.2), momentum=0.9, lr_in_velocity=True)",
        optim.sgd(STEPPED, 0.9, lr_in_velocity=True),
        lambda: optax.chain(optax.scale_by_learning_rate(optax_step(RATE)), optax.trace(0.9)),
        ("SGD", {"lr": RATE, "momentum": 0.9}),
        ("SGD", {"learning_rate": keras_step(RATE), "momentum": 0.9}),
        flags={"optax": "chain(scale_by_learning_rate(...), trace(0.9))"},
        differs={"torch": "the rate scales the velocity"},
        torch_schedule=STEP,
        tolerance32=5e-6,  # the velocity keeps the roundings of updates that were five times as long
    ),
    Case(
        "sgd(step_decay(0.05, 15, 0.2), momentum=0.9, nesterov=True)",
        optim.sgd(STEPPED, 0.9, True),
        lambda: optax.sgd(optax_step(RATE), 0.9, True),
        ("SGD", {"lr": RATE, "momentum": 0.9, "nesterov": True}),
        torch_schedule=STEP,
    ),
    Case(
        "sgd(step_decay(0.05, 15, 0.2), momentum=0.9, nesterov=True, lr_in_velocity=True)",
        optim.sgd(STEPPED, 0.9, True, lr_in_velocity=True),
        keras=("SGD", {"learning_rate": keras_step(RATE), "momentum": 0.9, "nesterov": True}),
    ),
    Case(
        "sgd(warmup_cosine_decay_schedule(0.0, 0.1, 5, 40, 0.01), momentum=0.9)",
        optim.sgd(optim.warmup_cosine_decay_schedule(**WARM), 0.9),
        lambda: optax.sgd(precise(optax.warmup_cosine_decay_schedule(**WARM)), 0.9),
        fully=True,
    ),
    Case(
        "chain(trace(0.5), scale_by_schedule(linear_schedule(-0.1, 0.0, 50)))",
        optim.chain(optim.trace(0.5), optim.scale_by_schedule(optim.linear_schedule(-0.1, 0.0, 50))),
        lambda: optax.chain(optax.trace(0.5), optax.scale_by_schedule(precise(optax.linear_schedule(-0.1, 0.0, 50)))),
    ),
    Case(
        "chain(clip(0.5), sgd(0.05))",
        optim.chain(optim.clip(0.5), optim.sgd(RATE)),
        lambda: optax.chain(optax.clip(0.5), optax.sgd(RATE)),
        keras=("SGD", {"learning_rate": RATE, "clipvalue": 0.5}),
        flags={"keras": "clipvalue=0.5"},
    ),
    Case(
        "chain(clip_by_global_norm(0.5), sgd(0.05))",
        optim.chain(optim.clip_by_global_norm(0.5), optim.sgd(RATE)),
        lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(RATE)),
        keras=("SGD", {"learning_rate": RATE, "global_clipnorm": 0.5}),
        flags={"keras": "global_clipnorm=0.5"},
    ),
]

CASES = [
    *SGD,
    Case(
        "adagrad(0.3)",
        optim.adagrad(0.3),
        lambda: optax.adagrad(0.3),
        ("Adagrad", {"lr": 0.3}),
        ("Adagrad", {"learning_rate": 0.3}),
        differs={"torch": "the sum starts from 0, eps outside of the root"},
    ),
    Case(
        "adagrad(0.3, initial_accumulator_value=0.5, eps=0.01)",
        optim.adagrad(0.3, 0.5, 1e-2),
        lambda: optax.adagrad(0.3, 0.5, 1e-2),
        keras=("Adagrad", {"learning_rate": 0.3, "initial_accumulator_value": 0.5, "epsilon": 1e-2}),
    ),
    Case(
        'adagrad(0.3, **preset("torch", "adagrad"))',
        optim.adagrad(0.3, **ADAGRAD),
        torch=("Adagrad", {"lr": 0.3}),
    ),
    Case(
        "adagrad(0.3, 0.2, 0.01, eps_in_sqrt=False, l2=0.1)",
        optim.adagrad(0.3, 0.2, 1e-2, eps_in_sqrt=False, l2=0.1),
        torch=("Adagrad", {"lr": 0.3, "initial_accumulator_value": 0.2, "eps": 1e-2, "weight_decay": 0.1}),
        flags={"torch": "weight_decay=0.1"},
    ),
    Case(
        "adagrad(step_decay(0.3, 15, 0.2))",
        optim.adagrad(optim.step_decay(0.3, 15, 0.2)),
        lambda: optax.adagrad(optax_step(0.3)),
    ),
]
