"""Images per second of the loader beside the bare numpy gather, in one process, interleaved: median and quartiles.

    taskset -c 0 python benchmarks/loader.py

`gather` is what no loader can do without: `(x[rows], y[rows])` for each batch, in a loop over rows already in order.
`take` is the same with numpy's `take`. Each way holds one batch
while the next is made, as training does. `loader` also makes `weight` and `index`. `epoch` adds the shuffle.
"""

import statistics
import time

import numpy as np

from dlkit.data import Arrays, Loader

N, BATCH, REPEATS = 60_000, 128, 31


def measure(x: np.ndarray) -> dict[str, list[float]]:
    y = np.random.default_rng(1).integers(0, 10, N).astype(np.int32)
    loader = Loader(Arrays(x=x, y=y), BATCH, drop_last=True)
    rows = [loader.indices(0)[i * BATCH : (i + 1) * BATCH] for i in range(len(loader))]

    def gather() -> None:
        for r in rows:
            batch = (x[r], y[r])  # noqa: F841

    def take() -> None:
        for r in rows:
            batch = (x.take(r, axis=0), y.take(r, axis=0))  # noqa: F841

    def batches(epoch: int = 0) -> None:
        for batch in loader.epoch(epoch):  # noqa: B007
            pass

    ways = {"gather": gather, "take": take, "loader": batches, "epoch": batches}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(-2, REPEATS):
        shift = repeat % len(ways)  # each way follows each other one equally often
        for name, run in (list(ways.items()) * 2)[shift : shift + len(ways)]:
            loader.indices(0)
            start = time.perf_counter()
            if name == "epoch":
                batches(repeat + 10)  # never the same twice: its shuffle is always part of it
            else:
                run()
            if repeat >= 0:  # the first rounds warm up
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    images = np.random.default_rng(0).integers(0, 256, (N, 28, 28, 1), dtype=np.uint8)
    print(f"{N} images of 28 x 28, batches of {BATCH}, {REPEATS} repeats, numpy {np.__version__}")
    print(
        f"{'dtype':8} {'way':7} {'images/s':>12} {'quartiles':>25} {'batches/s':>10} {'of gather':>10} {'of take':>8}"
    )
    for x in (images, images.astype(np.float32) / np.float32(255)):
        seconds = measure(x)
        for name, times in seconds.items():
            count = N // BATCH * BATCH
            low, median, high = (count / t for t in reversed(statistics.quantiles(times, n=4)))
            ratios = [
                statistics.median(b / t for b, t in zip(seconds[base], times, strict=True))
                for base in ("gather", "take")
            ]
            print(
                f"{x.dtype.name:8} {name:7} {median:12,.0f} {low:12,.0f}-{high:12,.0f} {median / BATCH:10,.0f} "
                f"{ratios[0]:10.2f} {ratios[1]:8.2f}"
            )


if __name__ == "__main__":
    main()
