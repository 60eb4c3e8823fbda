"""Parts that do not fit each other or the data are found before training, and named by their section."""

import numpy as np
import pytest

from dlkit import train
from dlkit.config import ConfigError, parse
from dlkit.config.assemble import assemble
from dlkit.config.parts import Adamw, RegularizerSpec
from dlkit.tree import WEIGHTS

BASE = """
metrics = ["accuracy"]
data = {name = "digits", limit = 64}
model = {name = "linear", d_in = 64, classes = 10}
loss = {name = "cross_entropy"}
optimizer = {name = "sgd", learning_rate = 0.5}
train = {epochs = 2, batch_size = 32}
"""
pytestmark = pytest.mark.usefixtures("unchecked")


def assembled(*overrides):
    return assemble(parse(BASE, overrides))


CHAIN = "model={name='chain', input=[8, 8, 1], layers=[{type='Flatten'}, {type='Linear', d_in=63, d_out=10}]}"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([CHAIN], ["model:", "63", "64"]),
        (["regularizer={l2=1e-3, over=['**/kernel']}"], ["regularizer:", "**/kernel"]),
        (["optimizer.l2=1e-3", "optimizer.mask=['**/kernel']"], ["optimizer:", "**/kernel"]),
        (["loss={name='binary_cross_entropy'}"], ["loss:", "int32[32]"]),
        (["loss={name='mse'}", "metrics=[]"], ["loss:"]),
        (["metrics=['r2']"], ["metrics: r2"]),
        (["model.classes=7"], ["label 9", "7 classes"]),
        (["train.early_stopping.monitor=valid/acuracy"], ["train.early_stopping.monitor", "'valid/accuracy'"]),
        (["train.early_stopping.monitor=accuracy"], ["did you mean 'valid/accuracy'"]),
        (["train.checkpoints.monitor=valid/los"], ["train.checkpoints.monitor", "'valid/loss'"]),
        (["train.checkpoints.monitor=valid/loss", "data.valid=0"], ["validation set"]),
        (["train.early_stopping.direction=up"], ["min, max"]),
    ],
)
def test_what_does_not_fit_is_a_config_error(overrides, words):
    with pytest.raises(ConfigError) as info:
        assembled(*overrides)
    for word in words:
        assert word in str(info.value)
    assert "internal frames" not in str(info.value)


def test_labels_of_the_test_set_count_too(tmp_path):
    y = np.arange(60) % 3
    y[7] = -1
    np.savez(tmp_path / "a.npz", x=np.zeros((60, 4)), y=y)
    data = f"data={{name='arrays', path='{tmp_path / 'a.npz'}', stratify=false}}"
    with pytest.raises(ConfigError, match=r"label -1.*3 classes"):
        assembled(data, "model={name='linear', d_in=4, classes=3}")


def test_monitors_and_their_direction():
    parts = assembled("train.early_stopping={monitor='train/accuracy', direction='min'}",
                      "train.checkpoints={monitor='valid/accuracy', direction='max'}")  # fmt: skip
    _, stopping, _, saver = parts.callbacks()
    assert isinstance(stopping, train.EarlyStopping)
    assert isinstance(saver, train.Checkpointer)
    assert (stopping.monitor, stopping.direction) == ("train/accuracy", "min")
    assert (saver.monitor, saver.direction) == ("valid/accuracy", "max")


def test_the_globs_of_weights_are_written_once():
    assert RegularizerSpec().over is WEIGHTS
    assert Adamw(name="adamw", learning_rate=0.1).mask is WEIGHTS
