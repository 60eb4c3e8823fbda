"""The pictures say what the numbers say, and leave pyplot alone."""

import sys

import numpy as np
import pytest

from dlkit.inspect.plots import confusion_matrix, learning_curves, misclassified

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, so that their texts can be read."""
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    return figures


def texts(figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


HISTORY = [
    {"epoch": 1, "train/loss": 2.0, "valid/loss": 2.1, "train/accuracy": 0.3, "valid/accuracy": 0.25, "seconds": 1.0},
    {"epoch": 2, "train/loss": 0.5, "valid/loss": 0.6, "train/accuracy": 0.8, "valid/accuracy": 0.75},
    {"epoch": 3, "train/loss": 0.1, "valid/loss": 0.9, "train/accuracy": 0.99, "valid/accuracy": 0.7},
]


def test_learning_curves(tmp_path, drawn):
    path = learning_curves(HISTORY, tmp_path / "new" / "curves.png", title="digits")
    assert path.read_bytes().startswith(b"\x89PNG")
    (figure,) = drawn
    loss, accuracy = figure.axes
    assert [line.get_ydata().tolist() for line in loss.lines[:2]] == [[2.0, 0.5, 0.1], [2.1, 0.6, 0.9]]
    assert loss.get_yscale() == "log"
    assert (accuracy.get_xlabel(), accuracy.get_ylabel()) == ("epoch", "accuracy (%)")
    assert "best 0.6 (epoch 2)" in texts(figure)
    assert "best 75.00 % (epoch 2)" in texts(figure)
    assert "digits" in texts(figure)


def test_learning_curves_of_odd_histories(tmp_path):
    learning_curves([{"epoch": 1, "train/loss": 1.0}], tmp_path / "one.png")
    learning_curves([{"train/loss": float("nan"), "valid/loss": float("nan")}] * 2, tmp_path / "nan.png")
    learning_curves([{"train/loss": -1.0}, {"train/loss": 0.0}], tmp_path / "negative.png")
    learning_curves([{"epoch": e, "train/loss": 1 / e} for e in range(1, 400)], tmp_path / "long.png")
    with pytest.raises(ValueError, match="no metric"):
        learning_curves([{"epoch": 1}], tmp_path / "none.png")


def test_confusion_matrix(tmp_path, drawn):
    confusion_matrix([[8, 2], [0, 10]], ["cat", "dog"], tmp_path / "m.png")
    shown = texts(drawn[0])
    for text in ("8", "2", "10", "cat", "dog", "true class", "predicted class"):
        assert text in shown
    assert any("90.00 % of 20 examples are right" in text for text in shown)
    confusion_matrix(np.zeros((3, 3)), None, tmp_path / "empty.png")
    confusion_matrix(np.eye(30), None, tmp_path / "large.png")
    with pytest.raises(ValueError, match="square"):
        confusion_matrix(np.zeros((2, 3)), None, tmp_path / "x.png")
    with pytest.raises(ValueError, match="2 classes"):
        confusion_matrix(np.eye(2), ["a"], tmp_path / "x.png")


def test_misclassified_shows_the_surest_mistakes_first(tmp_path, drawn):
    images = np.random.default_rng(0).random((5, 6, 6, 1), np.float32)
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.3, 0.7], [0.8, 0.2], [0.5, 0.5]])
    targets, predictions = np.array([1, 0, 1, 0, 0]), np.array([0, 1, 1, 0, 0])
    misclassified(images, targets, predictions, probabilities, ["a", "b"], tmp_path / "m.png")
    titles = [axes.get_title() for axes in drawn[0].axes if axes.get_title()]
    assert titles == ["says b (90 %)\nis a", "says a (60 %)\nis b"]
    assert any("2 of 5 (40.00 %)" in text for text in texts(drawn[0]))
    np.testing.assert_array_equal(np.asarray(drawn[0].axes[0].images[0].get_array()).argmax(), images[1].argmax())


def test_misclassified_without_mistakes_or_with_many(tmp_path, drawn):
    images = np.zeros((40, 4, 4, 3))
    misclassified(images, np.zeros(40, int), np.zeros(40, int), None, None, tmp_path / "none.png")
    assert "nothing is misclassified" in texts(drawn[0])
    misclassified(images, np.zeros(40, int), np.ones(40, int), None, None, tmp_path / "many.png")
    assert any("the surest 24 shown" in text for text in texts(drawn[1]))
    with pytest.raises(ValueError, match=r"got shape \(3, 4\)"):
        misclassified(np.zeros((3, 4)), np.zeros(3), np.zeros(3), None, None, tmp_path / "x.png")


def test_pyplot_and_the_backend_are_left_alone(tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules
    before = matplotlib.rcParams.copy()
    learning_curves(HISTORY, tmp_path / "c.png")
    assert ("matplotlib.pyplot" in sys.modules) == loaded
    assert dict(matplotlib.rcParams) == dict(before)
