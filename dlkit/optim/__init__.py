"""Optimizers: chains of small gradient transforms with optax's shape.

    updates, state = tx.update(grads, state, params)

>>> import jax
>>> import jax.numpy as jnp
>>> from dlkit import optim
>>> schedule = optim.warmup_cosine_decay_schedule(0.06, 0.3, warmup_steps=5, decay_steps=50)
>>> tx = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(schedule, weight_decay=1e-2, mask=optim.WEIGHTS))
>>> loss = lambda p: jnp.sum((p["w"] - 3.0) ** 2)
>>> params = {"w": jnp.zeros(2)}
>>> state = tx.init(params)
>>> @jax.jit
... def step(params, state):
...     updates, state = tx.update(jax.grad(loss)(params), state, params)
...     return optim.apply_updates(params, updates), state
>>> for _ in range(50):
...     params, state = step(params, state)
>>> print(f"{loss(params):.2f} {optim.learning_rate(state):.4f} {optim.gradient_norm(state) < 1}")
0.01 0.0004 True
"""

from dlkit.optim.adagrad import (
    ScaleByRss,
    ScaleByRssState,
    adagrad,
    scale_by_rss,
)
from dlkit.optim.adam import (
    ScaleByAdam,
    ScaleByAdamState,
    adam,
    adamw,
    scale_by_adam,
)
from dlkit.optim.clipping import (
    Clip,
    ClipByGlobalNorm,
    ClipByGlobalNormState,
    clip,
    clip_by_global_norm,
    global_norm,
    gradient_norm,
)
from dlkit.optim.decay import (
    AddDecayedWeights,
    AddDecayedWeightsState,
    add_decayed_weights,
)
from dlkit.optim.hyper import (
    Scalar,
    ScalarOrSchedule,
    safe_increment,
)
from dlkit.optim.masks import (
    WEIGHTS,
    Mask,
    Masked,
    MaskedNode,
    MaskedState,
    masked,
    resolve_mask,
)
from dlkit.optim.momentum import (
    Trace,
    TraceState,
    sgd,
    trace,
)
from dlkit.optim.phases import (
    JoinSchedules,
    PiecewiseConstant,
    PiecewiseInterpolate,
    cosine_onecycle_schedule,
    join_schedules,
    linear_onecycle_schedule,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
)
from dlkit.optim.presets import (
    preset,
)
from dlkit.optim.report import (
    find_states,
)
from dlkit.optim.rmsprop import (
    ScaleByRms,
    ScaleByRmsState,
    ScaleByStddev,
    ScaleByStddevState,
    rmsprop,
    scale_by_rms,
    scale_by_stddev,
)
from dlkit.optim.scaling import (
    Scale,
    ScaleByLearningRate,
    ScaleByLearningRateState,
    ScaleBySchedule,
    ScaleByScheduleState,
    learning_rate,
    learning_rates,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
)
from dlkit.optim.schedules import (
    ConstantSchedule,
    CosineDecay,
    ExponentialDecay,
    PolynomialSchedule,
    Schedule,
    constant_schedule,
    cosine_decay_schedule,
    exponential_decay,
    linear_schedule,
    polynomial_schedule,
    step_decay,
)
from dlkit.optim.transform import (
    Chain,
    EmptyState,
    Identity,
    SetToZero,
    Transform,
    apply_updates,
    chain,
    identity,
    set_to_zero,
)

__all__ = [
    "WEIGHTS",
    "AddDecayedWeights",
    "AddDecayedWeightsState",
    "Chain",
    "Clip",
    "ClipByGlobalNorm",
    "ClipByGlobalNormState",
    "ConstantSchedule",
    "CosineDecay",
    "EmptyState",
    "ExponentialDecay",
    "Identity",
    "JoinSchedules",
    "Mask",
    "Masked",
    "MaskedNode",
    "MaskedState",
    "PiecewiseConstant",
    "PiecewiseInterpolate",
    "PolynomialSchedule",
    "Scalar",
    "ScalarOrSchedule",
    "Scale",
    "ScaleByAdam",
    "ScaleByAdamState",
    "ScaleByLearningRate",
    "ScaleByLearningRateState",
    "ScaleByRms",
    "ScaleByRmsState",
    "ScaleByRss",
    "ScaleByRssState",
    "ScaleBySchedule",
    "ScaleByScheduleState",
    "ScaleByStddev",
    "ScaleByStddevState",
    "Schedule",
    "SetToZero",
    "Trace",
    "TraceState",
    "Transform",
    "adagrad",
    "adam",
    "adamw",
    "add_decayed_weights",
    "apply_updates",
    "chain",
    "clip",
    "clip_by_global_norm",
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "exponential_decay",
    "find_states",
    "global_norm",
    "gradient_norm",
    "identity",
    "join_schedules",
    "learning_rate",
    "learning_rates",
    "linear_onecycle_schedule",
    "linear_schedule",
    "masked",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "preset",
    "resolve_mask",
    "rmsprop",
    "safe_increment",
    "scale",
    "scale_by_adam",
    "scale_by_learning_rate",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_stddev",
    "set_to_zero",
    "sgd",
    "step_decay",
    "trace",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
]
