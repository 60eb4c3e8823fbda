"""What the training loop adds to the step: ratios, interleaved in one process, with median and quartiles.

    python benchmarks/loop.py [--repeats 15] [--write]

`fit` is an epoch of `train.fit`: batches, the step, rows every 50 steps, exact sums, callbacks. `bare` is the same
step, `make_step`, called in a Python `for` over the loader. `floor` is a step written by hand that returns the loss and
nothing else, called over batches that are on the device already: what remains is JAX and the network. `silent` is
`fit` that logs nothing within the epoch. The second table is the cost of plain dicts: the same step of a 100-layer
network, jitted over nested dicts and over a flat tuple of the same arrays. `--write` puts
both into `benchmarks/RESULTS.md`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import record

from dlkit import data, losses, metrics, nn, optim, train

EPOCHS_A_RUN = 30  # a run compiles anew, and its first epochs warm the caches: the median of many is the loop's


def networks() -> dict[str, nn.Chain]:
    cnn = nn.Chain(
        nn.Conv(1, 16, 3), nn.Relu(), nn.MaxPool(2), nn.Conv(16, 32, 3), nn.Relu(), nn.MaxPool(2),
        nn.Flatten(), head=nn.Linear(2 * 2 * 32, 10),
    )  # fmt: skip
    return {"mlp": nn.Chain(nn.Flatten(), nn.Linear(64, 128), nn.Relu(), head=nn.Linear(128, 10)), "cnn": cnn}


class EpochTimes(train.Callback):
    """Seconds of each epoch but the first, which compiles, and the last, after which the run ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_epoch(self, run: Any, row: Any) -> None:
        self.times.append(time.perf_counter())

    def seconds(self) -> list[float]:
        found = np.diff(self.times).tolist()
        self.times = []
        return found


def ways(task: train.Task, loader: data.Loader, optimizer: Any) -> dict[str, Callable[[], list[float]]]:
    def fit(log_every: int) -> list[float]:
        times = EpochTimes()
        train.fit(task, optimizer, loader, epochs=EPOCHS_A_RUN, log_every=log_every, callbacks=[times])
        return times.seconds()

    step = train.make_step(task, optimizer)

    def bare() -> list[float]:
        state, times = train.create_state(task.model, optimizer, jax.random.key(0)), EpochTimes()
        for epoch in range(EPOCHS_A_RUN):
            for batch in loader.epoch(epoch):
                state, measured = step(state, batch)
            jax.block_until_ready(measured)
            times.on_epoch(None, None)
        return times.seconds()

    def by_hand(state: Any, batch: Any) -> Any:
        params, opt_state, key, n = state

        def loss(params: Any) -> Any:
            mode = nn.training(jax.random.fold_in(key, n))
            logits, _ = task.model.apply(params, None, batch["x"], mode)
            return losses.weighted_mean(losses.cross_entropy(logits, batch["y"]), batch["weight"])

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optim.apply_updates(params, updates), opt_state, key, n + 1), value

    compiled = jax.jit(by_hand, donate_argnums=0)
    placed = jax.device_put(list(loader.epoch(0)))

    def floor() -> list[float]:
        made, times = train.create_state(task.model, optimizer, jax.random.key(0)), EpochTimes()
        state = (made.params, made.opt_state, made.key, made.step)
        for _ in range(EPOCHS_A_RUN):
            for batch in placed:
                state, value = compiled(state, batch)
            jax.block_until_ready(value)
            times.on_epoch(None, None)
        return times.seconds()

    return {"fit": lambda: fit(50), "silent": lambda: fit(10**9), "bare": bare, "floor": floor}


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def loop(repeats: int) -> list[str]:
    train_set, _, _ = data.split(data.digits(), valid=0.1, test=0.2, seed=0)
    loader = data.Loader(train_set, 64, seed=0, drop_last=True)
    lines = [
        f"Digits, batches of 64, {len(loader)} steps an epoch, {EPOCHS_A_RUN} epochs a run, {repeats} runs each.",
        "",
        "| network | way | us a step | quartiles | of bare | of floor |",
        "|---|---|---|---|---|---|",
    ]
    for name, model in networks().items():
        task = train.Task(model, losses.cross_entropy, {"accuracy": metrics.Accuracy()})
        runs = ways(task, loader, optim.adamw(3e-3))
        seconds: dict[str, list[float]] = {way: [] for way in runs}
        for repeat in range(-1, repeats):
            shift = repeat % len(runs)
            for way in (list(runs) * 2)[shift : shift + len(runs)]:
                # The median epoch of a run: another process that takes a core for a moment spoils one epoch, not all.
                found = statistics.median(runs[way]()) / len(loader)
                if repeat >= 0:
                    seconds[way].append(found)
        for way, times in seconds.items():
            low, middle, high = (1e6 * t for t in quartiles(times))
            ratios = [
                statistics.median(a / b for a, b in zip(times, seconds[base], strict=True))
                for base in ("bare", "floor")
            ]
            ratio = " | ".join(f"{r:.2f}" for r in ratios)
            lines.append(f"| {name} | {way} | {middle:.0f} | {low:.0f}-{high:.0f} | {ratio} |")
    return lines


def trees(repeats: int) -> list[str]:
    """One training step of 100 layers, 200 arrays of parameters and 200 of momentum: nested dicts, or one flat tuple.
    And what the call itself costs: the same trees through a jitted function that does next to nothing."""
    deep = nn.Chain(*(nn.Linear(64, 64) for _ in range(99)), head=nn.Linear(64, 10))
    two = nn.Chain(nn.Linear(64, 128), nn.Relu(), head=nn.Linear(128, 10))
    lines = ["| a call of | state as | us | quartiles |", "|---|---|---|---|"]
    optimizer = optim.sgd(1e-3, momentum=0.9)
    for name, model in (("100 layers, step", deep), ("2 layers, step", two)):
        task = train.Task(model, losses.cross_entropy)
        batch = {"x": jnp.ones((128, 64)), "y": jnp.zeros(128, jnp.int32), "weight": jnp.ones(128)}
        state = train.create_state(model, optimizer, jax.random.key(0))
        leaves, treedef = jax.tree.flatten(jax.tree.map(jnp.copy, state))

        def flat(leaves: Any, batch: Any, treedef: Any = treedef, task: Any = task) -> Any:
            new, measured = train.training_step(task, optimizer, jax.tree.unflatten(treedef, leaves), batch)
            return tuple(jax.tree.leaves(new)), measured

        lines += compare(name, {"dicts": (train.make_step(task, optimizer), state),
                                "tuple": (jax.jit(flat, donate_argnums=0), tuple(leaves))}, batch, repeats)  # fmt: skip
    for name, model in (("100 layers, bare call", deep), ("2 layers, bare call", two)):
        params = model.init(jax.random.key(0))
        touch = jax.jit(lambda p, _: (jax.tree.map(lambda a: a, p), 0), donate_argnums=0)
        copied = tuple(jax.tree.leaves(jax.tree.map(jnp.copy, params)))
        lines += compare(name, {"dicts": (touch, params), "tuple": (touch, copied)}, 0, repeats)
    return lines


def compare(name: str, ways: dict[str, tuple[Any, Any]], batch: Any, repeats: int) -> list[str]:
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    held = {way: state for way, (_, state) in ways.items()}
    for repeat in range(-2, repeats):
        for way in sorted(ways, reverse=repeat % 2 == 0):
            begin, state, step = time.perf_counter(), held[way], ways[way][0]
            for _ in range(50):
                state, _ = step(state, batch)
            jax.block_until_ready(state)
            held[way] = state
            if repeat >= 0:
                seconds[way].append((time.perf_counter() - begin) / 50)
    lines = []
    for way, times in seconds.items():
        low, middle, high = (1e6 * t for t in quartiles(times))
        lines.append(f"| {name} | {way} | {middle:.0f} | {low:.0f}-{high:.0f} |")
    low, middle, high = quartiles([a / b for a, b in zip(seconds["dicts"], seconds["tuple"], strict=True)])
    return [*lines, f"| {name} | dicts / tuple | {middle:.3f} | {low:.3f}-{high:.3f} |"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/RESULTS.md")
    args = parser.parse_args()
    lines = [record.machine("jax"), "", *loop(args.repeats), "", *trees(args.repeats)]
    print("\n".join(lines))
    if args.write:
        record.write("loop", "What the training loop adds to the step", lines)


if __name__ == "__main__":
    main()
