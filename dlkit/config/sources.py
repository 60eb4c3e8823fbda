"""The datasets that a configuration can name, divided into train, validation and test sets."""

import zipfile
from pathlib import Path

import numpy as np

from dlkit import data
from dlkit.config.errors import ConfigError, nearest
from dlkit.config.schema import ArraysFile, Config

__all__ = ["EXAMPLES", "Split", "datasets"]

Split = tuple[data.Arrays, data.Arrays | None, data.Arrays | None]

EXAMPLES = {"digits": (8, 8, 1), "mnist": (28, 28, 1)}
"""The shape of one example where the name says it."""


def datasets(config: Config) -> Split:
    """(train, valid, test) as `config.data` says, divided by `config.seed`; a part of size 0 is None.

    Raises:
      ConfigError: a file is missing or holds something else, or the parts leave nothing to train on.
    """
    spec = config.data
    try:
        if spec.name == "mnist":
            train, valid, _ = data.split(data.mnist("train"), valid=spec.valid, test=0, seed=config.seed, stratify="y")
            test: data.Arrays | None = data.mnist("test")
        else:
            whole = data.digits() if spec.name == "digits" else _from_file(spec)
            by = "y" if spec.name == "digits" or (spec.stratify and whole["y"].dtype.kind in "iu") else None
            train, valid, test = data.split(whole, valid=spec.valid, test=spec.test, seed=config.seed, stratify=by)
        if spec.limit is not None and spec.limit < len(train):
            by = "y" if train["y"].dtype.kind in "iu" else None
            train = data.split(train, valid=0, test=len(train) - spec.limit, seed=config.seed, stratify=by)[0]
    except ValueError as error:
        raise ConfigError(f"data: {error}") from None
    return train, valid if len(valid) else None, test if test is not None and len(test) else None


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
