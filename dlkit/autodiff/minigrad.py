"""Reverse mode in sixty lines, to be read: a tape of operations, and one walk back along it.

Every operation on a `Value` appends to the tape its operands and the local derivatives at their present values. The
tape is a topological order, so walking it backwards reaches each value after all of its uses: by then its adjoint is
complete. `dlkit` itself differentiates with JAX; this engine is here to show that there is no magic in it, and equals
it in tests.

>>> grad(lambda x1, x2: sin(x1) + x1 * x2)(2.0, 3.0)
(2.5838531634528574, 2.0)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Value", "cos", "exp", "grad", "log", "maximum", "sin", "tanh"]


@dataclass(eq=False)
class Value:
    """A number on a tape. `parents` are (operand, local derivative); `adjoint` is filled in by `grad`."""

    data: float
    tape: list["Value"]
    parents: tuple[tuple["Value", float], ...] = ()
    adjoint: float = 0.0

    def __add__(self, other: "Value | float | int") -> "Value":
        other = _lift(other, self.tape)
        return _record(self.data + other.data, (self, 1.0), (other, 1.0))

    def __mul__(self, other: "Value | float | int") -> "Value":
        other = _lift(other, self.tape)
        return _record(self.data * other.data, (self, other.data), (other, self.data))

    def __pow__(self, power: float | int) -> "Value":
        return _record(self.data**power, (self, power * self.data ** (power - 1)))

    def __neg__(self) -> "Value":
        return self * -1.0

    def __sub__(self, other: "Value | float | int") -> "Value":
        return self + -_lift(other, self.tape)

    def __truediv__(self, other: "Value | float | int") -> "Value":
        return self * _lift(other, self.tape) ** -1.0

    def __rsub__(self, other: float | int) -> "Value":
        return -self + other

    def __rtruediv__(self, other: float | int) -> "Value":
        return self**-1.0 * other

    __radd__, __rmul__ = __add__, __mul__


def _lift(x: Value | float | int, tape: list[Value]) -> Value:
    return x if isinstance(x, Value) else Value(float(x), tape)


def _record(data: float, *parents: tuple[Value, float]) -> Value:
    value = Value(data, parents[0][0].tape, parents)
    value.tape.append(value)
    return value


def sin(x: Value) -> Value:
    """sin x, with the derivative cos x."""
    return _record(math.sin(x.data), (x, math.cos(x.data)))


def cos(x: Value) -> Value:
    """cos x, with the derivative -sin x."""
    return _record(math.cos(x.data), (x, -math.sin(x.data)))


def exp(x: Value) -> Value:
    """e^x, its own derivative."""
    return _record(math.exp(x.data), (x, math.exp(x.data)))


def log(x: Value) -> Value:
    """The natural logarithm, with the derivative 1/x."""
    return _record(math.log(x.data), (x, 1 / x.data))


def tanh(x: Value) -> Value:
    """tanh x, with the derivative 1 - tanh^2 x."""
    y = math.tanh(x.data)
    return _record(y, (x, 1 - y * y))


def maximum(a: Value, b: Value) -> Value:
    """The larger one, which gets the whole derivative; a tie is shared, as in JAX."""
    share = 0.5 if a.data == b.data else float(a.data > b.data)
    return _record(max(a.data, b.data), (a, share), (b, 1 - share))


def grad(fn: Callable[..., Value]) -> Callable[..., tuple[float, ...]]:
    """The partial derivatives of `fn`, a function of numbers written with the operations of this module."""

    def derivatives(*xs: float) -> tuple[float, ...]:
        tape: list[Value] = []
        inputs = [Value(float(x), tape) for x in xs]
        fn(*inputs).adjoint = 1.0
        for value in reversed(tape):
            for parent, local in value.parents:
                parent.adjoint += value.adjoint * local
        return tuple(x.adjoint for x in inputs)

    return derivatives
