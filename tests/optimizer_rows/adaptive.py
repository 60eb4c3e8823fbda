"""AdaBelief, Adadelta, Adamax, AMSGrad, NAdam, RAdam, Adan, Yogi, NovoGrad, Rprop."""

from dlkit import optim
from optimizer_rows.paths import ADAM, LR, at

NADAM = [*ADAM, "momentum_product"]
TORCH_AMSGRAD = optim.preset("torch", "amsgrad")

RECIPES = {
    "adabelief": (optim.adabelief(0.1, nesterov=True, l2=1e-4), at([], ADAM, LR)),
    "adadelta": (optim.adadelta(0.3, eps=0.1, weight_decay=1e-4), at([], ["e_g/w", "e_x/w"], LR)),
    "adamax": (optim.adamax(0.1, l2=1e-4), at([], ADAM, LR)),
    "adamaxw_keras": (optim.adamaxw(0.1, weight_decay=1e-4, **optim.preset("keras", "adamax")), at(ADAM, [], LR)),
    "amsgrad": (optim.amsgrad(0.1, mu_dtype="bfloat16", weight_decay=1e-4), at([*ADAM, "nu_max/w"], [], LR)),
    "amsgrad_torch": (optim.amsgrad(0.1, l2=1e-4, **TORCH_AMSGRAD), at([], [*ADAM, "nu_max/w"], LR)),
    "nadam_torch": (optim.nadam(0.1, momentum_decay=4e-3, mu_dtype="bfloat16"), at(NADAM, LR)),
    "nadamw": (optim.nadamw(0.1), at(ADAM, [], LR)),
    "radam": (optim.radam(0.1, tf_style=True, nesterov=True, weight_decay=1e-4), at(ADAM, [], LR)),
    "adan": (optim.adan(0.1, b1=0.9, weight_decay=1e-4), at(["m/w", "v/w", "n/w", "g/w", "t"], [], LR)),
    "yogi": (optim.yogi(0.1, l2=1e-4), at([], ADAM, LR)),
    "novograd": (
        optim.novograd(optim.exponential_decay(0.1, 20, 0.5), weight_decay=1e-4),
        at(["count", "mu/w", "nu/w"], LR),
    ),
    "rprop": (optim.rprop(0.1, delayed=False), at(["step_sizes/w", "prev_updates/w"], [])),
    "rprop_optax": (optim.rprop(0.1), at(["step_sizes/w", "prev_updates/w"], [])),
}

BLOCKS = {}
