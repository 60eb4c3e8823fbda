"""A loss over data as one function of the parameters, summed batch by batch: memory does not grow with the data."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dlkit import tree
from dlkit.data import Arrays, Loader
from dlkit.losses import weighted_mean
from dlkit.nn import EVAL
from dlkit.optim.second_order import vectors
from dlkit.train import Task

__all__ = ["Objective"]


@dataclass(frozen=True)
class Term:
    """The loss of one batch: a value, so that equal terms share what is compiled for them."""

    loss: Any
    outputs: Any
    whole: bool  # a function of the parameters alone

    def value(self, params: Any, state: Any, batch: Any) -> Float[Array, ""]:
        if isinstance(self.loss, Task):
            value = self.loss.loss_fn(params, state, batch, EVAL)[0]
        elif self.outputs is not None:
            value = self.loss(self.outputs(params, batch), batch)
        else:
            value = self.loss(params) if self.whole else self.loss(params, batch)
        if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            raise TypeError(
                f"the loss must be a real scalar, got {jnp.result_type(value)}{list(jnp.shape(value))}: take the mean "
                "over the examples, weighted by batch['weight'] where the batch has one"
            )
        return jnp.asarray(value)

    def split(self, state: Any, batch: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        """`outputs(params)` and `loss(outputs)`, whose composition is the loss without a regularizer."""
        if isinstance(self.loss, Task):
            task = self.loss
            x, y = (_fields(batch, names) for names in (task.inputs, task.targets))
            return (
                lambda params: task.model.apply(params, state, x, EVAL)[0],
                lambda outputs: weighted_mean(task.loss(outputs, y), batch.get("weight")),
            )
        if self.outputs is None:
            raise ValueError(
                "this matrix needs the loss in two parts: give a train.Task, or Objective(loss, data, outputs=...) "
                "with outputs(params, batch) and loss(outputs, batch)"
            )
        return lambda params: self.outputs(params, batch), lambda outputs: self.loss(outputs, batch)

    def each(self, params: Any, state: Any, batch: Any) -> Float[Array, "..."]:
        """The losses of the single examples, without a regularizer."""
        if isinstance(self.loss, Task):
            outputs, _ = self.split(state, batch)
            return self.loss.loss(outputs(params), _fields(batch, self.loss.targets))
        if self.whole:
            raise ValueError("this needs the single examples: give Objective(loss, data), not a function of parameters")
        return jax.vmap(lambda row: self.value(params, state, jax.tree.map(lambda a: a[None], row)))(batch)


def _fields(batch: Any, names: Any) -> Any:
    return batch[names] if isinstance(names, str) else tuple(batch[name] for name in names)


def mass(batch: Any) -> Any:
    """How much a batch counts in the mean: the sum of its weights, else the number of its rows."""
    if isinstance(batch, Mapping) and "weight" in batch:
        return jnp.sum(jnp.asarray(batch["weight"], jnp.float32))
    leaves = jax.tree.leaves(batch)
    return jnp.asarray(jnp.shape(leaves[0])[0] if leaves and jnp.ndim(leaves[0]) else 1, jnp.float32)


class Counted:
    """A jitted function that counts how often it was traced."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.traces = 0

        def traced(*args: Any) -> Any:
            self.traces += 1
            return fn(*args)

        self.jitted = jax.jit(traced)

    def __call__(self, *args: Any) -> Any:
        return self.jitted(*args)


@functools.lru_cache(maxsize=64)
def _values(term: Term) -> Counted:
    def add(total: Any, params: Any, state: Any, batch: Any) -> Any:
        value, weight = term.value(params, state, batch), mass(batch)
        return total[0] + weight.astype(value.dtype) * value, total[1] + weight

    return Counted(add)


@functools.lru_cache(maxsize=64)
def _gradients(term: Term) -> Counted:
    def add(total: Any, params: Any, state: Any, batch: Any) -> Any:
        value, grad = jax.value_and_grad(term.value)(params, state, batch)
        weight = mass(batch)
        summed = vectors.add(total[2], vectors.wide(grad), weight)
        return total[0] + weight.astype(value.dtype) * value, total[1] + weight, summed

    return Counted(add)


@dataclass(frozen=True, eq=False)
class Objective:
    """The mean loss over data, as a function of the parameters: `objective(params)` is a number.

    Everything in `dlkit.curvature` takes one; a plain scalar function of the parameters may stand for it. The data
    are passed through batch by batch, and each batch counts by the sum of its `weight`, else by its rows.

    Args:
      loss: a `train.Task`, evaluated in mode `EVAL`; or `loss(params, batch)`, a mean over the batch; or, without
        data, `loss(params)`.
      data: a `data.Arrays`, cut into batches; a `Loader`, whose first epoch is used; a list of batches; a function of
        no arguments that returns the batches anew, for data that come from elsewhere; any other tree is one batch.
      state: what the task's model remembers.
      batch_size: of `Arrays`. The last batch is filled with rows of weight 0: a loss of your own must weight its mean
        by `batch["weight"]` then, as a task does.
      outputs: `outputs(params, batch)`; `loss` is then `loss(outputs, batch)`. Gauss-Newton and Fisher matrices need
        the two parts, which a task has.

    >>> from dlkit import losses, nn
    >>> task = Task(nn.Linear(1, 1), losses.mse)
    >>> data = Arrays(x=np.ones((5, 1), np.float32), y=np.zeros((5, 1), np.float32))
    >>> Objective(task, data, batch_size=2)({"w": jnp.ones((1, 1)), "b": jnp.ones(1)})
    4.0

    Raises:
      TypeError: the loss is no function, or (when called) no real scalar. ValueError: a task without data; data without
      a batch; a loss that takes no notice of the weights of a batch that was filled.
    """

    loss: Any
    data: Any = None
    state: Any = None
    batch_size: int = 256
    outputs: Any = None
    _checked: list[bool] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.loss, Task) and self.data is None:
            raise ValueError("Objective: a Task needs data: Objective(task, data, state=state)")
        if not isinstance(self.loss, Task) and not callable(self.loss):
            raise TypeError(f"Objective: loss must be a train.Task or a function, got {type(self.loss).__name__}")

    @property
    def term(self) -> Term:
        return Term(self.loss, self.outputs, self.data is None)

    def batches(self, params: Any) -> Iterator[Any]:
        """The batches of one pass over the data."""
        data = self.data
        if isinstance(data, Arrays):
            data = Loader(data, min(self.batch_size, len(data)), shuffle=False)
        if isinstance(data, Loader):
            self._check_weights(data, params)
            return data.epoch(0)
        if isinstance(data, list):
            return iter(data)
        made: Any = data() if callable(data) else (data,)
        return iter(made)

    def _check_weights(self, loader: Loader, params: Any) -> None:
        """A loss that ignores the weights would count the rows that fill the last batch."""
        filled = len(loader) * loader.batch_size != len(loader.dataset) and not loader.drop_last
        if isinstance(self.loss, Task) or self._checked or not (filled or "weight" in loader.dataset):
            return
        batch = loader.batch(0, 0)
        jaxpr = jax.make_jaxpr(lambda p, b: self.term.value(p, self.state, b))(params, batch).jaxpr
        weight = jaxpr.invars[len(jax.tree.leaves(params)) + sorted(batch).index("weight")]
        if not any(weight is used for equation in jaxpr.eqns for used in equation.invars):
            raise ValueError(
                f"the loss does not use batch['weight'], but the last batch is filled with rows of weight 0: take "
                f"losses.weighted_mean(values, batch['weight']), or a batch size that divides {len(loader.dataset)}"
            )
        self._checked.append(True)

    def _sum(self, add: Callable[..., Any], total: Any, params: Any) -> Any:
        for batch in self.batches(params):
            total = add(total, params, self.state, batch)
        if not float(total[1]) > 0:
            raise ValueError("the data hold no batch, or batches without weight")
        return total

    def __call__(self, params: Any) -> float:
        """The mean loss."""
        zero = jnp.zeros((), vectors.scalar_dtype(params))
        value, weight = self._sum(_values(self.term), (zero, jnp.zeros(())), params)
        return float(value) / float(weight)

    def value_and_grad(self, params: Any) -> tuple[float, Any]:
        """The mean loss and its gradient, a tree like `params` in float32 at least."""
        check_real("Objective", params)
        zero = jnp.zeros((), vectors.scalar_dtype(params))
        start = (zero, jnp.zeros(()), jax.tree.map(jnp.zeros_like, vectors.wide(params)))
        value, weight, grad = self._sum(_gradients(self.term), start, params)
        return float(value) / float(weight), vectors.times(1 / float(weight), grad)


def as_objective(loss: Any) -> Objective:
    """The objective itself, or the one that a function of the parameters stands for."""
    return loss if isinstance(loss, Objective) else Objective(loss)


def check_real(owner: str, params: Any) -> None:
    """Raise TypeError unless every leaf is real and floating-point."""
    for path, leaf in tree.flatten(params).items():
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"{owner}: parameters must be real and floating-point, but {path!r} is {jnp.result_type(leaf)}: "
                "convert it with jnp.asarray(leaf, jnp.float32), or close the loss over it"
            )


def to_numpy(vector: Any) -> np.ndarray:
    return np.asarray(vector, np.float64)
