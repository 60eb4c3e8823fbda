"""optax.contrib's rules. What torch and Keras lack has no column there."""

import jax.numpy as jnp
import optax
from optax import contrib

from certificates.case import Case
from dlkit import optim

RATE = 0.05
FLOAT32 = 1e-7  # optax computes eta sqrt(t) in float32
SUMS = 1e-4  # the state holds sums, or parameters, that float32 rounds in every step
HESSIAN = 1e-4  # second derivatives in float32, over an average of them
CANCELS = 1e-3  # f + <d, p> - c: float32 sums that nearly cancel


def falling(t):
    return RATE / (1 + jnp.asarray(t, jnp.result_type(float)) / 10)


def warming(t):
    return RATE * jnp.minimum(1, (jnp.asarray(t, jnp.result_type(float))) / 5)


def rising(t):
    return 1 - 1 / (5 + jnp.asarray(t, jnp.result_type(float)))


CASES = [
    Case(
        "schedule_free_sgd(0.05, weight_decay=0.01)",
        optim.schedule_free_sgd(RATE, weight_decay=0.01),
        lambda: contrib.schedule_free_sgd(RATE, weight_decay=0.01),
        tolerance32=SUMS,
    ),
    Case(
        "schedule_free(sgd(schedule), schedule)",
        optim.schedule_free(optim.sgd(warming), warming),
        lambda: contrib.schedule_free(optax.sgd(warming), warming),
        differs={"optax": "it weighs update t by schedule(t + 1)"},
        tolerance32=None,  # other steps: nothing to compare
    ),
    Case(
        "schedule_free(sgd(schedule), schedule, first_count=1)",
        optim.schedule_free(optim.sgd(warming), warming, first_count=1),
        lambda: contrib.schedule_free(optax.sgd(warming), warming),
        tolerance32=SUMS,
    ),
    Case(
        "schedule_free_adamw(0.05)",
        optim.schedule_free_adamw(RATE),
        lambda: contrib.schedule_free_adamw(RATE),
        keras=("ScheduleFreeAdamW", {"learning_rate": RATE}),
    ),
    Case(
        "prodigy(schedule, estim_lr0=0.01, weight_decay=0.1, safeguard_warmup=True)",
        optim.prodigy(lambda t: 10 * falling(t), estim_lr0=0.01, weight_decay=0.1, safeguard_warmup=True),
        lambda: contrib.prodigy(lambda t: 10 * falling(t), estim_lr0=0.01, weight_decay=0.1, safeguard_warmup=True),
    ),
    Case(
        "dadapt_adamw(0.1, estim_lr0=0.01, weight_decay=0.1)",
        optim.dadapt_adamw(0.1, estim_lr0=0.01, weight_decay=0.1),
        lambda: contrib.dadapt_adamw(0.1, estim_lr0=0.01, weight_decay=0.1),
    ),
    Case(
        'dog(0.5, ("learning_rate", 0.01), weight_decay=0.1)',
        optim.dog(0.5, ("learning_rate", 0.01), weight_decay=0.1),
        lambda: contrib.dog(0.5, ("learning_rate", 0.01), weight_decay=0.1),
    ),
    Case("dowg()", optim.dowg(), lambda: contrib.dowg()),
    Case(
        "scale_by_distance_over_gradients(0.01, global_scale=-1)",
        optim.scale_by_distance_over_gradients(0.01, param_dtype="float64", global_scale=-1),
        lambda: optax.scale_by_distance_over_gradients(0.01, param_dtype=jnp.float64, global_scale=-1.0),
    ),
    Case(
        "mechanize(adam(1.0), weight_decay=0.1, num_betas=3)",
        optim.mechanize(optim.adam(1.0), weight_decay=0.1, num_betas=3),
        lambda: contrib.mechanize(optax.adam(1.0), weight_decay=0.1, num_betas=3),
        tolerance32=SUMS,
    ),
    Case(
        "cocob(0.5, alpha=10, weight_decay=0.1)",
        optim.cocob(0.5, alpha=10.0, weight_decay=0.1),
        lambda: contrib.cocob(0.5, alpha=10.0, weight_decay=0.1),
        tolerance32=SUMS,
    ),
    Case(
        "momo(0.1, lower_bound=-5, weight_decay=0.1, adapt_lower_bound=True)",
        optim.momo(0.1, lower_bound=-5, weight_decay=0.1, adapt_lower_bound=True),
        lambda: contrib.momo(0.1, lower_bound=-5.0, weight_decay=0.1, adapt_lower_bound=True),
        value=True,
        tolerance32=CANCELS,
    ),
    Case(
        "momo_adam(1.0, lower_bound=-5, weight_decay=0.1, adapt_lower_bound=True)",
        optim.momo_adam(1.0, lower_bound=-5.0, weight_decay=0.1, adapt_lower_bound=True),
        lambda: contrib.momo_adam(1.0, lower_bound=-5.0, weight_decay=0.1, adapt_lower_bound=True),
        value=True,
        tolerance32=CANCELS,
    ),
    Case(
        "ademamix(schedule, b3=schedule, alpha=2, weight_decay=0.1)",
        optim.ademamix(falling, b3=rising, alpha=2.0, weight_decay=0.1),
        lambda: contrib.ademamix(falling, b3=rising, alpha=2.0, weight_decay=0.1),
    ),
    Case(
        "simplified_ademamix(0.01, alpha=2)",
        optim.simplified_ademamix(0.01, alpha=2.0),
        lambda: contrib.simplified_ademamix(0.01, alpha=2.0),
    ),
    Case("adopt(0.05, nesterov=True)", optim.adopt(RATE, nesterov=True), lambda: contrib.adopt(RATE, nesterov=True)),
    Case(
        "acprop(0.01, eps=0.001, eps_root=0.001, weight_decay=0.1)",
        optim.acprop(0.01, eps=1e-3, eps_root=1e-3, weight_decay=0.1),
        lambda: contrib.acprop(0.01, eps=1e-3, eps_root=1e-3, weight_decay=0.1),
    ),
    Case(
        "madgrad(0.05, weight_decay=0.1)",
        optim.madgrad(RATE, weight_decay=0.1),
        lambda: contrib.madgrad(RATE, weight_decay=0.1),
        tolerance=FLOAT32,
        tolerance32=SUMS,
    ),
    Case(
        "sam(adam(0.05), chain(normalize(), sgd(0.05)))",
        optim.sam(optim.adam(RATE), optim.chain(optim.normalize(), optim.sgd(RATE))),
        lambda: contrib.sam(optax.adam(RATE), optax.chain(contrib.normalize(), optax.sgd(RATE))),
    ),
    Case(
        "sam(adam(0.05), sgd(0.01, 0.5), 3, reset_state=False, opaque_mode=True)",
        optim.sam(optim.adam(RATE), optim.sgd(0.01, 0.5), 3, False, True),
        lambda: contrib.sam(optax.adam(RATE), optax.sgd(0.01, 0.5), 3, False, True),
        functions=True,
        fully=True,
    ),
    Case(
        "sophia(0.05, gamma=0.1, update_interval=3)",
        optim.sophia(RATE, gamma=0.1, update_interval=3),
        lambda: contrib.sophia(RATE, gamma=0.1, update_interval=3),
        functions=True,
        tolerance32=HESSIAN,
    ),
    Case(
        "chain(sgd(0.05), reduce_on_plateau(0.5, patience=2))",
        optim.chain(optim.sgd(RATE), optim.reduce_on_plateau(0.5, patience=2, rtol=0.01)),
        lambda: optax.chain(optax.sgd(RATE), contrib.reduce_on_plateau(0.5, patience=2, rtol=0.01)),
        value=True,
    ),
]
