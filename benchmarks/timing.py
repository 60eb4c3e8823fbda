"""Interleaved timing in one process: samples in an order drawn anew each round, medians, quartiles."""

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

PEERS = ("nnx", "equinox", "haiku")  # the other JAX libraries


@dataclass(frozen=True)
class Run:
    """What is timed: `step` does the work once, `wait` waits for all that it computed."""

    step: Callable[[], Any]
    wait: Callable[[], None]


@dataclass(frozen=True)
class Trainer(Run):
    """A `step` trains on the batch once and returns the loss."""

    parameters: int


def sample(run: Run, steps: int) -> float:
    """Seconds a step, over `steps` steps after one that is not timed (caches, threads of the library before it)."""
    run.step()
    run.wait()
    start = time.perf_counter()
    for _ in range(steps):
        run.step()
    run.wait()
    return (time.perf_counter() - start) / steps


def measure(runs: Mapping[str, Run], steps: int, rounds: int) -> dict[str, list[float]]:
    """Each round takes one sample of everything, in an order drawn anew: what ran just before leaves its traces."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    draw = random.Random(0)
    for _ in range(rounds):
        for name in draw.sample(list(runs), len(runs)):
            seconds[name].append(sample(runs[name], steps))
    return seconds


def best(middle: Mapping[str, float], names: Iterable[str]) -> str:
    """The fastest of `names`."""
    return min(names, key=middle.__getitem__)


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(times) for name, times in seconds.items()}


def quartiles(times: list[float]) -> str:
    low, _, high = statistics.quantiles(times, n=4)
    return f"{low * 1e3:.2f}-{high * 1e3:.2f}"
