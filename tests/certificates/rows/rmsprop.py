"""RMSProp: eps inside and outside of the root, centered, with momentum, corrected."""

import optax

from certificates.case import Case
from certificates.schedules import STEP, keras_step, optax_step, precise
from dlkit import optim

TORCH = optim.preset("torch", "rmsprop")
TORCH_LARGE = {**TORCH, "eps": 1e-2}
CANCELS = 5e-6  # nu - mu^2 is rounded as nu is, which is larger
CENTERED = {"eps": 1e-2, "centered": True}

CASES = [
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
        optim.rmsprop(0.01, **TORCH),
        lambda: optax.rmsprop(0.01, 0.99, eps_in_sqrt=False),
        ("RMSprop", {"lr": 0.01}),
        flags={"optax": "decay=0.99, eps_in_sqrt=False"},
    ),
    Case(
        "rmsprop(0.02, 0.8, eps=0.01, initial_scale=0.5, eps_in_sqrt=False)",
        optim.rmsprop(0.02, 0.8, 1e-2, 0.5, eps_in_sqrt=False),
        lambda: optax.rmsprop(0.02, 0.8, 1e-2, 0.5, eps_in_sqrt=False),
    ),
    Case(
        "rmsprop(0.02, eps=0.01, centered=True)",
        optim.rmsprop(0.02, **CENTERED),
        lambda: optax.rmsprop(0.02, **CENTERED),
        ("RMSprop", {"lr": 0.02, **CENTERED}),
        ("RMSprop", {"learning_rate": 0.02, "epsilon": 1e-2, "centered": True}),
        differs={"torch": "decay 0.99, eps outside of the root"},
        tolerance32=CANCELS,
    ),
    Case(
        'rmsprop(0.02, **{**preset("torch", "rmsprop"), "eps": 0.01}, centered=True, l2=0.1)',
        optim.rmsprop(0.02, **TORCH_LARGE, centered=True, l2=0.1),
        torch=("RMSprop", {"lr": 0.02, **CENTERED, "weight_decay": 0.1}),
        flags={"torch": "weight_decay=0.1"},
    ),
    Case(
        "rmsprop(0.02, eps=0.01, momentum=0.9)",
        optim.rmsprop(0.02, eps=1e-2, momentum=0.9),
        lambda: optax.rmsprop(0.02, eps=1e-2, momentum=0.9),
        keras=("RMSprop", {"learning_rate": 0.02, "epsilon": 1e-2, "momentum": 0.9}),
        fully=True,
    ),
    Case(
        "rmsprop(cosine_decay_schedule(0.02, 50), momentum=0.9, nesterov=True)",
        optim.rmsprop(optim.cosine_decay_schedule(0.02, 50), momentum=0.9, nesterov=True),
        lambda: optax.rmsprop(precise(optax.cosine_decay_schedule(0.02, 50)), momentum=0.9, nesterov=True),
    ),
    Case(
        "rmsprop(step_decay(0.02, 15, 0.2), eps=0.01, centered=True, momentum=0.9)",
        optim.rmsprop(optim.step_decay(0.02, 15, 0.2), **CENTERED, momentum=0.9),
        lambda: optax.rmsprop(optax_step(0.02), **CENTERED, momentum=0.9),
        keras=("RMSprop", {"learning_rate": keras_step(0.02), "epsilon": 1e-2, "centered": True, "momentum": 0.9}),
        tolerance32=CANCELS,
    ),
    Case(
        'rmsprop(step_decay(0.02, 15, 0.2), **{**preset("torch", "rmsprop"), "eps": 0.01}, momentum=0.9)',
        optim.rmsprop(optim.step_decay(0.02, 15, 0.2), **TORCH_LARGE, momentum=0.9),
        torch=("RMSprop", {"lr": 0.02, "eps": 1e-2, "momentum": 0.9}),
        torch_schedule=STEP,
    ),
    Case(
        "rmsprop(0.02, eps=0.01, eps_in_sqrt=False, bias_correction=True)",
        optim.rmsprop(0.02, eps=1e-2, eps_in_sqrt=False, bias_correction=True),
        lambda: optax.rmsprop(0.02, eps=1e-2, eps_in_sqrt=False, bias_correction=True),
    ),
    Case(
        "rmsprop(0.02, eps=0.01, centered=True, bias_correction=True)",
        optim.rmsprop(0.02, **CENTERED, bias_correction=True),
        lambda: optax.rmsprop(0.02, **CENTERED, bias_correction=True),
        tolerance32=CANCELS,
    ),
]
