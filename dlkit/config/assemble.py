"""A configuration as the arguments of `train.fit`: task, optimizer, datasets, callbacks."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from dlkit import data, losses, metrics, optim, train
from dlkit.config import build
from dlkit.config.checks import check_labels, check_monitors, check_shapes
from dlkit.config.errors import ConfigError
from dlkit.config.language import corpus
from dlkit.config.model_parts import ON_PAIRS, REBUILD
from dlkit.config.optimizers import curvature
from dlkit.config.parts import CrossEntropy
from dlkit.config.schema import Config
from dlkit.config.sources import GRAPHS, datasets

__all__ = ["Parts", "assemble"]


@dataclass(frozen=True, eq=False)
class Parts:
    """What a configuration stands for. `valid` and `test` are None where the config asks for none."""

    config: Config
    task: train.Task
    optimizer: Any
    training: data.Arrays
    valid: data.Arrays | None
    test: data.Arrays | None
    steps_per_epoch: int
    tokenizer: Any = None

    def callbacks(self) -> list[train.Callback]:
        """Those that the configuration asks for; each call makes new ones."""
        spec = self.config.train
        made: list[train.Callback] = [train.StopOnNan()]
        if spec.early_stopping is not None:
            made.append(train.EarlyStopping(**spec.early_stopping.model_dump()))
        if spec.tensorboard:
            made.append(train.TensorBoard())
        return [*made, train.Checkpointer(**spec.checkpoints.model_dump())]

    def fit_options(self) -> dict[str, Any]:
        """The keyword arguments of `train.fit` but for callbacks and the run's directory."""
        spec = self.config.train
        return {
            "valid": self.valid,
            "epochs": spec.epochs,
            "batch_size": spec.batch_size,
            "seed": self.config.seed,
            "log_every": spec.log_every,
            "eval_batch_size": self.eval_batch_size,
            "freeze": spec.freeze,
            "accumulate": spec.accumulate,
            "curvature": curvature(self.config.optimizer, self.config.loss),
        }

    @property
    def eval_batch_size(self) -> int:
        """Examples at a time where nothing is learned."""
        # A batch is filled up to its size, and a graph is one large example.
        return self.config.train.eval_batch_size or (1 if self.config.data.name in GRAPHS else 256)


OWN = {"negative_elbo": "vae", "simple_diffusion": "ddpm"}
"""Losses that go with one model, which goes with no other."""


def task_of(config: Config) -> train.Task:
    """The model, its loss, its metrics and its penalty."""
    model, loss, regularizer = build.model(config), build.loss(config.loss), build.regularizer(config)
    if config.train.policy is not None:
        model = config.train.policy.build()(model)
    rebuilds = config.model.name in REBUILD
    fields = ("x", "senders", "receivers") if config.data.name in GRAPHS else "x"
    table = build.metric_table(config.metrics)
    if config.model.name in ON_PAIRS:
        fields = ("source", "x")
    if config.model.name == "bert":
        if config.loss != CrossEntropy(name="cross_entropy"):
            raise ConfigError("loss: bert is trained with cross_entropy, without options")
        masked = {name: metrics.AtMasked(metric) for name, metric in table.items()}
        return train.Task(model, losses.masked_cross_entropy, masked, regularizer, inputs=("x", "masked"))
    for name, owner in OWN.items():
        if (config.loss.name == name) != (config.model.name == owner):
            raise ConfigError(
                f"loss: {config.loss.name} does not go with the model {config.model.name}: {name} is that of {owner}"
            )
    return train.Task(
        model, Pixels(loss) if rebuilds else loss, table, regularizer,
        inputs=fields, targets="x" if rebuilds else "y",
    )  # fmt: skip


@dataclass(frozen=True)
class Pixels:
    """A loss whose targets are pictures: bytes become numbers in [0, 1], as in front of the model."""

    loss: Any

    def __call__(self, outputs: Any, targets: Any) -> Any:
        if not jnp.issubdtype(targets.dtype, jnp.floating):
            targets = targets.astype(jnp.float32) / 255
        return self.loss(outputs, targets)


def assemble(config: Config) -> Parts:
    """Everything that `train.fit` needs; the data is read.

    Raises:
      ConfigError: the parts do not fit each other.
    """
    task = task_of(config)
    training, valid, test = datasets(config)
    wanted = build.input_shape(config)
    given = training["x"].shape[1:]
    if wanted is not None and given != wanted:
        raise ConfigError(f"model: it takes examples of shape {list(wanted)}, but those of the data have {list(given)}")
    check_monitors(config, task, validated=valid is not None)
    steps = -(-len(training) // config.train.batch_size)
    optimizer = build.optimizer(config.optimizer, steps * config.train.epochs)
    if config.train.policy is not None and config.train.policy.build().scales_loss:
        optimizer = optim.dynamic_loss_scale(optimizer)
    curvature(config.optimizer, config.loss)
    if config.train.batch_size % config.train.accumulate:
        raise ConfigError(
            f"train.accumulate: {config.train.accumulate} does not divide train.batch_size = {config.train.batch_size}"
        )
    outputs = check_shapes(task, optimizer, training, config.train.batch_size, config.train.freeze)
    if config.model.name not in (*REBUILD, "bert"):
        check_labels(config, outputs, (training, valid, test))
    tokenizer = corpus(config).tokenizer if config.data.name in ("text", "pairs") else None
    return Parts(config, task, optimizer, training, valid, test, steps, tokenizer)
