"""Trainers of one network in several libraries: that they are the same network, and the table of their times."""

import time
from collections.abc import Callable, Mapping

from timing import PEERS, Trainer, best, medians, quartiles

__all__ = ["prepare", "table"]


def prepare(makers: Mapping[str, Callable[[], Trainer]]) -> dict[str, Trainer]:
    """The trainers, after three steps that must give every one of them the same losses."""
    ready: dict[str, Trainer] = {}
    first: tuple[int, list[float]] | None = None
    for name, make in makers.items():
        start = time.perf_counter()
        trainer = make()
        try:
            losses = [float(trainer.step()) for _ in range(3)]
        except Exception as error:
            if "compiled" not in name:
                raise
            print(f"  {name}: left out, {type(error).__name__}: {str(error).splitlines()[0][:80]}")
            continue
        seconds = time.perf_counter() - start
        print(f"  {name:27} {trainer.parameters:7} parameters, losses {losses}, ready in {seconds:.1f} s", flush=True)
        first = first or (trainer.parameters, losses)
        want_count, want = first
        same = abs(losses[0] / want[0] - 1) < 1e-5 and abs(losses[2] / want[2] - 1) < 1e-2
        if trainer.parameters != want_count or not same:
            raise SystemExit(f"{name} is another network: it should have {want_count} parameters and losses {want}")
        ready[name] = trainer
    return ready


def table(seconds: Mapping[str, list[float]], goal: float) -> list[str]:
    """Markdown; `goal` is a share of torch's best."""
    middle = medians(seconds)
    torch, peer = best(middle, (name for name in middle if name.startswith("torch"))), best(middle, PEERS)
    rows = [
        f"| | median ms | quartiles | of torch's best ({torch}) | of the floor | of the best JAX peer ({peer}) |",
        "|---|---|---|---|---|---|",
    ]
    for name, times in seconds.items():
        ratios = (f"{middle[name] / middle[base]:.2f}" for base in (torch, "floor", peer))
        rows.append(f"| {name} | {middle[name] * 1e3:.2f} | {quartiles(times)} | {' | '.join(ratios)} |")
    of_torch, of_peer = middle["dlkit"] / middle[torch], middle["dlkit"] / middle[peer]
    verdict = (
        f"Goal: at most {goal} of torch's best and never slower than a JAX peer; here {of_torch:.2f} and {of_peer:.2f}."
    )
    return [*rows, "", verdict]
