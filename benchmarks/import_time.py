"""What `import dlkit`, and then all of its subpackages, cost beyond `import jax`: medians of fresh processes.

python benchmarks/import_time.py [--runs 10]
"""

import argparse
import statistics
import subprocess
import sys

PROGRAM = """
import time, jax, jax.numpy
start = time.perf_counter()
import dlkit
alone = time.perf_counter()
from dlkit import nn
with_layers = time.perf_counter()
from dlkit import *
print(alone - start, with_layers - start, time.perf_counter() - start)
"""
NAMES = ("import dlkit", "from dlkit import nn", "from dlkit import *")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    seconds = []
    for _ in range(runs + 1):  # the first run compiles the bytecode
        run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        seconds.append([float(part) for part in run.stdout.split()])
    print(f"beyond import jax, median of {runs} runs; the goal of import dlkit is 0.3 s")
    for name, column in zip(NAMES, zip(*seconds[1:], strict=True), strict=True):
        print(f"{name:21} {statistics.median(column):.3f} s")


if __name__ == "__main__":
    main()
