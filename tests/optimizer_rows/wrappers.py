"""Wrappers: groups of leaves, groups of steps, hyperparameters as data, averages, reports."""

import jax
import jax.numpy as jnp

from dlkit import optim
from optimizer_rows.paths import ADAM, LR, at


def even(step):
    return step % 2 == 0


def signs(updates, params):
    return jax.tree.map(jnp.sign, updates)


def decayed(update, param):
    return update + 0.5 * param.astype(update.dtype)


def by_rank(params):
    return jax.tree.map(lambda p: "matrix" if jnp.ndim(p) > 1 else "vector", params)


def matrices(params):
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


SCALE = [f"loss_scale/{name}" for name in ("scale", "finite_steps", "last_finite", "skipped")]
INJECTED = ["count", *(f"hyperparams/{name}" for name in ("b1", "b2", "eps", "learning_rate"))]

RECIPES = {
    "named_chain": (
        optim.named_chain(("clip", optim.clip_by_global_norm(1.0)), ("adam", optim.adam(0.1))),
        ["clip/norm", *(f"adam/{path}" for path in at(ADAM, LR))],
    ),
    "partition": (
        optim.partition({"matrix": optim.adam(0.1), "vector": optim.sgd(0.1)}, by_rank),
        [
            *(f"inner_states/matrix/inner_state/{path}" for path in at(["count"], LR)),
            *(f"inner_states/vector/inner_state/{path}" for path in at(LR)),
        ],
    ),
    "flatten": (
        optim.flatten(optim.adam(0.1)),
        at(["count", "mu", "nu"], LR),
    ),
    "multi_steps": (
        optim.multi_steps(optim.adam(0.2), 2),
        [
            "mini_step",
            "gradient_step",
            "acc_grads/w",
            "acc_weight",
            *(f"inner_opt_state/{path}" for path in at(ADAM, LR)),
        ],
    ),
    "inject_hyperparams": (
        optim.inject_hyperparams(optim.adam)(0.1),
        [*INJECTED, *(f"inner_state/{path}" for path in at(ADAM, LR))],
    ),
    "inject_hyperparams_schedule": (
        optim.inject_hyperparams(optim.sgd)(optim.linear_schedule(0.1, 0.05, 100), 0.5),
        [
            "count",
            "hyperparams/learning_rate",
            "hyperparams/momentum",
            *(f"inner_state/{path}" for path in at(["trace/w"], LR)),
        ],
    ),
    "apply_if_finite": (
        optim.apply_if_finite(optim.adam(0.1), 3),
        [
            "notfinite_count",
            "last_finite",
            "total_notfinite",
            *(f"inner_state/{path}" for path in at(ADAM, LR)),
        ],
    ),
    "dynamic_loss_scale": (
        optim.dynamic_loss_scale(optim.adam(0.1), optim.LossScale(1.0, growth_interval=10**6)),
        [*SCALE, *(f"inner_state/{path}" for path in at(ADAM, LR))],
    ),
    "lookahead": (
        optim.lookahead(optim.adam(0.2), 5, 0.5),
        ["steps_since_sync", "slow/w", *(f"fast_state/{path}" for path in at(ADAM, LR))],
    ),
    "with_report": (
        optim.with_report(optim.adam(0.1)),
        ["count", "grad_norm", "update_norm", *(f"inner_state/{path}" for path in at(ADAM, LR))],
    ),
    "average_params": (
        optim.chain(optim.adam(0.1), optim.average_params(0.9, warmup=True)),
        [f"0/{path}" for path in at(ADAM, LR)] + ["1/count", "1/averaged", "1/average/w"],
    ),
    "project": (
        optim.chain(optim.adam(0.1), optim.project(optim.projections.projection_box, lower=-5.0, upper=5.0)),
        [f"0/{path}" for path in at(ADAM, LR)],
    ),
}

BLOCKS = {
    "stateless": (optim.stateless(signs), []),
    "stateless_with_tree_map": (optim.stateless_with_tree_map(decayed), []),
    "with_extra_args_support": (optim.with_extra_args_support(optim.trace(0.5)), ["trace/w"]),
    "freeze": (optim.freeze("**/w"), []),
    "selective_transform": (
        optim.selective_transform(optim.trace(0.9), freeze_mask=matrices),
        ["inner_state/trace/w"],
    ),
    "conditionally_mask": (
        optim.conditionally_mask(optim.trace(0.9), even),
        ["step", "inner_state/trace/w"],
    ),
    "conditionally_transform": (
        optim.conditionally_transform(optim.trace(0.9), even),
        ["step", "inner_state/trace/w"],
    ),
    "apply_every": (optim.apply_every(2), ["count", "grad_acc/w"]),
    "ema": (optim.ema(0.9), ["count", "ema/w"]),
    "snapshot": (optim.snapshot("norm", optim.global_norm), ["measurement/norm"]),
    "monitor": (
        optim.monitor({"norm": optim.global_norm, "mean": optim.measure_with_ema(optim.global_norm, 0.9)}),
        ["measurements/norm", "measurements/mean", "measure_states/1/count", "measure_states/1/ema"],
    ),
    "keep_params_nonnegative": (optim.keep_params_nonnegative(), []),
    "proximal": (optim.proximal(optim.prox_l1, 0.1, 0.5), ["count"]),
    "scale_by_depth": (optim.scale_by_depth(0.5, ("**",)), []),
}
