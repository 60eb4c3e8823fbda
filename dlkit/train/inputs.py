"""What `fit` is given, looked at before anything is compiled: an error names the argument."""

from typing import Any

from dlkit.data import Arrays, Loader

__all__ = ["check_arrays", "check_inputs", "check_optimizer", "run_options"]


def check_inputs(train: Any, valid: Any, **counts: Any) -> None:
    """The datasets, and the whole numbers from 1 (None is for those without a limit: `max_steps`, `max_traces`).

    Raises:
      TypeError: another kind of thing. ValueError: a number below 1.
    """
    if not isinstance(train, Loader):
        check_arrays("train", train)
    if valid is not None:
        check_arrays("valid", valid)
    for name, value in counts.items():
        if value is None and name in ("max_steps", "max_traces"):
            continue
        _check_count(name, value)


def _check_count(name: str, value: Any) -> None:
    if value is None or isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def run_options(freeze: Any, accumulate: Any) -> dict[str, Any]:
    """`freeze` as a tuple of globs (one string is one glob) and `accumulate`, as keyword arguments.

    Raises:
      TypeError: `freeze` holds no strings, `accumulate` is no whole number. ValueError: it is below 1.
    """
    globs = (freeze,) if isinstance(freeze, str) else tuple(freeze)
    if not all(isinstance(glob, str) for glob in globs):
        raise TypeError(f"freeze must be path globs such as 'backbone/**', got {freeze!r}")
    _check_count("accumulate", accumulate)
    return {"freeze": globs, "accumulate": int(accumulate)}


def check_arrays(name: str, dataset: Any) -> None:
    """A dict has a length too, that of its fields: it must not pass for a dataset of so many examples."""
    if not isinstance(dataset, Arrays):
        how = "data.Arrays(x=x, y=y)" if isinstance(dataset, tuple | list) else "data.Arrays(**fields)"
        raise TypeError(f"{name}: expected data.Arrays, got {type(dataset).__name__}: {how}")


def check_optimizer(optimizer: Any) -> None:
    """Raises TypeError for what has no `init` and `update`, such as a learning rate or a schedule."""
    if callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None)):
        return
    number = isinstance(optimizer, int | float)
    fix = (
        f"optim.adam({optimizer!r})"
        if number
        else "optim.adam(schedule)"
        if callable(optimizer)
        else "optim.adam(1e-3)"
    )
    raise TypeError(f"optimizer: expected one of dlkit.optim or of optax, got {optimizer!r}: for example {fix}")
