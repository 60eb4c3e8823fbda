"""Curvature in the loop: a callback that measures while `fit` trains, raises alarms, and keeps its own cost down."""

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import optim, tree
from dlkit.curvature import measuring
from dlkit.curvature.directions import stacked_axes
from dlkit.curvature.estimates import estimate
from dlkit.data import Loader
from dlkit.train import Callback

if TYPE_CHECKING:
    from dlkit.train import Run

__all__ = ["CurvatureMonitor"]

PARTS = 8  # pieces of the probe batch, for the noise scale


@dataclass(eq=False)
class CurvatureMonitor(Callback):
    """Measures lambda_max, trace, 2 / lambda_max beside the learning rate, noise scale, and each layer's gradients.

    All on one fixed batch of training examples, in mode `EVAL`, so that numbers of different steps compare. They
    are in `rows` (a dict a measurement) and in the log rows, whence `JsonLines` and `TensorBoard` write them:

    - `curvature/lambda_max` and `lambda_max_error` (its residual norm), `curvature/trace` and `trace_error` (half the
      95 % interval), `curvature/max_stable_lr` (2 (1 + momentum) / lambda_max), `curvature/learning_rate` in use;
    - `curvature/noise_scale`: the critical batch size by McCandlish et al., in examples, from averages over the run of
      its numerator and its denominator, each of which is unbiased where their ratio is not;
    - `curvature/grad_norm/PATH`, `curvature/update_ratio/PATH` (length of the last update over that of the weights),
      and `curvature/dead/PATH`: the share of a layer's outputs none of whose weights gets a gradient, as behind a ReLU
      that is zero for every example.

    Args:
      interval: steps between measurements.
      budget: the share of the run's time that measuring may take, compilation aside (`compile_seconds` tells it): the
        interval is widened to keep to it. None never widens, which makes two runs measure at the same steps.
      examples: of the batch, at most.
      steps: of Lanczos; as many vectors of the parameters' size are on the device. probes: of the trace.
      momentum: of the optimizer, for the limit. It is that of gradient descent; Adam and its like have others.
      on_alarm: "record" them in `alarms` alone, "warn" also, or "stop" the run.
      dead, ratio, flow: what is alarming: a share of dead outputs above `dead`; an update of a matrix or kernel above
        `ratio` times its weights; a leaf whose gradient, per weight, is below `flow` times the largest leaf's.
      lr_alarm: whether a learning rate above the limit is. At the edge of stability it is what one expects.

    `cost` is the share of the run's time that it took so far.

    Raises:
      ValueError: an argument out of range.

    References: Cohen et al., "Gradient descent on neural networks typically occurs at the edge of stability", 2021;
    McCandlish et al., "An empirical model of large-batch training", 2018.
    """

    interval: int = 100
    budget: float | None = 0.1
    examples: int = 128
    steps: int = 12
    probes: int = 4
    momentum: float = 0.0
    on_alarm: Literal["record", "warn", "stop"] = "record"
    dead: float = 0.5
    ratio: float = 0.1
    flow: float = 1e-6
    lr_alarm: bool = True
    rows: list[dict[str, Any]] = field(default_factory=list, init=False, repr=False)
    alarms: list[tuple[int, str]] = field(default_factory=list, init=False, repr=False)
    compile_seconds: float = field(default=0.0, init=False, repr=False)
    seconds: float = field(default=0.0, init=False, repr=False)
    _next: int = field(default=0, init=False, repr=False)
    _sums: list[float] = field(default_factory=lambda: [0.0, 0.0], init=False, repr=False)
    _unlogged: list[dict[str, Any]] = field(default_factory=list, init=False, repr=False)
    _before: Any = field(default=None, init=False, repr=False)
    _program: Any = field(default=None, init=False, repr=False)
    _clock: tuple[int, float] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, least in (("interval", 1), ("examples", 2), ("steps", 2), ("probes", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"CurvatureMonitor: {name} must be at least {least}, got {getattr(self, name)}")
        if self.budget is not None and not 0 < self.budget < 1:
            raise ValueError(f"CurvatureMonitor: budget must be in (0, 1) or None, got {self.budget}")
        if self.on_alarm not in ("record", "warn", "stop"):
            raise ValueError(f"CurvatureMonitor: on_alarm must be 'record', 'warn' or 'stop', got {self.on_alarm!r}")

    @property
    def cost(self) -> float:
        """The share of the time since the first step that measuring took, compilation aside."""
        if self._clock is None:
            return 0.0
        return self.seconds / max(time.perf_counter() - self._clock[1] - self.compile_seconds, 1e-9)

    def on_start(self, run: "Run") -> None:
        dataset = run.loader.dataset
        size = min(self.examples, len(dataset))
        size -= size % PARTS if size >= 2 * PARTS else 0
        self._parts = PARTS if size >= 2 * PARTS and size % PARTS == 0 else 1
        self._batch = jax.device_put(Loader(dataset, size, seed=0, transform=run.loader.transform).batch(0, 0))
        self._next = max(self._next, run.step + 1) if self._next else run.step + self.interval
        self._keep(run)

    def _keep(self, run: "Run") -> None:
        if run.step + 1 == self._next:
            self._before = jax.tree.map(jnp.copy, run.state.params)

    def on_step(self, run: "Run") -> None:
        if self._clock is None:
            jax.block_until_ready(run.state.params)
            self._clock = (run.step, time.perf_counter())
        if run.step >= self._next:
            self._next = run.step + (1 if self._program is not None else self._wait(run))
            if self._next <= run.step + 1:
                self._measure(run)
        self._keep(run)

    def _measure(self, run: "Run") -> None:
        jax.block_until_ready(run.state.params)  # the steps that are under way are no cost of measuring
        begun, params = time.perf_counter(), run.state.params
        args = (params, params if self._before is None else self._before, run.state.state, self._batch)
        key = jax.random.fold_in(jax.random.key(0), run.step)
        if self._program is None:
            stacked = tuple(stacked_axes(run.task.model, params).items())
            size = sum(leaf.size for leaf in jax.tree.leaves(params))
            made = measuring.program(run.task, min(self.steps, size), self.probes, self._parts, stacked)
            self._program = made.lower(*args, key).compile()
            self.compile_seconds += time.perf_counter() - begun
            begun = time.perf_counter()
        found = jax.device_get(self._program(*args, key))
        row = self._row(run, found)
        self.rows.append(row)
        self._unlogged.append(row)
        self._alarm(run, row)
        self._before = None
        now = time.perf_counter()
        self.seconds += now - begun
        self._next = run.step + max(self.interval, self._affordable(run.step, now, now - begun))

    def _wait(self, run: "Run") -> int:
        """Steps until the first measurement, whose cost is guessed: a product takes about two steps' work."""
        if self.budget is None or self._clock is None or run.step <= self._clock[0]:
            return 1
        now = time.perf_counter()
        rows = self._batch["weight"].shape[0] / run.loader.batch_size
        each = (now - self._clock[1]) / (run.step - self._clock[0])
        return self._affordable(run.step, now, 1.3 * each * rows * (2 * (self.steps + self.probes) + 3))

    def _affordable(self, step: int, now: float, cost: float) -> int:
        """Steps until the next measurement keeps to the budget."""
        if self.budget is None or self._clock is None or step <= self._clock[0]:
            return 1
        passed = now - self._clock[1] - self.seconds - self.compile_seconds
        each = max(passed / (step - self._clock[0]), 1e-9)
        # What is spent by then, over all time until then, must be the budget at most. Two fifths are left for what the
        # clock here does not see: steps of 0.2 ms ran slower for a while after each measurement, half its time again.
        wanted = (self.seconds + cost) / (0.6 * self.budget) - (self.seconds + cost)
        return math.ceil(max(wanted - passed, 0.0) / each)

    def _row(self, run: "Run", found: Mapping[str, Any]) -> dict[str, Any]:
        alpha, beta = (np.asarray(found[name], np.float64) for name in ("alpha", "beta"))
        row: dict[str, Any] = {"curvature/step": run.step}
        if np.isfinite(alpha).all() and np.isfinite(beta).all():
            values, inner = np.linalg.eigh(np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1))
            top = float(values[-1])
            row["curvature/lambda_max"] = top
            rounding = float(np.finfo(np.float32).eps) * float(np.abs(values).max())
            row["curvature/lambda_max_error"] = float(beta[-1] * abs(inner[-1, -1])) + rounding
            row["curvature/max_stable_lr"] = 2 * (1 + self.momentum) / top if top > 0 else math.inf
        traced = estimate(np.asarray(found["trace"], np.float64), 0.95, self.probes)
        row["curvature/trace"], row["curvature/trace_error"] = traced.value, (traced.high - traced.low) / 2
        rates = optim.learning_rates(run.state.opt_state)
        if rates:
            row["curvature/learning_rate"] = max(float(rate) for rate in rates.values())
        if "noise" in found:
            noise, square = (float(v) for v in found["noise"])
            self._sums = [self._sums[0] + noise, self._sums[1] + square]
            row["curvature/noise_scale"] = self._sums[0] / self._sums[1] if self._sums[1] > 0 else math.inf
        for path, norm in found["grad_norm"].items():
            row[f"curvature/grad_norm/{path}"] = float(norm)
        if self._before is not None:
            for path, norm in found["update_norm"].items():
                if found["weight_norm"][path] > 0:
                    row[f"curvature/update_ratio/{path}"] = float(norm / found["weight_norm"][path])
        for path, share in found["dead"].items():
            row[f"curvature/dead/{path}"] = float(share)
        return row

    def _alarm(self, run: "Run", row: Mapping[str, Any]) -> None:
        said = []
        rate, limit = row.get("curvature/learning_rate"), row.get("curvature/max_stable_lr", math.inf)
        if self.lr_alarm and rate is not None and rate > limit:
            said.append(f"the learning rate {rate:.3g} is above 2 / lambda_max = {limit:.3g}")
        sizes = {path: math.sqrt(leaf.size) for path, leaf in tree.flatten(run.state.params).items()}
        flow = {path: row[f"curvature/grad_norm/{path}"] / size for path, size in sizes.items() if size}
        largest = max(flow.values(), default=0.0)
        for path, value in flow.items():
            if not math.isfinite(value):
                said.append(f"the gradient of {path} is {value}")
            elif value < self.flow * largest:
                said.append(f"the gradient of {path} is {value / largest:.1e} of the largest, weight by weight")
        for key, value in row.items():
            kind, _, path = key.removeprefix("curvature/").partition("/")
            if kind == "dead" and value > self.dead:
                said.append(f"{value:.0%} of the outputs of {path} are dead")
            # A bias that starts at zero is small beside its first updates: only weights are judged.
            if kind == "update_ratio" and value > self.ratio and f"curvature/dead/{path}" in row:
                said.append(f"the last update of {path} is {value:.2g} of its weights")
        self.alarms += [(run.step, text) for text in said]
        if said and self.on_alarm == "warn":
            warnings.warn(f"step {run.step}: " + "; ".join(said), stacklevel=2)
        elif said and self.on_alarm == "stop":
            run.stop(f"curvature alarm: {said[0]}")

    def on_log(self, run: "Run", row: Mapping[str, Any]) -> None:
        self._write(row)

    def on_epoch(self, run: "Run", row: Mapping[str, Any]) -> None:
        self._write(row)

    def _write(self, row: Mapping[str, Any]) -> None:
        """Add what was measured up to the row's step, the newest if there are several."""
        ready = [held for held in self._unlogged if held["curvature/step"] <= row["step"]]
        if ready and isinstance(row, dict):
            row.update(ready[-1] | {"time/curvature_cost": self.cost})
            self._unlogged = self._unlogged[len(ready) :]

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows, "alarms": self.alarms, "next": self._next, "sums": self._sums}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.rows, self._next, self._sums = list(state["rows"]), state["next"], list(state["sums"])
        self.alarms = [(step, text) for step, text in state["alarms"]]
