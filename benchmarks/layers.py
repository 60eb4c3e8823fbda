"""Layers beside other libraries, forward and backward, in one process, interleaved.

    python benchmarks/layers.py [--only attention recurrent ...] [--match LSTM] [--rounds 15] [--write]

Every library has the same weights and the same input, and before anything is timed its output must be that of dlkit (to
1e-4 of the largest) unless the table says that it computes another function. A sample is one call that is not timed and
then as many as take some 20 ms; the gradient is that of parameters and input. `--write` puts the tables into
`benchmarks/RESULTS.md`: the whole section anew, or with `--only` or `--match` these tables alone, each with the machine
that it was taken on.
"""

import argparse
import importlib
import os

import jax
import numpy as np
import record
from families.case import Case, Timed
from timing import PEERS, best, measure, medians, quartiles, sample

FAMILIES = ("attention", "recurrent", "convolution", "norms", "experts")
TOLERANCE = 1e-4


def prepare(case: Case) -> dict[str, Timed]:
    ready: dict[str, Timed] = {}
    for name, make in case.runs.items():
        ready[name] = made = make()
        want = ready["dlkit"].y
        if name in case.other:
            continue
        error = float(np.max(np.abs(made.y - want))) / float(np.max(np.abs(want)))
        if made.y.shape != want.shape or not error <= TOLERANCE:
            raise SystemExit(f"{case.title}: {name} gives {made.y.shape}, which differs by {error:.2g} from dlkit's")
    return ready


def table(case: Case, seconds: dict[str, list[float]]) -> list[str]:
    middle = medians(seconds)
    of_torch, peers = [n for n in middle if n.startswith("torch")], [n for n in middle if n.startswith(PEERS)]
    bases = {"of torch's best": best(middle, of_torch)}
    if peers:
        bases["of the best JAX peer"] = best(middle, peers)
    head = [f"{title} ({name})" if name != "torch" else title for title, name in bases.items()]
    rows = [f"| | median ms | quartiles | {' | '.join(head)} |", "|---" * (3 + len(head)) + "|"]
    for name, times in seconds.items():
        shown = f"{name} (another function)" if name in case.other else name
        ratios = " | ".join(f"{middle[name] / middle[base]:.2f}" for base in bases.values())
        rows.append(f"| {shown} | {middle[name] * 1e3:.2f} | {quartiles(times)} | {ratios} |")
    if case.goal is not None:
        rows += ["", f"Goal: at most {case.goal} of torch's best."]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="layers beside other libraries")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--match", default="", help="only cases whose title has this in it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="write the tables into RESULTS.md")
    args = parser.parse_args()
    torch = importlib.import_module("torch")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    machine = record.machine("jax", "flax", "equinox", "dm-haiku", "torch")
    blocks: dict[str, list[str]] = {}
    for family in args.only:
        for case in importlib.import_module(f"families.{family}").cases():
            if args.match not in case.title:
                continue
            print(case.title, flush=True)
            ready = prepare(case)
            steps = max(1, round(0.02 / sample(ready["dlkit"], 1)))
            load = os.getloadavg()[0]
            rows = table(case, measure(ready, steps, args.rounds))
            print("\n".join(rows), "\n", flush=True)
            blocks[case.title] = [*rows, "", f"{args.rounds} rounds. Load of the machine before: {load:.1f}."]
            jax.clear_caches()
    if args.write and (args.match or set(args.only) != set(FAMILIES)):
        record.renew("layers", {title: [*rows, "", machine] for title, rows in blocks.items()})
    elif args.write:
        tables = [line for title, rows in blocks.items() for line in ("", f"### {title}", "", *rows)]
        record.write("layers", "Layers beside other libraries", [machine, *tables])


if __name__ == "__main__":
    main()
