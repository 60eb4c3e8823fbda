"""One training step: jitted, donated, traced once."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dlkit import optim, tree
from dlkit.nn import EVAL, training
from dlkit.optim.transform import call_update, takes_anything
from dlkit.train.curvature import Curvature
from dlkit.train.freezing import frozen_task, join, keep_frozen, trainable
from dlkit.train.gradient import gradient
from dlkit.train.inputs import run_options
from dlkit.train.state import TrainState
from dlkit.train.task import Task

__all__ = ["DonatedError", "EvalStep", "RetraceError", "Step", "make_eval_step", "make_step", "training_step"]


class RetraceError(RuntimeError):
    """A compiled step was about to be traced again: its arguments have changed. The message says which and how."""


class DonatedError(RuntimeError):
    """A state was used after its buffers had been given to a step."""


def training_step(
    task: Task,
    optimizer: Any,
    state: TrainState,
    batch: Mapping[str, Any],
    *,
    log_grad_norm: bool = False,
    freeze: Sequence[str] = (),
    accumulate: int = 1,
    curvature: Curvature | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """The pure function that `make_step` compiles: gradient, update, new state, measured sums.

    The draws of the step come from `training(fold_in(state.key, state.step))`: they depend on the run's key and the
    number of the step alone, and not on how often the run was stopped.

    An optimizer whose `update` takes keyword arguments is given them: `value` (the loss), `grad`; functions of the
    trained parameters on this batch with this step's draws, `value_fn` or `obj_fn` (the loss), `grad_fn` (its gradient)
    and `output_fn` or `logits_fn` (the model's outputs); `weight`, what the batch's examples or tokens weigh together,
    by which `optim.multi_steps` counts it; with a `curvature`, `factors`. For one that says
    `uses_gradient = False` no gradient is computed, and its `grads` are zeros.

    Where the optimizer holds a `dynamic_loss_scale`, the loss is multiplied by it, and a step that it skips leaves what
    the model remembers as it was, too.

    Raises:
      ValueError: the optimizer or the model returned a state of another structure, shape or dtype; a glob of `freeze`
        matches nothing; `accumulate` does not divide the batch; `optim.kfac` has no `curvature`. Whatever a layer
        raises carries the fields and shapes of the batch as a note.
    """
    trained = trainable(state.params, state.state, freeze)
    if freeze:
        _check_slots(optimizer, state, trained)
    if curvature is None and optim.find_states(state.opt_state, optim.ScaleByKfacState):
        raise ValueError("kfac: it gets no factors: pass curvature=train.Curvature(...) to make_step or fit")
    scale = optim.loss_scale(state.opt_state) if optim.find_states(state.opt_state, optim.LossScaleState) else None
    try:
        mode = training(jax.random.fold_in(state.key, state.step))
        held = frozen_task(task, freeze)
        grads, model_state, sums, loss = gradient(
            held, trained, state.params, state.state, batch, mode, accumulate=accumulate, scale=scale,
            differentiate=log_grad_norm or getattr(optimizer, "uses_gradient", True),
        )  # fmt: skip
        known: dict[str, Any] = {"value": loss, "grad": grads if scale is None else optim.unscaled(grads, scale)}
        if curvature is not None:
            known["factors"] = curvature.factors(held, state.params, state.state, batch, mode)
    except Exception as error:
        error.add_note(f"in a training step on the batch {describe(batch)}")
        raise

    def value_fn(leaves: Any) -> Any:
        return held.loss_fn(join(leaves, state.params), state.state, batch, mode)[0]

    def output_fn(leaves: Any) -> Any:
        x = batch[task.inputs] if isinstance(task.inputs, str) else tuple(batch[name] for name in task.inputs)
        return held.model.apply(join(leaves, state.params), state.state, x, mode)[0]

    def grad_fn(leaves: Any, i: Any = 0) -> Any:
        return jax.grad(value_fn)(leaves)

    known["value_fn"] = value_fn
    if not takes_anything(optimizer):  # optax's line searches refuse arguments that they do not know
        known |= {"obj_fn": value_fn, "output_fn": output_fn, "logits_fn": output_fn, "grad_fn": grad_fn}
        known["weight"] = sums["loss"]["weight"].high
    updates, opt_state = call_update(optimizer, grads, state.opt_state, trained, known)
    params = join(optim.apply_updates(trained, updates), state.params)
    model_state = keep_frozen(state.state, model_state, freeze)
    if scale is not None:
        finite = optim.last_step_was_finite(opt_state)
        model_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), model_state, state.state)
        # An overflow is no accident, its step is skipped: then no gradient was used, and its norm is 0.
        grads = jax.tree.map(lambda g: jnp.where(finite, g, jnp.zeros_like(g)), optim.unscaled(grads, scale))
        sums["loss_scale"] = scale
    new = _alike(state, TrainState(state.step + 1, params, model_state, opt_state, state.key))
    rates = optim.learning_rates(opt_state)
    for path, rate in rates.items():
        sums["learning_rate" if len(rates) == 1 else f"learning_rate/{path}"] = rate
    for path, clipped in optim.find_states(opt_state, optim.ClipByGlobalNormState).items():
        if all(part.isdigit() for part in path.split("/") if part):  # in a chain: of all gradients, not of a group
            sums["grad_norm"] = clipped.norm
    for kept in optim.find_states(opt_state, optim.WithReportState).values():
        sums |= {"grad_norm": kept.grad_norm, "update_norm": kept.update_norm}
    if log_grad_norm:
        sums["grad_norm"] = optim.global_norm(grads)
    return new, sums


def _check_slots(optimizer: Any, state: TrainState, trained: Any) -> None:
    """Raises ValueError where the optimizer's state was made for other leaves than those that are trained."""
    wanted = jax.eval_shape(optimizer.init, trained)
    if changed := tree.diff(*(jax.tree.map(_plain, slots) for slots in (wanted, state.opt_state))):
        raise ValueError(
            "freeze: the optimizer's state was not made for the leaves that are trained: make it with "
            f"create_state(model, optimizer, key, freeze=...), the same globs:\n{changed}"
        )


def describe(batch: Any) -> str:
    """`x float32[64, 8, 8, 1], y int32[64]`."""
    return ", ".join(f"{path} {jnp.result_type(a)}{list(jnp.shape(a))}" for path, a in tree.flatten(batch).items())


def _alike(old: TrainState, new: TrainState) -> TrainState:
    """The new state with the old one's weak types, as the next call must look like this one."""
    changed = tree.diff(*(jax.tree.map(_strong, t) for t in (old, new)))
    if changed:
        raise ValueError(
            f"a step must return a state like the one it got, but model or optimizer changed it:\n{changed}"
        )
    return jax.tree.map(lambda o, n: n if jnp.issubdtype(n.dtype, jax.dtypes.prng_key) else _cast(o, n), old, new)


def _plain(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype)


def _strong(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jax.typeof(leaf).dtype)


def _cast(old: Any, new: Any) -> Any:
    if jax.typeof(old).weak_type == jax.typeof(new).weak_type:
        return new
    return jax.lax.convert_element_type(new, jax.typeof(new).dtype)


class Traced:
    """Counts the traces of a function, and raises before the one too many is compiled."""

    def __init__(self, name: str, fn: Callable[..., Any], max_traces: int | None) -> None:
        self.name, self.fn, self.max_traces = name, fn, max_traces
        self.traces = 0
        self.first: Any = None
        self.__name__ = self.__qualname__ = name

    def __call__(self, *args: Any) -> Any:
        shapes = jax.tree.map(_aval, args)
        if self.max_traces is not None and self.traces >= self.max_traces:
            changed = tree.diff(self.first, shapes) or "nothing in the arguments: a setting of JAX did"
            raise RetraceError(
                f"{self.name} would be traced again (number {self.traces + 1}, max_traces={self.max_traces}). "
                f"What changed since the first call:\n{changed}"
            )
        self.traces += 1
        self.first = shapes if self.first is None else self.first
        return self.fn(*args)


def _aval(leaf: Any) -> Any:
    aval = jax.typeof(leaf)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=getattr(aval, "weak_type", False))


class Compiled:
    """A jitted function: a plain call in the good case, an explanation in the bad one."""

    def __init__(self, name: str, fn: Callable[..., Any], *, donate: bool, max_traces: int | None) -> None:
        self._traced = Traced(name, fn, max_traces)
        self.jitted = jax.jit(self._traced, donate_argnums=(0,) if donate else ())
        self.lower = self.jitted.lower
        self._calls = 0
        self._given: deque[tuple[int, int]] = deque(maxlen=64)

    @property
    def traces(self) -> int:
        """How often it was traced."""
        return self._traced.traces

    def explain(self, error: Exception, *args: Any) -> Exception:
        """The error to raise: one that names the donation, where a donated argument is the cause."""
        if not any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(args)):
            return error
        when = next((n for where, n in self._given if where == id(getattr(args[0], "step", None))), None)
        return DonatedError(
            f"this state was donated to step {when if when is not None else 'of before'}; use the returned one "
            f"(state, metrics = step(state, batch)), or make_step(..., donate=False), which keeps both in memory"
        )


class Step(Compiled):
    """What `make_step` returns: call it with (state, batch). `traces` counts, and `lower` is that of `jax.jit`."""

    def __call__(self, state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, dict[str, Any]]:
        try:
            result = self.jitted(state, batch)
        except Exception as error:
            explained = self.explain(error, state, batch)
            if explained is error:
                raise
            raise explained from None
        self._given.append((id(state.step), self._calls))
        self._calls += 1
        return result


class EvalStep(Compiled):
    """What `make_eval_step` returns: call it with (params, state, batch)."""

    def __call__(self, params: Any, state: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self.jitted(params, state, batch)
        except Exception as error:
            explained = self.explain(error, params, state, batch)
            if explained is error:
                raise
            raise explained from None


def make_step(
    task: Task,
    optimizer: Any,
    *,
    donate: bool = True,
    max_traces: int | None = 1,
    log_grad_norm: bool = False,
    freeze: Sequence[str] = (),
    accumulate: int = 1,
    curvature: Curvature | None = None,
) -> Step:
    """A compiled training step, `step(state, batch) -> (state, metrics)`.

    Args:
      task: what is learned.
      optimizer: one of `dlkit.optim`, or of optax.
      donate: let the new state take the memory of the old one, which cannot be used any more.
      max_traces: how often the step may be traced, and so compiled; None for any number.
      log_grad_norm: add `grad_norm`, the global norm of the gradient before any clipping. An optimizer with
        `clip_by_global_norm` or `with_report` in it has computed it anyway: then it is always there.
      freeze: globs over the paths of parameters and of what the model remembers: these stay as they are, to the bit,
        are not differentiated and have no slots. The state is then that of `create_state(..., freeze=freeze)`.
      accumulate: micro-batches in a batch, one in memory at a time: the gradient, the loss and the metrics are those
        of the whole batch (but `BatchNorm` sees micro-batches, and each draws its own dropout).
      curvature: for `optim.kfac`: which Fisher matrix to factor for it.

    Returns:
      The step. Its metrics stay on the device, as sums: `loss` and each metric of the task (`task.result(metrics)`
      makes numbers of them, `metric.merge` adds those of two steps), `learning_rate` (what this update used; absent
      for optax's optimizers) and `penalty` where the task has a regularizer.

    Raises (the step, when called):
      RetraceError: before a trace too many is compiled; it names the leaves that changed and how.
      DonatedError: the state was given to an earlier call.

    >>> import jax, jax.numpy as jnp
    >>> from dlkit import losses, nn, optim, train
    >>> task, optimizer = train.Task(nn.Linear(4, 3), losses.cross_entropy), optim.sgd(0.1)
    >>> state = train.create_state(task.model, optimizer, jax.random.key(0))
    >>> step = train.make_step(task, optimizer)
    >>> batch = {"x": jnp.ones((2, 4)), "y": jnp.array([0, 2]), "weight": jnp.ones(2)}
    >>> for _ in range(3):
    ...     state, measured = step(state, batch)
    >>> int(state.step), step.traces, sorted(task.result(measured))
    (3, 1, ['learning_rate', 'loss'])
    """
    options = run_options(freeze, accumulate)

    def body(state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, dict[str, Any]]:
        return training_step(task, optimizer, state, batch, log_grad_norm=log_grad_norm, curvature=curvature, **options)

    return Step("training_step", body, donate=donate, max_traces=max_traces)


def evaluation_step(task: Task, params: Any, state: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return task.loss_and_sums(params, state, batch, EVAL)[1][2]
    except Exception as error:
        error.add_note(f"in an evaluation step on the batch {describe(batch)}")
        raise


def make_eval_step(task: Task, *, max_traces: int | None = 1) -> EvalStep:
    """A compiled evaluation step, `step(params, state, batch) -> metrics`: the sums of one batch, left on the device.

    >>> import jax, jax.numpy as jnp
    >>> from dlkit import losses, nn, train
    >>> task = train.Task(nn.Linear(4, 3), losses.cross_entropy)
    >>> step = train.make_eval_step(task)
    >>> batch = {"x": jnp.ones((2, 4)), "y": jnp.array([0, 2]), "weight": jnp.ones(2)}
    >>> sorted(task.result(step(task.model.init(jax.random.key(0)), None, batch)))
    ['loss']

    Raises (the step, when called): RetraceError, as `make_step`.
    """

    def body(params: Any, state: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        return evaluation_step(task, params, state, batch)

    return EvalStep("evaluation_step", body, donate=False, max_traces=max_traces)
