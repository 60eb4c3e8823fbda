"""How often a loss and its gradient are evaluated while a program runs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["EvaluationCounter", "Evaluations", "count_evaluations"]


class Evaluations(NamedTuple):
    """How often a function was evaluated, and how often differentiated backwards."""

    values: int
    gradients: int


class EvaluationCounter:
    """What `count_evaluations` returns: called as the function is, and `counted()` says how often that was."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self._values = self._gradients = 0

    def __call__(self, *args: Any) -> Any:
        return _watched(self, self.fn(*args))

    def counted(self) -> Evaluations:
        """The counts so far; it waits for what is still running."""
        jax.effects_barrier()
        return Evaluations(self._values, self._gradients)

    def reset(self) -> None:
        """Begins again from 0."""
        jax.effects_barrier()
        self._values = self._gradients = 0

    def _value(self, _: Any) -> None:
        self._values += 1

    def _gradient(self, _: Any) -> None:
        self._gradients += 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _watched(counter: EvaluationCounter, x: Any) -> Any:
    # The operand makes `vmap` call back once for every member of the batch.
    jax.debug.callback(counter._value, jnp.ravel(x)[0])
    return x


def _forward(counter: EvaluationCounter, x: Any) -> tuple[Any, None]:
    return _watched(counter, x), None


def _backward(counter: EvaluationCounter, _: None, ct: Any) -> tuple[Any]:
    jax.debug.callback(counter._gradient, jnp.ravel(ct)[0])
    return (ct,)


_watched.defvjp(_forward, _backward)


def count_evaluations(fn: Callable[..., Any]) -> EvaluationCounter:
    """The same function, which counts at run time how often it is evaluated and differentiated.

    It counts what is computed, under `jit`, in loops and searches, and every member of a `vmap`; not what is traced.
    With the loss of a `Task` it tells what an optimizer costs: values are passes forward, gradients passes backward (a
    gradient takes one of each; a product with the Hessian, forward over reverse, is one of each too). Each count is a
    call back to Python, so it is not for measuring time. Differentiating forwards alone (`jvp`) is not possible.

    Args:
      fn: a function of arrays that returns one array, not empty.

    >>> loss = count_evaluations(lambda x: jnp.sum(x**2))
    >>> step = jax.jit(jax.grad(loss))
    >>> for _ in range(3):
    ...     _ = step(jnp.ones(2))
    >>> _ = loss(jnp.ones(2))
    >>> loss.counted()
    Evaluations(values=4, gradients=3)
    """
    return EvaluationCounter(fn)
