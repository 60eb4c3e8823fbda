"""What `import dlkit` costs beyond `import jax`: the median of fresh processes.

python benchmarks/import_time.py [--runs 10]
"""

import argparse
import statistics
import subprocess
import sys

PROGRAM = "import time, jax, jax.numpy; t = time.perf_counter(); import dlkit; print(time.perf_counter() - t)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    seconds = []
    for _ in range(runs + 1):  # the first run compiles the bytecode
        run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        seconds.append(float(run.stdout))
    print(f"import dlkit beyond import jax: median {statistics.median(seconds[1:]):.3f} s of {runs} runs, goal 0.3 s")


if __name__ == "__main__":
    main()
