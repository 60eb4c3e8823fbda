"""What `curvature.CurvatureMonitor` costs a run: its own account of it, and the run's time beside one without it.

    python benchmarks/monitor.py [--seconds 20] [--rounds 2]

Both runs are of so many seconds, one after the other in each round; compilation is left out: the monitor compiles in
its first measurement and says how long it took, and runs are timed behind their first epoch.
"""

import argparse
import time
from typing import Any

import jax
import numpy as np
from loop import networks

from dlkit import curvature, data, losses, optim, train


class Rate(train.Callback):
    """Seconds a step over the whole run, behind the first epoch."""

    def on_epoch(self, run: Any, row: Any) -> None:
        jax.block_until_ready(run.state.params)
        now = (run.step, time.perf_counter())
        if not hasattr(self, "begun"):
            self.begun = now
        self.last = now

    def seconds(self, less: float = 0.0) -> float:
        return (self.last[1] - self.begun[1] - less) / (self.last[0] - self.begun[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    digits = data.digits()
    print("| network | steps | measurements | its account | run beside one without it | compilation s |")
    print("|---|---|---|---|---|---|")
    for name, model in networks().items():
        task, loader = train.Task(model, losses.cross_entropy), data.Loader(digits, 128)
        trial = Rate()
        train.fit(task, optim.sgd(0.01), loader, epochs=6, callbacks=[trial])
        epochs = max(10, int(given.seconds / trial.seconds() / len(loader)))
        ratios, accounts, compiled, measured = [], [], [], []
        for _ in range(given.rounds):
            bare, watched, monitor = Rate(), Rate(), curvature.CurvatureMonitor()
            train.fit(task, optim.sgd(0.01), loader, epochs=epochs, callbacks=[bare])
            train.fit(task, optim.sgd(0.01), loader, epochs=epochs, callbacks=[monitor, watched])
            accounts.append(monitor.seconds / (watched.last[1] - monitor._clock[1] - monitor.compile_seconds))
            ratios.append(watched.seconds(monitor.compile_seconds) / bare.seconds())
            compiled.append(monitor.compile_seconds)
            measured.append(len(monitor.rows))
        print(
            f"| {name} | {epochs * len(loader)} | {', '.join(map(str, measured))} | "
            f"{', '.join(f'{a:.1%}' for a in accounts)} | {', '.join(f'{r:.3f}' for r in ratios)} | "
            f"{np.mean(compiled):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
