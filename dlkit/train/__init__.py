"""Training: a task, a compiled step, a loop, evaluation, callbacks and checkpoints.

    result = fit(Task(model, loss, metrics), optimizer, examples)

`make_step` gives the step alone, for a loop of your own. `docs/training.md` and `docs/checkpoints.md` have the rest.
"""

from dlkit.train.averages import average_checkpoints, update_batch_norm
from dlkit.train.callbacks import Callback, EarlyStopping, StopOnNan
from dlkit.train.checkpoint import CheckpointError, CheckpointWarning, Saved, latest, read, restore, save
from dlkit.train.checkpointer import Checkpointer, best_step
from dlkit.train.console import Console
from dlkit.train.curvature import Curvature, kfac_layers
from dlkit.train.evaluate import evaluate, predict
from dlkit.train.fit import fit
from dlkit.train.loggers import JsonLines, TensorBoard, read_rows
from dlkit.train.policy import Policy
from dlkit.train.pretrain import pretrain
from dlkit.train.run import Result, Run, load_model
from dlkit.train.signals import Interrupted
from dlkit.train.state import TrainState, create_state
from dlkit.train.step import DonatedError, EvalStep, RetraceError, Step, make_eval_step, make_step, training_step
from dlkit.train.task import Task

__all__ = [
    "Callback",
    "CheckpointError",
    "CheckpointWarning",
    "Checkpointer",
    "Console",
    "Curvature",
    "DonatedError",
    "EarlyStopping",
    "EvalStep",
    "Interrupted",
    "JsonLines",
    "Policy",
    "Result",
    "RetraceError",
    "Run",
    "Saved",
    "Step",
    "StopOnNan",
    "Task",
    "TensorBoard",
    "TrainState",
    "average_checkpoints",
    "best_step",
    "create_state",
    "evaluate",
    "fit",
    "kfac_layers",
    "latest",
    "load_model",
    "make_eval_step",
    "make_step",
    "predict",
    "pretrain",
    "read",
    "read_rows",
    "restore",
    "save",
    "training_step",
    "update_batch_norm",
]
