"""The datasets that a configuration can name, divided into train, validation and test sets."""

import zipfile
from pathlib import Path

import numpy as np

from dlkit import data
from dlkit.config.errors import ConfigError, nearest
from dlkit.config.language import corpus
from dlkit.config.schema import ArraysFile, Cifar10, Config, Cora, KarateClub, Mnist, Pairs, Text

__all__ = ["EXAMPLES", "GRAPHS", "Split", "datasets", "graph_sizes"]

Split = tuple[data.Arrays, data.Arrays | None, data.Arrays | None]

EXAMPLES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
"""The shape of one example where the name says it."""

GRAPHS = ("cora", "karate_club")
"""Where an example is a graph."""


def graph_sizes(config: Config) -> tuple[int, int]:
    """Features and classes of a node of the data.

    Raises:
      ConfigError: the data is no graph, or is missing.
    """
    if config.data.name not in GRAPHS:
        raise ConfigError(
            f"model: {config.model.name} wants a graph, but data is {config.data.name}: expected {' or '.join(GRAPHS)}"
        )
    train = _graph(config)[0]
    return train["x"].shape[-1], int(train["y"].max()) + 1


def _graph(config: Config) -> tuple[data.Arrays, data.Arrays, data.Arrays]:
    spec = config.data
    if spec.name == "karate_club":
        return data.karate_club()
    try:
        return data.cora()
    except FileNotFoundError as error:
        if spec.name == "cora" and spec.fallback:
            return data.karate_club()
        raise ConfigError(f"data: {error}; with data.fallback = true the karate club takes its place") from None


def datasets(config: Config) -> Split:
    """(train, valid, test) as `config.data` says, divided by `config.seed`; a part of size 0 is None.

    Raises:
      ConfigError: a file is missing or holds something else, or the parts leave nothing to train on.
    """
    spec = config.data
    try:
        if isinstance(spec, Cora | KarateClub):
            return _graph(config)
        if isinstance(spec, Text | Pairs):
            return corpus(config).split
        test: data.Arrays | None
        if spec.name == "mnist":
            whole, test = _mnist(spec)
            valid_size = spec.valid if len(whole) > 10_000 or isinstance(spec.valid, float) else 0.1
            train, valid, _ = data.split(whole, valid=valid_size, test=0, seed=config.seed, stratify="y")
        elif spec.name == "cifar10":
            whole, test = _cifar10(spec)
            train, valid, _ = data.split(whole, valid=spec.valid, test=0, seed=config.seed, stratify="y")
        else:
            whole = data.digits() if spec.name == "digits" else _from_file(spec)
            by = "y" if spec.name == "digits" or (spec.stratify and whole["y"].dtype.kind in "iu") else None
            train, valid, test = data.split(whole, valid=spec.valid, test=spec.test, seed=config.seed, stratify=by)
        if spec.limit is not None and spec.limit < len(train):
            by = "y" if train["y"].dtype.kind in "iu" else None
            train = data.split(train, valid=0, test=len(train) - spec.limit, seed=config.seed, stratify=by)[0]
    except (ValueError, FileNotFoundError, ImportError) as error:
        raise ConfigError(f"data: {error}") from None
    return train, valid if len(valid) else None, test if test is not None and len(test) else None


def _mnist(spec: Mnist) -> tuple[data.Arrays, data.Arrays]:
    """MNIST; or, where it is missing and the config allows it, scikit-learn's digits at its size, as bytes."""
    try:
        return data.mnist("train"), data.mnist("test")
    except data.DownloadError:
        if not spec.fallback:
            raise
    return _enlarged(3, 2, 1)


def _cifar10(spec: Cifar10) -> tuple[data.Arrays, data.Arrays]:
    """CIFAR-10; or, where it is missing and the config allows it, scikit-learn's digits at its size, as bytes."""
    try:
        return data.cifar10("train", per_class=spec.per_class), data.cifar10("test")
    except FileNotFoundError as error:
        if not spec.fallback:
            raise ConfigError(f"data: {error}; with data.fallback = true digits take its place") from None
    return _enlarged(4, 0, 3)


def _enlarged(times: int, border: int, channels: int) -> tuple[data.Arrays, data.Arrays]:
    """scikit-learn's digits with pixels of `times` x `times`, a black border and equal channels: train and test."""
    whole = data.digits()
    around = (border, border)
    x = np.pad(np.kron(whole["x"], np.ones((1, times, times, channels), np.float32)), ((0, 0), around, around, (0, 0)))
    large = data.Arrays(name="digits", classes=whole.classes, x=(255 * x).round().astype(np.uint8), y=whole["y"])
    train, _, test = data.split(large, valid=0, test=0.2, seed=0, stratify="y")
    return train, test


def _from_file(spec: ArraysFile) -> data.Arrays:
    path = Path(spec.path)
    if path.suffix != ".npz":
        raise ConfigError(
            f"data.path: expected an .npz file with the arrays {spec.x!r} and {spec.y!r}, got {spec.path!r}"
        )
    try:
        # Without pickles: an array of Python objects would run code when it is read.
        with np.load(path, allow_pickle=False) as file:
            for key, name in (("data.x", spec.x), ("data.y", spec.y)):
                if name not in file.files:
                    raise ConfigError(f"{key}: {spec.path} has no array {name!r}; {nearest(name, file.files)}")
            x, y = _narrow(file[spec.x]), _narrow(file[spec.y])
    except FileNotFoundError:
        raise ConfigError(f"data.path: there is no file {spec.path!r} (paths start at the current folder)") from None
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"data.path: cannot read {spec.path!r}: {error}") from None
    try:
        return data.Arrays(name=path.stem, x=x, y=y)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"data.path: {spec.path}: {error}") from None


def _narrow(array: np.ndarray) -> np.ndarray:
    """Floats become float32, bytes that are pixels (three axes or more) float32 in [0, 1], other integers int32."""
    if array.dtype == np.uint8 and array.ndim >= 3:
        return array.astype(np.float32) / np.float32(255)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind in "iub":
        if array.size and (array.min() < -(2**31) or array.max() >= 2**31):
            raise ValueError(f"integers up to {array.max()} do not fit int32")
        return array.astype(np.int32)
    return array
