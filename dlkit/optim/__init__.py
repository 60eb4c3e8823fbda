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

from dlkit.optim import contrib as contrib
from dlkit.optim import gradients as _gradients
from dlkit.optim import hyper as _hyper
from dlkit.optim import keras as keras
from dlkit.optim import modern as _modern
from dlkit.optim import preconditioners as _preconditioners
from dlkit.optim import presets as _presets
from dlkit.optim import projections as projections
from dlkit.optim import report as _report
from dlkit.optim import rules as _rules
from dlkit.optim import scaling as _scaling
from dlkit.optim import schedules as _schedules
from dlkit.optim import second_order as _second_order
from dlkit.optim import torch as torch
from dlkit.optim import transform as _transform
from dlkit.optim import wrappers as _wrappers
from dlkit.optim import zeroth_order as _zeroth_order
from dlkit.optim.gradients import *
from dlkit.optim.hyper import *
from dlkit.optim.modern import *
from dlkit.optim.preconditioners import *
from dlkit.optim.presets import *
from dlkit.optim.report import *
from dlkit.optim.rules import *
from dlkit.optim.scaling import *
from dlkit.optim.schedules import *
from dlkit.optim.second_order import *
from dlkit.optim.transform import *
from dlkit.optim.wrappers import *
from dlkit.optim.zeroth_order import *

__all__: list[str] = ["contrib", "keras", "projections", "torch"]
__all__ += _transform.__all__
__all__ += _hyper.__all__
__all__ += _report.__all__
__all__ += _scaling.__all__
__all__ += _presets.__all__
__all__ += _gradients.__all__
__all__ += _modern.__all__
__all__ += _preconditioners.__all__
__all__ += _rules.__all__
__all__ += _schedules.__all__
__all__ += _second_order.__all__
__all__ += _wrappers.__all__
__all__ += _zeroth_order.__all__
