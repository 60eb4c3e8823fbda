"""Signs, trust ratios, Adafactor, SM3, Muon, GaLore, steepest descent; what is done to whole blocks of a gradient."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dlkit import optim
from dlkit.optim.rules.muon import Matrices
from optimizer_rows.paths import ADAM, LR, at

FALLING = optim.linear_schedule(0.1, 0.0, 200)
OF_MUON = [f"1/inner_state/{path}" for path in at(ADAM, [], LR)]  # a vector goes to AdamW
OF_MUON += ["0/inner_state/0/count", *(f"0/inner_state/3/{path}" for path in LR)]


@dataclass(frozen=True)
class WithValue(optim.Transform[Any]):
    """Gives `inner` a value that follows from the gradients, for what needs `value=`."""

    inner: Any

    def init(self, params):
        return self.inner.init(params)

    def update(self, grads, state, params=None):
        total = sum((jnp.sum(jnp.abs(g).astype(jnp.float32)) for g in jax.tree.leaves(grads)), jnp.float32(0))
        return self.inner.update(grads, state, params, value=total)


RECIPES = {
    "sign_sgd": (optim.sign_sgd(FALLING), at([], LR)),
    "signum": (optim.signum(FALLING), at(["trace/w"], [], LR)),
    "lion": (optim.lion(FALLING, weight_decay=1e-4), at(["mu/w"], [], LR)),
    "lars": (
        optim.lars(FALLING, 1e-4, trust_coefficient=0.1, trust_ratio_mask=optim.WEIGHTS),
        at([], [], LR, ["trace/w"]),
    ),
    "lamb": (optim.lamb(FALLING), at(ADAM, [], [], LR)),
    "fromage": (optim.fromage(FALLING, min_norm=1.0), at([], LR, ["count"])),
    "adafactor": (optim.adafactor(optim.linear_schedule(0.5, 0.0, 200)), at(["count", "v/w"], [], LR, [])),
    "adafactor_momentum": (
        optim.adafactor(0.1, momentum=0.9, weight_decay_rate=1e-5, multiply_by_parameter_scale=False),
        at(["count", "v/w"], [], LR, [], ["trace/w"]),
    ),
    "sm3": (optim.sm3(0.5), at(["mu/w/0", "nu/w"], LR)),
    "noisy_sgd": (optim.noisy_sgd(0.1, eta=1e-4, key=0), at(["count", "rng_key"], LR)),
    "optimistic_gradient_descent": (
        optim.optimistic_gradient_descent(0.1),
        at(["is_initial_step", "previous_gradient/w"], LR),
    ),
    "optimistic_adam": (optim.optimistic_adam(0.05), at(ADAM, ["is_initial_step", "previous_gradient/w"], [])),
    "optimistic_adam_v2": (optim.optimistic_adam_v2(0.05), at(ADAM, ["is_initial_step", "previous_gradient/w"], LR)),
    "muon": (optim.muon(0.1), OF_MUON),
    "galore": (optim.galore(0.1, 1, 2), at(["count", *(f"base_optimizer_state/{p}" for p in ADAM)], [], LR)),
    "steepest_l2": (optim.steepest_descent(0.1), at([], LR)),
    "steepest_linf": (optim.steepest_descent(FALLING, "linf", 0.9, scaling="unit"), at(["trace/w"], [], LR)),
    "steepest_spectral": (optim.steepest_descent(0.05, "spectral", across="l2"), at([], LR)),
    "cautious": (optim.cautious(optim.sgd(0.03, 0.9)), [f"inner_state/{path}" for path in at(["trace/w"], LR)]),
    "grokfast": (
        optim.chain(optim.grokfast(), optim.scale_by_learning_rate(0.03)),
        at(["is_initial_step", "mu/w"], LR),
    ),
}

BLOCKS = {
    "scale_by_lion_smooth": (optim.scale_by_lion(mode="smooth", mu_dtype="bfloat16"), ["mu/w"]),
    "scale_by_factored_rms": (optim.scale_by_factored_rms(min_dim_size_to_factor=2), ["count", "v/w"]),
    "polyak_sgd": (WithValue(optim.polyak_sgd(0.5, 1.0, 0.1, 1e-3, "sps+")), [f"0/{path}" for path in at(LR)]),
    "scale_by_muon_adaptive": (
        optim.masked(optim.scale_by_muon(adaptive=True, preconditioning="schatten"), Matrices(None)),
        ["inner_state/count"],
    ),
    "scale_by_shape": (optim.masked(optim.scale_by_shape(None, 0.2), Matrices(None)), []),
    "scale_by_dual": (optim.scale_by_dual("spectral", orthogonalize="newton_schulz"), []),
    "scale_by_param_block_norm": (optim.scale_by_param_block_norm(), []),
    "scale_by_param_block_rms": (optim.scale_by_param_block_rms(), []),
    "clip_by_block_rms": (optim.clip_by_block_rms(0.5), []),
    "adaptive_grad_clip": (optim.adaptive_grad_clip(0.1), []),
    "normalize_by_update_norm": (optim.normalize_by_update_norm(2.0), []),
    "normalize": (optim.normalize(), []),
    "centralize": (optim.centralize(-1), []),
    "zero_nans": (optim.zero_nans(), ["found_nan/w"]),
}
