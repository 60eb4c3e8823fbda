"""Learning-rate-free and schedule-free rules, SAM, Sophia, privacy, plateaus: optax.contrib's, and what it lacks."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dlkit import optim
from optimizer_rows.paths import ADAM, LR, at


def bowl(params):
    squares = [jnp.sum(jnp.real(leaf * jnp.conj(leaf))) for leaf in jax.tree.leaves(params)]
    return sum(squares[1:], squares[0]) if squares else jnp.zeros(())


def uphill(params, i):
    return jax.grad(bowl)(params)


@dataclass(frozen=True)
class PerExample(optim.Transform[Any]):
    """Gives `inner` two examples of which each gradient is the mean."""

    inner: Any

    def init(self, params):
        return self.inner.init(params)

    def update(self, grads, state, params=None):
        return self.inner.update(jax.tree.map(lambda g: jnp.stack([g * 0.5, g * 1.5]), grads), state, params)


CURVED = {"obj_fn": bowl}
MEASURED = {"value": 1.0}
NORMED = optim.chain(optim.normalize(), optim.sgd(0.01))
FREE = ["b1", "weight_sum", "step_count", "max_lr", "z/w"]
MOMO = ["exp_avg/w", "barf", "gamma", "lb", "count"]
ADAPTED = ["exp_avg/w", "exp_avg_sq/w", "grad_sum/w", "estim_lr", "numerator_weighted", "count"]
SOPHIA = ["count", "mu/w", "nu/w", "hessian_fn_state/key"]


def below(name: str, paths: list[str]) -> list[str]:
    return [f"{name}/{path}" for path in paths]


MECHANIC = [*below("base_optimizer_state", at(LR)), "count", "r", "m", "v", "s", "x0/w"]

RECIPES = {
    "schedule_free_sgd": (
        optim.schedule_free_sgd(0.1, 5, weight_decay=1e-4),
        [*FREE, *below("base_optimizer_state", at([], LR))],
    ),
    "schedule_free_adamw": (
        optim.schedule_free_adamw(0.1),
        [*FREE, *below("base_optimizer_state", at(ADAM, [], LR))],
    ),
    "prodigy": (optim.prodigy(estim_lr0=1e-2), [*ADAPTED, "params0/w"]),
    "dadapt_adamw": (optim.dadapt_adamw(estim_lr0=1e-2), ADAPTED),
    "dog": (
        optim.dog(init_step=("distance", 0.1)),
        at(["is_init_step", "init_params/w", "max_dist", "sum_sq_norm_grads"], LR),
    ),
    "dowg": (optim.dowg(init_estim_sq_dist=0.01), at(["init_params/w", "weighted_sq_norm_grads", "estim_sq_dist"], LR)),
    "mechanize": (optim.mechanize(optim.sgd(1.0), s_init=1e-2), MECHANIC),
    "cocob": (
        optim.cocob(),
        at([], LR, ["init_particles/w", "cumulative_gradients/w", "scale/w", "subgradients/w", "reward/w"]),
    ),
    "momo": (optim.momo(0.5, weight_decay=1e-5, lower_bound=-1.0, adapt_lower_bound=True), MOMO, MEASURED),
    "momo_adam": (optim.momo_adam(0.3), [*MOMO, "exp_avg_sq/w"], MEASURED),
    "ademamix": (
        optim.ademamix(0.1, alpha=0.5, b3=0.99),
        at(["count", "count_m2", "m1/w", "m2/w", "nu/w"], [], LR),
    ),
    "simplified_ademamix": (
        optim.simplified_ademamix(0.02, b1=0.9, alpha=1.0, eps=1e-2),
        at(["t", "m/w", "n/w"], [], LR),
    ),
    "adopt": (optim.adopt(0.1, mu_dtype="bfloat16", nesterov=True), at(ADAM, LR)),
    "acprop": (optim.acprop(0.03, eps=1e-4, eps_root=1e-4), at(ADAM, [], LR)),
    "madgrad": (optim.madgrad(0.1), at([], ["count", "grad_sum_sq/w", "s/w", "x0/w"])),
    "sam": (
        optim.sam(optim.adam(0.2), NORMED),
        ["steps_since_sync", "cache/w", *below("opt_state", at(ADAM, LR)), *below("adv_state/1", at(LR))],
    ),
    "asam": (
        optim.asam(optim.sgd(0.1), rho=0.01, opaque_mode=True),
        ["steps_since_sync", *below("opt_state", at(LR))],
        {"grad_fn": uphill},
    ),
    "sophia": (
        optim.sophia(0.1, gamma=1.0, update_interval=2, weight_decay=0.0),
        at(SOPHIA, [], LR),
        CURVED,
    ),
    "adahessian": (
        optim.adahessian(0.1, update_interval=3, hessian_power=0.5, spatial_averaging=True),
        at([*SOPHIA, "diagonal/w"], [], LR),
        CURVED,
    ),
}
BLOCKS = {
    "normalize_adaptively": (optim.normalize_adaptively(), []),
    "scale_by_distance_over_gradients": (
        optim.scale_by_distance_over_gradients(1e-2),
        ["max_dist/w", "grad_sum_of_squares/w", "init_params/w"],
    ),
    "hutchinson": (optim.hutchinson_estimator_diag_hessian(3), ["key"], CURVED),
    "differentially_private_aggregate": (
        PerExample(optim.differentially_private_aggregate(1.0, 0.5, jax.random.key(1))),
        ["rng_key"],
    ),
    "dpsgd": (PerExample(optim.dpsgd(0.1, 1.0, 0.5, 2, momentum=0.9)), at(["rng_key"], ["trace/w"], LR)),
    "reduce_on_plateau": (
        optim.reduce_on_plateau(patience=1, rtol=0.0, atol=1e-3),
        ["scale", "best_value", "plateau_count", "cooldown_count", "count", "avg_value"],
        MEASURED,
    ),
    "split_real_and_imaginary": (optim.split_real_and_imaginary(optim.adam(0.1)), below("inner_state", at(ADAM, LR))),
}
