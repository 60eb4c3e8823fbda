"""Adam and AdamW: where eps stands, both decays, Nesterov, schedules, masks."""

import jax
import optax

from certificates.case import Case
from certificates.schedules import STEP, keras_step, optax_step, precise
from dlkit import optim

RATE = 0.05
KERAS = optim.preset("keras", "adam")
NO_BIAS = "**/w"


def no_bias(params):
    """What the glob says, in optax's words."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key == "w", params)


CASES = [
    Case(
        "adam(0.05)",
        optim.adam(RATE),
        lambda: optax.adam(RATE),
        ("Adam", {"lr": RATE}),
        ("Adam", {"learning_rate": RATE}),
        differs={"keras": "eps 1e-7, beside the uncorrected root"},
    ),
    Case(
        'adam(0.05, **preset("keras", "adam"))',
        optim.adam(RATE, **KERAS),
        keras=("Adam", {"learning_rate": RATE}),
    ),
    Case(
        "adam(0.05, eps=0.1)",
        optim.adam(RATE, eps=0.1),
        lambda: optax.adam(RATE, eps=0.1),
        ("Adam", {"lr": RATE, "eps": 0.1}),
        ("Adam", {"learning_rate": RATE, "epsilon": 0.1}),
        differs={"keras": "eps stands beside the uncorrected root"},
    ),
    Case(
        "adam(0.05, eps=0.1, tf_style=True)",
        optim.adam(RATE, eps=0.1, tf_style=True),
        keras=("Adam", {"learning_rate": RATE, "epsilon": 0.1}),
    ),
    Case(
        "adam(0.05, 0.8, 0.95, eps_root=0.001)",
        optim.adam(RATE, 0.8, 0.95, eps_root=1e-3),
        lambda: optax.adam(RATE, 0.8, 0.95, eps_root=1e-3),
    ),
    Case(
        "adam(0.05, b1=0.0)",
        optim.adam(RATE, b1=0.0),
        lambda: optax.adam(RATE, b1=0.0),
        ("Adam", {"lr": RATE, "betas": (0.0, 0.999)}),
    ),
    Case(
        "adam(0.05, nesterov=True)",
        optim.adam(RATE, nesterov=True),
        lambda: optax.adam(RATE, nesterov=True),
    ),
    Case(
        "adam(0.05, l2=0.1)",
        optim.adam(RATE, l2=0.1),
        lambda: optax.chain(optax.add_decayed_weights(0.1), optax.adam(RATE)),
        ("Adam", {"lr": RATE, "weight_decay": 0.1}),
        flags={"optax": "chain(add_decayed_weights(0.1), ...)", "torch": "weight_decay=0.1"},
    ),
    Case(
        "adam(step_decay(0.05, 15, 0.2), 0.8, 0.95)",
        optim.adam(optim.step_decay(RATE, 15, 0.2), 0.8, 0.95),
        lambda: optax.adam(optax_step(RATE), 0.8, 0.95),
        ("Adam", {"lr": RATE, "betas": (0.8, 0.95)}),
        torch_schedule=STEP,
    ),
    Case(
        "adamw(0.05, weight_decay=0.01)",
        optim.adamw(RATE, weight_decay=0.01),
        lambda: optax.adamw(RATE, weight_decay=0.01),
        ("AdamW", {"lr": RATE}),
    ),
    Case(
        'adamw(0.05, weight_decay=0.2, mask="**/w")',
        optim.adamw(RATE, weight_decay=0.2, mask=NO_BIAS),
        lambda: optax.adamw(RATE, weight_decay=0.2, mask=no_bias),
    ),
    Case(
        "adamw(step_decay(0.05, 15, 0.2), weight_decay=0.2)",
        optim.adamw(optim.step_decay(RATE, 15, 0.2), weight_decay=0.2),
        lambda: optax.adamw(optax_step(RATE), weight_decay=0.2),
        ("AdamW", {"lr": RATE, "weight_decay": 0.2}),
        torch_schedule=STEP,
    ),
    Case(
        'adamw(step_decay(0.05, 15, 0.2), weight_decay=0.2, **preset("keras", "adam"))',
        optim.adamw(optim.step_decay(RATE, 15, 0.2), weight_decay=0.2, **KERAS),
        keras=("AdamW", {"learning_rate": keras_step(RATE), "weight_decay": 0.2}),
    ),
    Case(
        'adamw(cosine_decay_schedule(0.05, 50), weight_decay=0.1, mask="**/w", nesterov=True)',
        optim.adamw(optim.cosine_decay_schedule(RATE, 50), weight_decay=0.1, mask=NO_BIAS, nesterov=True),
        lambda: optax.adamw(
            precise(optax.cosine_decay_schedule(RATE, 50)), weight_decay=0.1, mask=no_bias, nesterov=True
        ),
    ),
    Case(
        "chain(clip_by_global_norm(0.5), adamw(0.05))",
        optim.chain(optim.clip_by_global_norm(0.5), optim.adamw(RATE)),
        lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(RATE)),
    ),
    Case(
        'chain(masked(scale_by_adam(), "**/w"), scale(-0.05))',
        optim.chain(optim.masked(optim.scale_by_adam(), NO_BIAS), optim.scale(-RATE)),
        lambda: optax.chain(optax.masked(optax.scale_by_adam(), no_bias), optax.scale(-RATE)),
    ),
]
