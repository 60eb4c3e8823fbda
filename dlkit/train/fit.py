"""The training loop: prefetch, step, rows one interval late, validation, callbacks, and nothing else."""

import functools
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit.data import Arrays, Loader
from dlkit.train import checkpoint, files
from dlkit.train.callbacks import Callback, StopOnNan, non_finite
from dlkit.train.checkpointer import Checkpointer
from dlkit.train.curvature import Curvature
from dlkit.train.evaluate import evaluate
from dlkit.train.feed import feed, replicated
from dlkit.train.inputs import check_inputs, check_optimizer, run_options
from dlkit.train.ledger import Ledger, row_of
from dlkit.train.lock import locked
from dlkit.train.loggers import JsonLines
from dlkit.train.run import Result, Run
from dlkit.train.signals import Interrupted, Signals, catch_signals
from dlkit.train.state import TrainState, create_state, own
from dlkit.train.step import Compiled, training_step
from dlkit.train.sums import Packing, add, empty
from dlkit.train.task import Task

__all__ = ["fit"]

IN_FLIGHT = 2  # steps ahead of the devices on a mesh: simulated devices on few cores deadlock if the loop runs free


def fit(
    task: Task,
    optimizer: Any,
    train: Arrays | Loader,
    *,
    valid: Arrays | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    seed: int = 0,
    callbacks: Sequence[Any] = (),
    run_dir: str | Path | None = None,
    log_every: int = 50,
    max_steps: int | None = None,
    eval_batch_size: int = 256,
    resume: bool = True,
    state: TrainState | None = None,
    sharding: Any = None,
    log_grad_norm: bool = False,
    freeze: str | Sequence[str] = (),
    accumulate: int = 1,
    curvature: Curvature | None = None,
    max_traces: int | None = 1,
) -> Result:
    """Train until `epochs` epochs or `max_steps` steps are done, or a callback stops the run.

    The step is compiled once. What it measures is added up on the device and fetched every `log_every` steps, one
    interval late, so the device never waits for Python. The history is exact over each epoch: sums are divided once.

    With a `run_dir` the run is saved, and calling `fit` again with the same arguments goes on where it was: a run that
    was killed continues to the same bits, one that ended returns its result at once, and larger `epochs` train on
    (except where a callback had stopped the run). Ctrl-C and SIGTERM finish the step, save, and raise `Interrupted`.

    Args:
      task: what is learned. optimizer: one of `dlkit.optim`, or of optax.
      train: the examples; or a `Loader` of your own, whose batch size and seed then count.
      valid: evaluated after every epoch, as `valid/loss` and `valid/NAME`.
      seed: of the initial parameters, the order of the examples and the draws in the model.
      callbacks: called in order, `Checkpointer`s last. With a `run_dir`, a `JsonLines()` and a `Checkpointer()` are
        added where there is none.
      run_dir: `checkpoints/`, `metrics.jsonl` and, at the end, `model/` (parameters and state alone) go there.
      max_steps: updates in all, counted from the first.
      eval_batch_size: examples at a time in validation.
      resume: False refuses to go on with a `run_dir` that holds a run. Nothing is ever deleted.
      state: where to start instead of `create_state(task.model, optimizer, jax.random.key(seed))`; it is copied.
      sharding: how the rows of a batch lie on devices; the parameters are on all of them.
      log_grad_norm: add `grad_norm` to the rows, the gradient's norm in the last step.
      freeze, accumulate, curvature: what stays as it is, micro-batches in a batch, what K-FAC factors; see `make_step`.
      max_traces: how often the step may be traced, and so compiled; None for any number. A `Loader` of your own whose
        batches have two shapes needs 2.

    Returns:
      A `Result`: the final `state`, the `history` (a row an epoch), its `best` and `last` row, and `stopped_because`.

    Raises:
      TypeError: an argument of another kind, such as a dict for `data.Arrays(**fields)`, or a rate for an optimizer.
      BlockingIOError: another process trains in this `run_dir`; its process id is named.
      ValueError: an argument out of range; a checkpoint of another seed, batch size or dataset (named); a task that
        does not fit the data (with the fields and shapes of the batch).
      CheckpointError: a checkpoint cannot be written or does not fit.
      Interrupted: a signal came, and the run was saved.
      RetraceError: the step would be traced more than `max_traces` times: something changed the shapes or types of
        the batch or of the state. It names the leaves, and what they were.

    A loss that is not finite does not end the run: there is one warning, and `StopOnNan()` stops it.

    >>> import numpy as np
    >>> from dlkit import data, losses, nn, optim
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    >>> result = fit(Task(nn.Linear(1, 1), losses.mse), optim.sgd(0.5), data.Arrays(x=x, y=3 * x + 1), epochs=40)
    >>> result.stopped_because, {k: v.round(2).tolist() for k, v in result.state.params.items()}
    ('40 epochs', {'b': [1.0], 'w': [[3.0]]})
    """
    check_inputs(
        train, valid, epochs=epochs, log_every=log_every, max_steps=max_steps, batch_size=batch_size,
        eval_batch_size=eval_batch_size, max_traces=max_traces,
    )  # fmt: skip
    check_optimizer(optimizer)
    options = run_options(freeze, accumulate)
    loader = train if isinstance(train, Loader) else Loader(train, batch_size, seed=seed)
    folder = None if run_dir is None else Path(run_dir)
    run = Run(
        task, optimizer, loader, valid=valid, epochs=epochs, max_steps=max_steps,
        callbacks=_ordered(callbacks, folder), run_dir=folder, log_every=log_every,
    )  # fmt: skip
    with locked(folder):
        step = _start(
            run, seed, state, sharding, resume=resume, max_traces=max_traces, log_grad_norm=log_grad_norm,
            curvature=curvature, **options,
        )  # fmt: skip
        run.check_limits()
        if run.stopped_because is not None:  # it had ended, and nothing is left to do
            return _exported(run)
        return _loop(run, step, eval_batch_size, sharding)


def _loop(run: Run, step: Callable[..., Any], eval_batch_size: int, sharding: Any) -> Result:
    try:
        with catch_signals(run.run_dir is not None) as signals:
            for callback in run.callbacks:
                callback.on_start(run)
            while run.stopped_because is None:
                _epoch(run, step, signals, sharding)
                if run.index == run.steps_per_epoch:
                    _end_epoch(run, eval_batch_size, sharding)
                run.check_limits()
                if signals.received is not None and run.stopped_because is None:
                    path = run.save()
                    for saver in _savers(run):
                        saver.tidy(path)
                    raise Interrupted(signals.received, run.step, path)
            return _finish(run)
    finally:
        for callback in run.callbacks:
            callback.on_close(run)


def _ordered(callbacks: Sequence[Any], run_dir: Path | None) -> list[Callback]:
    """Checkpointers last: what they save then includes what the others made of the epoch."""
    given = list(callbacks)
    for callback in given:
        if not isinstance(callback, Callback):
            raise TypeError(f"a callback must be a train.Callback, got {callback!r}")
    if run_dir is not None:
        given += [kind() for kind in (JsonLines, Checkpointer) if not any(isinstance(c, kind) for c in given)]
    return sorted(given, key=lambda callback: isinstance(callback, Checkpointer))


def _start(
    run: Run, seed: int, state: TrainState | None, sharding: Any, *, resume: bool, max_traces: int | None,
    freeze: Sequence[str], **options: Any,
) -> Callable[..., Any]:  # fmt: skip
    """Give the run its state, new or restored; returns the compiled step."""
    task, optimizer, table = run.task, run.optimizer, run.task.table()
    saved = None
    if run.run_dir is not None and files.steps(run.folder):
        if not resume:
            raise ValueError(f"{run.run_dir} holds a run: choose another run_dir, or go on with it (resume=True)")
        saved = checkpoint.newest(run.folder)
    make = functools.partial(create_state, task.model, optimizer, freeze=freeze)
    if saved is None:
        run.state = _everywhere(make(jax.random.key(seed)) if state is None else own(state, copy=True), sharding)
        like = run.state
    else:
        like = jax.eval_shape(make, jax.random.key(seed)) if state is None else state

    # The inner function is traced once, here; the outer one reuses that.
    measure = jax.jit(functools.partial(training_step, task, optimizer, freeze=freeze, **options), inline=True)
    shapes = jax.eval_shape(measure, like, run.loader.batch(0, 0))[1]
    zeros = empty(table, shapes)
    packing = Packing(zeros)

    def body(state: TrainState, piece: Any, batch: Any) -> Any:
        new, measured = measure(state, batch)
        total, growing = add(table, packing.unpack(piece), measured, state.step)
        return new, packing.pack(total), growing

    compiled = Compiled("training_step", body, donate=True, max_traces=max_traces)
    run.ledger = Ledger(task, packing, jax.device_put(packing.pack(zeros), replicated(sharding)))
    if saved is not None:
        run.load(saved, like, shapes)
        run.state = _everywhere(run.state, sharding)
    return compiled.jitted


def _everywhere(state: TrainState, sharding: Any) -> TrainState:
    return state if sharding is None else jax.device_put(state, replicated(sharding))


def _overriding(run: Run, hook: str) -> list[Any]:
    return [getattr(c, hook) for c in run.callbacks if getattr(type(c), hook) is not getattr(Callback, hook)]


def _epoch(run: Run, step: Callable[..., Any], signals: Signals, sharding: Any) -> None:
    """Steps to the end of the epoch, or until something stops the run."""
    ledger: Ledger = run.ledger
    on_step = _overriding(run, "on_step")
    limit, log_every = run.max_steps, run.log_every
    on_mesh = sharding is not None and len(sharding.device_set) > 1
    ahead: deque[Any] = deque()
    with feed(run.loader, run.epoch, run.index, sharding) as batches:
        for batch in batches:
            run.state, ledger.piece, growing = step(run.state, ledger.piece, batch)
            run.batch = batch
            run.step += 1
            run.index += 1
            if growing:
                ledger.growing.append(growing)
            if on_mesh:
                ahead.append(ledger.piece)
                if len(ahead) > IN_FLIGHT:
                    jax.block_until_ready(ahead.popleft())
            if run.step % log_every == 0:
                ledger.cut(run.step, run.epoch + 1, log=True)
                run.emit(keep=1)
            for hook in on_step:
                hook(run)
            if run.step == limit or run.stopped_because is not None or signals.received is not None:
                return


def _end_epoch(run: Run, eval_batch_size: int, sharding: Any) -> None:
    """Validate, and tell the callbacks."""
    run.ledger.cut(run.step, run.epoch + 1, end=True)
    row: Any = run.emit()
    if run.valid is not None:
        values = evaluate(
            run.task, run.state.params, run.state.state, run.valid, batch_size=eval_batch_size, sharding=sharding
        )
        row |= row_of(values, "valid/")
    run.history.append(row)
    run.epoch, run.index = run.epoch + 1, 0
    quiet = run.warned or any(isinstance(c, StopOnNan) for c in run.callbacks)
    if (bad := non_finite(row)) and not quiet:
        run.warned = True
        warnings.warn(
            f"{bad} is {row[bad]} after epoch {row['epoch']} (first in step {run.bad_step}); training goes on: "
            f"StopOnNan() stops it",
            stacklevel=3,
        )
    timed = row | {"time/seconds": time.perf_counter() - run.started}
    for callback in run.callbacks:
        if isinstance(callback, Checkpointer):
            run.check_limits()  # whether this is the end is part of what is saved
        callback.on_epoch(run, timed)


def _savers(run: Run) -> list[Checkpointer]:
    return [callback for callback in run.callbacks if isinstance(callback, Checkpointer)]


def _finish(run: Run) -> Result:
    if run.index and not run.failed:  # stopped within an epoch: not saved yet
        for saver in _savers(run):
            saver.save(run)
    run.emit()
    result = _exported(run)
    for callback in run.callbacks:
        callback.on_end(run, result)
    return result


def _finite(state: TrainState) -> bool:
    """Whether no number of the model is lost: after a failure that is so where the best one is returned."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((state.params, state.state)) if _is_float(leaf)]
    return all(np.isfinite(leaf.astype(np.float64)).all() for leaf in leaves)


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _exported(run: Run) -> Result:
    """The result; what it holds is also in `run_dir/model`, for use without the optimizer."""
    result = run.result()
    if run.run_dir is None or (run.failed and not _finite(result.state)):
        return result
    folder = run.run_dir / "model"
    if (
        run.step not in files.steps(folder)
        or run.resumed_from is None
        or run.resumed_from.name != f"step_{run.step:08d}"
    ):
        model = {"params": result.state.params, "state": result.state.state}
        path = checkpoint.save(folder, run.step, model, {"row": result.last})
        for other in files.steps(folder).values():
            if other != path:
                files.remove_step(other)
    return result
