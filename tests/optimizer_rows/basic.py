"""SGD, Adagrad, RMSProp, Adam, AdamW; scaling, clipping, decay, masks."""

from dlkit import optim
from optimizer_rows.paths import ADAM, LR, at

RECIPES = {
    "sgd": (optim.sgd(0.1), at(LR)),
    "sgd_momentum": (optim.sgd(0.03, 0.9), at(["trace/w"], LR)),
    "sgd_nesterov": (optim.sgd(0.03, 0.9, nesterov=True, l2=1e-3), at([], ["trace/w"], LR)),
    "sgd_dampening": (optim.sgd(0.1, 0.9, dampening=0.5), at(["trace/w", "count"], LR)),
    "sgd_lr_in_velocity": (optim.sgd(0.03, 0.9, lr_in_velocity=True), at(LR, ["trace/w"])),
    "adagrad": (optim.adagrad(0.5), at(["sum_of_squares/w"], LR)),
    "adagrad_torch": (optim.adagrad(0.5, **optim.preset("torch", "adagrad")), at(["sum_of_squares/w"], LR)),
    "rmsprop": (optim.rmsprop(0.03), at(["nu/w"], LR)),
    "rmsprop_torch": (optim.rmsprop(0.03, **optim.preset("torch", "rmsprop")), at(["nu/w"], LR)),
    "rmsprop_corrected": (optim.rmsprop(0.03, bias_correction=True), at(["nu/w", "count"], LR)),
    "rmsprop_centered_momentum": (
        optim.rmsprop(0.01, eps=1e-2, centered=True, momentum=0.9),
        at(["mu/w", "nu/w"], LR, ["trace/w"]),
    ),
    "adam": (optim.adam(0.1), at(ADAM, LR)),
    "adam_l2": (optim.adam(0.1, l2=1e-3, mask="**/w"), at([], ADAM, LR)),
    "adam_tf": (optim.adam(0.1, **optim.preset("keras", "adam")), at(ADAM, LR)),
    "nadam": (optim.adam(0.1, nesterov=True), at(ADAM, LR)),
    "adamw": (optim.adamw(0.1, weight_decay=1e-3, mask=optim.WEIGHTS), at(ADAM, [], LR)),
    "adamw_schedule": (
        optim.adamw(optim.warmup_cosine_decay_schedule(0.01, 0.2, 10, 200), mu_dtype="bfloat16"),
        at(ADAM, [], LR),
    ),
    "clip_adamw": (
        optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(0.1)),
        ["0/norm", *(f"1/{path}" for path in at(ADAM, [], LR))],
    ),
}

BLOCKS = {
    "identity": (optim.identity(), []),
    "set_to_zero": (optim.set_to_zero(), []),
    "scale": (optim.scale(-0.5), []),
    "scale_by_schedule": (optim.scale_by_schedule(optim.linear_schedule(1.0, 0.5, 3)), ["count"]),
    "scale_by_learning_rate": (optim.scale_by_learning_rate(0.1, flip_sign=False), LR),
    "clip": (optim.clip(0.5), []),
    "clip_by_global_norm": (optim.clip_by_global_norm(0.5), ["norm"]),
    "add_decayed_weights": (optim.add_decayed_weights(0.1, mask=("**/w",)), []),
    "add_decayed_weights_schedule": (optim.add_decayed_weights(optim.linear_schedule(0.1, 0.0, 2)), ["count"]),
    "trace_bf16": (optim.trace(0.9, accumulator_dtype="bfloat16"), ["trace/w"]),
    # In the first step the corrected variance is 0: what is left beside eps is rounding.
    "scale_by_stddev_corrected": (
        optim.scale_by_stddev(eps=1.0, bias_correction=True),
        ["mu/w", "nu/w", "count"],
    ),
    "masked": (optim.masked(optim.scale_by_adam(), "**/w"), [f"inner_state/{path}" for path in ADAM]),
}
