"""A hyperparameter that is being traced: a number to `jit`, `grad` and `vmap`, a Python float to the rules."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["Traced", "as_dtype"]


class Traced:
    """A traced scalar that takes the dtype of the array it meets, as a Python float does.

    So a learning rate in float32 does not widen bfloat16 parameters, nor narrow float64 ones, and strict promotion has
    nothing to refuse. It is true (whatever it turns out to be), since a rule asks `if eps_root:` to leave a term out.

    >>> rate = Traced(jnp.float32(0.5))
    >>> (1 - rate) * jnp.ones(2, jnp.bfloat16)
    Array([0.5, 0.5], dtype=bfloat16)
    """

    def __init__(self, value: jax.Array) -> None:
        self.value = value

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Traced({jnp.result_type(self.value)})"

    def __neg__(self) -> "Traced":
        return Traced(-self.value)

    def __float__(self) -> float:
        return float(self.value)  # JAX's own error says that it is traced


def as_dtype(value: Any, dtype: Any) -> jax.Array:
    """A hyperparameter, traced or not, as an array of this dtype."""
    return jnp.asarray(value.value if isinstance(value, Traced) else value, dtype)


def _binary(op: Callable[[Any, Any], Any], turned: bool) -> Callable[[Traced, Any], Any]:
    def method(self: Traced, other: Any) -> Any:
        if isinstance(other, Traced):
            left, right = self.value, jnp.asarray(other.value, self.value.dtype)
        elif isinstance(other, int | float):
            left, right = self.value, other
        else:
            left, right = jnp.asarray(self.value, jnp.result_type(other)), other
        result = op(right, left) if turned else op(left, right)
        return Traced(result) if isinstance(other, Traced | int | float) else result

    return method


for _name, _op in {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "pow": operator.pow,
}.items():
    setattr(Traced, f"__{_name}__", _binary(_op, turned=False))
    setattr(Traced, f"__r{_name}__", _binary(_op, turned=True))
for _op in (operator.lt, operator.le, operator.gt, operator.ge):  # Python itself turns a < b into b > a
    setattr(Traced, f"__{_op.__name__}__", _binary(_op, turned=False))
