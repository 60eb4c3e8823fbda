"""50-step trajectories equal torch's, in float64."""

import numpy as np
import pytest
from support.optimizers import some, torch_trajectory, trajectory
from support.reference import reference

from dlkit import optim
from dlkit.optim import preset

RMS = {**preset("torch", "rmsprop"), "eps": 1e-2}

# name: (ours, the torch class, its arguments, (StepLR's step size, gamma) or None)
CASES = {
    "sgd": (optim.sgd(0.05, **preset("torch", "sgd")), "SGD", {"lr": 0.05}, None),
    "sgd_momentum": (optim.sgd(0.05, 0.9), "SGD", {"lr": 0.05, "momentum": 0.9}, None),
    "sgd_nesterov": (optim.sgd(0.05, 0.9, True), "SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}, None),
    "sgd_dampening": (
        optim.sgd(0.05, 0.9, dampening=0.3),
        "SGD",
        {"lr": 0.05, "momentum": 0.9, "dampening": 0.3},
        None,
    ),
    "sgd_l2": (optim.sgd(0.05, 0.9, l2=0.1), "SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}, None),
    "sgd_step": (
        optim.sgd(optim.step_decay(0.05, 15, 0.2), 0.9),
        "SGD",
        {"lr": 0.05, "momentum": 0.9},
        (15, 0.2),
    ),
    "adagrad": (optim.adagrad(0.3, **preset("torch", "adagrad")), "Adagrad", {"lr": 0.3}, None),
    "adagrad_options": (
        optim.adagrad(0.3, 0.2, 1e-2, eps_in_sqrt=False, l2=0.1),
        "Adagrad",
        {"lr": 0.3, "initial_accumulator_value": 0.2, "eps": 1e-2, "weight_decay": 0.1},
        None,
    ),
    "rmsprop": (optim.rmsprop(0.02, **preset("torch", "rmsprop")), "RMSprop", {"lr": 0.02}, None),
    "rmsprop_large_eps": (optim.rmsprop(0.02, **RMS), "RMSprop", {"lr": 0.02, "eps": 1e-2}, None),
    "rmsprop_centered": (
        optim.rmsprop(0.02, **RMS, centered=True, l2=0.1),
        "RMSprop",
        {"lr": 0.02, "eps": 1e-2, "centered": True, "weight_decay": 0.1},
        None,
    ),
    "rmsprop_momentum_step": (
        optim.rmsprop(optim.step_decay(0.02, 15, 0.2), **RMS, momentum=0.9),
        "RMSprop",
        {"lr": 0.02, "eps": 1e-2, "momentum": 0.9},
        (15, 0.2),
    ),
    "adam": (optim.adam(0.05, **preset("torch", "adam")), "Adam", {"lr": 0.05}, None),
    "adam_large_eps": (optim.adam(0.05, eps=0.1), "Adam", {"lr": 0.05, "eps": 0.1}, None),
    "adam_betas": (optim.adam(0.05, 0.8, 0.95), "Adam", {"lr": 0.05, "betas": (0.8, 0.95)}, None),
    "adam_l2": (optim.adam(0.05, l2=0.1), "Adam", {"lr": 0.05, "weight_decay": 0.1}, None),
    "adamw": (optim.adamw(0.05, **preset("torch", "adamw")), "AdamW", {"lr": 0.05}, None),
    "adamw_decay_step": (
        optim.adamw(optim.step_decay(0.05, 15, 0.2), weight_decay=0.2),
        "AdamW",
        {"lr": 0.05, "weight_decay": 0.2},
        (15, 0.2),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_torch(case, x64):
    ours, name, arguments, steps = CASES[case]

    def compute():
        import torch

        schedule = steps and (lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, *steps))
        return torch_trajectory(lambda p: getattr(torch.optim, name)(p, **arguments), schedule)

    expected, got = reference(f"optim/{case}", compute), some(trajectory(ours))
    for leaf in ("w", "b"):
        np.testing.assert_allclose(got[leaf], expected[leaf], rtol=0, atol=1e-12)
