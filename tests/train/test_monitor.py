"""What is monitored: the name must be in the rows, and tells the direction by its words."""

import pytest
from support import training as problem

from dlkit import train
from dlkit.train.callbacks import direction_of


@pytest.mark.parametrize("name", ["valid/loss", "grad_norm", "valid/calibration_error", "train/mse", "perplexity"])
def test_small_is_good(name):
    assert direction_of(name, None) == "min"


@pytest.mark.parametrize("name", ["valid/accuracy", "valid/top5_accuracy", "macro_f1", "auc", "valid/score/r2"])
def test_large_is_good(name):
    assert direction_of(name, None) == "max"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("valid/norm_accuracy", "both"),
        ("valid/lossless", "does not tell"),
        ("valid/stopping", "does not tell"),
        ("valid/normal", "does not tell"),
    ],
)
def test_a_name_that_does_not_tell(name, why):
    with pytest.raises(ValueError, match=f"monitor '{name}': the name .*{why}.*say direction='min'"):
        train.EarlyStopping(name)
    assert train.EarlyStopping(name, direction="max").direction == "max"


def test_a_misspelt_monitor_is_refused(tmp_path):
    """Before anything is saved; with the nearest name."""
    callbacks = (
        train.Checkpointer(monitor="valid/accurac", direction="max"),
        train.EarlyStopping("valid/los", direction="min"),
    )
    for callback in callbacks:
        with pytest.raises(ValueError, match=r"'valid/(accurac|los)'.*did you mean 'valid/(accuracy|loss)'"):
            train.fit(
                problem.task(problem.network(dropout=0.0, norm=False)), problem.optimizer(), problem.points(8),
                valid=problem.points(8, 1), epochs=1, run_dir=tmp_path, callbacks=[callback],
            )  # fmt: skip
    assert train.latest(tmp_path / "checkpoints") is None
