"""What `update` is given beside gradients: the loss at these parameters, and functions that give it elsewhere."""

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

__all__: list[str] = []

MEANING = {
    "params": "the parameters",
    "value": "the loss at the parameters",
    "grad": "its gradient there",
    "value_fn": "the loss as a function of the parameters",
    "residual_fn": "the residuals as a function of the parameters",
    "output_fn": "the model's outputs as a function of the parameters",
}


def needs(owner: str, **given: Any) -> None:
    """Raise ValueError that names the arguments of `update` which are None."""
    missing = [name for name, value in given.items() if value is None]
    if missing:
        what = ", ".join(f"{name}= ({MEANING[name]})" for name in missing)
        call = ", ".join(f"{name}={name}" for name in given if name != "params")
        raise ValueError(f"{owner}: it needs {what}: call update(grads, state, params, {call})")


def bind(owner: str, name: str, fn: Any, extra: dict[str, Any]) -> Callable[[Any], Any]:
    """`fn` as a function of the parameters alone, with those of the extra arguments that its signature names."""
    if not callable(fn):
        raise TypeError(f"{owner}: {name} is {fn!r}, wanted a function of the parameters: {MEANING[name]}")
    try:
        taken = inspect.signature(fn).parameters
    except ValueError:  # a builtin tells nothing
        taken = {}
    mine = {key: value for key, value in extra.items() if key in taken}
    return (lambda params: fn(params, **mine)) if mine else fn


def scalar(owner: str, value: Any, dtype: Any) -> Any:
    """A loss as a scalar of this dtype.

    Raises:
      ValueError: it has axes.
    """
    if jnp.shape(value) != ():
        raise ValueError(f"{owner}: the loss has shape {jnp.shape(value)}, wanted a scalar: sum or average it")
    return jnp.asarray(value).astype(dtype)
