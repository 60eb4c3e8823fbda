"""One training step (forward, backward, Adam) beside other libraries, in one process, interleaved.

    python benchmarks/steps.py [--only mlp cnn resnet20] [--rounds 25] [--no-compile] [--write]

Every library trains the same network from the same weights on the same batch: before anything is timed, parameter
counts must be equal, the first loss to 1e-5 and the third to 1 %. A sample is one untimed step (caches, threads of the
library before it) and then one timed step, or ten of the MLP. Each round takes one sample of everything, in an order
drawn anew. `floor` is `jax.jit` over plain dicts and optax, the obvious way. torch is its best variant: eager, channels
last, fused Adam, `torch.compile` where it works. `--write` puts the tables into `benchmarks/RESULTS.md`.
"""

import argparse
import importlib
import os
from collections.abc import Callable
from functools import partial

import jax
import record
from compared import prepare, table
from peers.problem import Problem, problem
from timing import PEERS, Trainer, measure

GOALS = {"mlp": 0.5, "cnn": 1.2, "resnet20": 1.2}  # of torch's best


def trainers(case: Problem, compile_torch: bool) -> dict[str, Callable[[], Trainer]]:
    """How to make each trainer, by the name of its row."""
    found: dict[str, Callable[[Problem], Trainer]] = {"dlkit": importlib.import_module("peers.with_dlkit").trainer}
    found["floor"] = importlib.import_module("peers.floor").trainer
    for peer in PEERS:
        found[peer] = importlib.import_module(f"peers.with_{peer}").trainer
    torch = importlib.import_module("peers.with_torch").trainer
    last = {} if case.name == "mlp" else {"channels_last": True}
    found["torch eager"] = torch
    found["torch fused"] = partial(torch, fused=True)
    if last:
        found["torch channels last, fused"] = partial(torch, fused=True, **last)
    if compile_torch:
        found["torch compiled, fused"] = partial(torch, fused=True, compiled=True, **last)
    return {name: partial(make, case) for name, make in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="one training step beside other libraries")
    parser.add_argument("--only", nargs="+", choices=list(GOALS), default=list(GOALS))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile, which takes a minute")
    parser.add_argument("--write", action="store_true", help="write the tables into RESULTS.md")
    args = parser.parse_args()
    torch = importlib.import_module("torch")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    text = [record.machine("jax", "optax", "flax", "equinox", "dm-haiku", "torch")]
    for name in args.only:
        case = problem(name)
        print(case.title, flush=True)
        ready = prepare(trainers(case, not args.no_compile))
        before = os.getloadavg()[0]
        rows = table(measure(ready, case.steps, args.rounds), GOALS[name])
        print("\n".join(rows), "\n", flush=True)
        text += ["", f"### {case.title}", "", *rows]
        text += ["", f"{args.rounds} rounds; the load of the machine before them was {before:.1f}."]
        jax.clear_caches()
    if args.write:
        record.write("steps", "Training steps beside other libraries", text)


if __name__ == "__main__":
    main()
