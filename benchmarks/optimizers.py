"""One update of every parameter: dlkit beside optax, a hand-fused expression, torch fused and foreach.

    python benchmarks/optimizers.py [--only adamw ...] [--trees small] [--rounds 9] [--compile only] [--write]

The large tree is 25 M float32 parameters in 150 leaves, the small one 1,000 leaves of 256. The gradients stay the same;
parameters and states are donated. The hand-fused expression is what one would write for this rule alone: one expression
a leaf, in one `jax.jit`. Before anything is timed, three updates must give every one of them the parameters that optax
gives. `moved` is what the rule has to read and write, over the median, as a share of the fastest copy that was found on
this machine (numpy's, torch's, XLA's). Compile time, without a cache, is that of tracing and lowering and that of XLA:
the least of three each, ours and optax's in turn. `--write` puts the tables into `benchmarks/RESULTS.md`.
"""

import argparse
import gc
import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import record
from timing import Run, measure, medians, quartiles

from dlkit import optim

LR, B1, B2, EPS, DECAY, NORM = 1e-3, 0.9, 0.999, 1e-8, 1e-2, 1.0
TREES = {
    "large": [shape for _ in range(50) for shape in ((704, 704), (704,), (704,))],
    "small": [(256,)] * 1000,
}
COMPILE = "Compile time of one update"
TITLES = {"large": "25 M parameters in 150 leaves", "small": "256,000 parameters in 1,000 leaves"}


@dataclass(frozen=True)
class Rule:
    ours: Callable[[], Any] | None
    optax: Any
    fused: Callable[..., Any] | None  # (p, g, *moments, count) -> (p, *moments)
    moments: int
    torch: tuple[str, dict[str, Any]] | None
    passes: int  # how often all parameters' worth of numbers is read or written


def recipe(name: str, *args: Any, **kwargs: Any) -> Callable[[], Any] | None:
    found = getattr(optim, name, None)
    return None if found is None else lambda: found(*args, **kwargs)


def fused_adam(decay: float = 0.0) -> Callable[..., Any]:
    def step(p: Any, g: Any, mu: Any, nu: Any, count: Any) -> Any:
        mu, nu = B1 * mu + (1 - B1) * g, B2 * nu + (1 - B2) * g * g
        one, two = 1 / (1 - jnp.power(B1, count)), 1 / (1 - jnp.power(B2, count))
        u = one * mu / (jnp.sqrt(two * nu) + EPS)
        return p - LR * (u + decay * p if decay else u), mu, nu

    return step


def fused_momentum(p: Any, g: Any, v: Any, count: Any) -> Any:
    v = 0.9 * v + g
    return p - LR * v, v


def fused_lion(p: Any, g: Any, mu: Any, count: Any) -> Any:
    u = jnp.sign(B1 * mu + (1 - B1) * g)
    return p - LR * (u + DECAY * p), 0.99 * mu + 0.01 * g


ADAMW = {"weight_decay": DECAY}
RULES = {
    "sgd": Rule(lambda: optim.sgd(LR), optax.sgd(LR), lambda p, g, count: (p - LR * g,), 0, ("SGD", {}), 3),
    "momentum": Rule(
        lambda: optim.sgd(LR, 0.9), optax.sgd(LR, 0.9), fused_momentum, 1, ("SGD", {"momentum": 0.9}), 5
    ),
    "adam": Rule(lambda: optim.adam(LR), optax.adam(LR), fused_adam(), 2, ("Adam", {}), 7),
    "adamw": Rule(
        lambda: optim.adamw(LR, **ADAMW), optax.adamw(LR, **ADAMW), fused_adam(DECAY), 2, ("AdamW", ADAMW), 7
    ),
    "lion": Rule(recipe("lion", LR, **ADAMW), optax.lion(LR, **ADAMW), fused_lion, 1, None, 5),
    "adafactor": Rule(recipe("adafactor", LR), optax.adafactor(LR), None, 0, None, 3),
    "clip + adamw": Rule(
        lambda: optim.chain(optim.clip_by_global_norm(NORM), optim.adamw(LR, **ADAMW)),
        optax.chain(optax.clip_by_global_norm(NORM), optax.adamw(LR, **ADAMW)),
        fused_adam(DECAY), 2, ("AdamW", ADAMW), 8,
    ),
}  # fmt: skip


def start(shapes: list[tuple[int, ...]], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {f"{i:04}": rng.standard_normal(shape, np.float32) / 10 for i, shape in enumerate(shapes)}


def of_jax(step: Callable[..., Any], state: Any, shapes: list[tuple[int, ...]]) -> tuple[Run, dict[str, Any]]:
    """`step(params, state, grads) -> (params, state)`, compiled and donated.

    JAX gives each output the first donated buffer of its shape: were the state donated before the parameters, they
    would swap memory, and XLA would copy both first (10 times as slow, for whatever optimizer).
    """
    held: dict[str, Any] = {"params": jax.device_put(start(shapes, 0)), "state": state}
    grads = jax.device_put(start(shapes, 1))
    compiled = jax.jit(step, donate_argnums=(0, 1))

    def once() -> None:
        held["params"], held["state"] = compiled(held["params"], held["state"], grads)

    return Run(once, lambda: jax.block_until_ready(held) and None), held


def stepper(tx: Any, apply: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return apply(params, updates), state

    return step


def fused_step(rule: Rule, clip: bool) -> Callable[..., Any]:
    assert rule.fused

    def step(params: Any, state: Any, grads: Any) -> Any:
        count, *moments = state
        count = count + 1
        if clip:
            norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
            factor = jnp.minimum(1.0, NORM / norm)
            grads = jax.tree.map(lambda g: factor * g, grads)
        new = {k: rule.fused(p, grads[k], *(m[k] for m in moments), count) for k, p in params.items()}
        columns = [{k: row[i] for k, row in new.items()} for i in range(1 + rule.moments)]
        return columns[0], (count, *columns[1:])

    return step


def of_torch(rule: Rule, shapes: list[tuple[int, ...]], clip: bool, **how: Any) -> tuple[Run, dict[str, Any]]:
    torch = importlib.import_module("torch")
    assert rule.torch
    params = [torch.nn.Parameter(torch.tensor(p)) for p in start(shapes, 0).values()]
    grads = [torch.tensor(g) for g in start(shapes, 1).values()]
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone() if clip else g
    optimizer = getattr(torch.optim, rule.torch[0])(params, lr=LR, **rule.torch[1], **how)

    def once() -> None:
        if clip:  # after the first time they are as long as they may be: the same work
            torch.nn.utils.clip_grad_norm_(params, NORM, foreach=True)
        optimizer.step()

    return Run(once, lambda: None), {"torch": params}


def runs(name: str, tree: str) -> dict[str, Any]:
    rule, shapes, clip = RULES[name], TREES[tree], name.startswith("clip")
    params = start(shapes, 0)
    found: dict[str, Any] = {}
    if rule.ours:
        tx = rule.ours()
        found["dlkit"] = of_jax(stepper(tx, optim.apply_updates), tx.init(params), shapes)
    found["optax"] = of_jax(stepper(rule.optax, optax.apply_updates), rule.optax.init(params), shapes)
    if rule.fused:
        zeros = tuple(jax.tree.map(jnp.zeros_like, params) for _ in range(rule.moments))
        found["hand-fused"] = of_jax(fused_step(rule, clip), (jnp.zeros((), jnp.float32), *zeros), shapes)
    if rule.torch:
        found["torch fused"] = of_torch(rule, shapes, clip, fused=True)
        found["torch foreach"] = of_torch(rule, shapes, clip, foreach=True)
    return found


def check(name: str, found: dict[str, Any]) -> None:
    """Three updates of each, to 1e-5 of optax's."""
    seen = {}
    for who, (run, held) in found.items():
        for _ in range(3):
            run.step()
        run.wait()
        leaves = held["params"].values() if "params" in held else [p.detach().numpy() for p in held["torch"]]
        seen[who] = [np.asarray(leaf) for leaf in leaves]
    for who, leaves in seen.items():
        error = max(float(np.max(np.abs(a - b))) for a, b in zip(leaves, seen["optax"], strict=True))
        if not error < 1e-5:
            raise SystemExit(f"{name}: {who} differs from optax by {error:.2g}")


def bandwidth() -> tuple[float, str]:
    """Bytes a second that the fastest copy of 100 MB reads and writes, and whose copy that is."""
    torch = importlib.import_module("torch")
    n = 25_000_000
    a, b = np.ones(n, np.float32), np.zeros(n, np.float32)
    ta, tb, xa = torch.ones(n), torch.zeros(n), jnp.ones(n)
    negate = jax.jit(lambda x: -x)
    ways = {
        "numpy": lambda: np.copyto(b, a),
        "torch": lambda: tb.copy_(ta),
        "XLA": lambda: negate(xa).block_until_ready(),
    }
    least = {}
    for name, copy in ways.items():
        times = []
        for _ in range(8):
            begin = time.perf_counter()
            copy()
            times.append(time.perf_counter() - begin)
        least[name] = min(times)
    best = min(least, key=least.__getitem__)
    return 8 * n / least[best], best


def compile_seconds(rule: Rule, tree: str) -> dict[str, tuple[float, float]]:
    """Of dlkit and optax: seconds of tracing and lowering, and of XLA."""
    assert rule.ours
    who = {"dlkit": (rule.ours(), optim.apply_updates), "optax": (rule.optax, optax.apply_updates)}
    params = jax.eval_shape(lambda: {k: jnp.zeros(shape) for k, shape in enumerate(TREES[tree])})
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in who}
    for _ in range(3):
        for name, (tx, apply) in who.items():
            state = jax.eval_shape(tx.init, params)
            jax.clear_caches()
            begin = time.perf_counter()
            lowered = jax.jit(stepper(tx, apply), donate_argnums=(0, 1)).lower(params, state, params)
            middle = time.perf_counter()
            lowered.compile()
            times[name].append((middle - begin, time.perf_counter() - middle))
    return {name: (min(t[0] for t in of), min(t[1] for t in of)) for name, of in times.items()}


def table(tree: str, args: argparse.Namespace, copy: float) -> list[str]:
    size = 4 * sum(int(np.prod(shape)) for shape in TREES[tree])
    bases = ("hand-fused", "optax", "torch fused")
    rows = ["| rule | | median ms | quartiles | of hand-fused | of optax | of torch fused | moved |", "|---" * 8 + "|"]
    for name in args.only:
        found = runs(name, tree)
        check(name, found)
        load = os.getloadavg()[0]
        seconds = measure({who: run for who, (run, _) in found.items()}, 3 if tree == "large" else 20, args.rounds)
        middle = medians(seconds)
        for who, times in seconds.items():
            ratios = " | ".join(f"{middle[who] / middle[b]:.2f}" if b in middle else "–" for b in bases)
            moved = f"{RULES[name].passes * size / middle[who] / copy:.2f}" if tree == "large" else "–"
            rows.append(f"| {name} | {who} | {middle[who] * 1e3:.2f} | {quartiles(times)} | {ratios} | {moved} |")
            print(rows[-1], f"load {load:.1f}", flush=True)
        del found
        gc.collect()
        jax.clear_caches()
    return rows


def compile_table(args: argparse.Namespace) -> list[str]:
    head = ["tree", "dlkit traced, s", "compiled, s", "optax traced, s", "compiled, s", "of optax, both"]
    rows = [f"| rule | {' | '.join(head)} |", "|---" * 7 + "|"]
    for tree in args.trees:
        for name in args.only:
            rule = RULES[name]
            if rule.ours is None:
                continue
            ours, theirs = compile_seconds(rule, tree).values()
            shown = " | ".join(f"{seconds:.2f}" for seconds in (*ours, *theirs, sum(ours) / sum(theirs)))
            rows.append(f"| {name} | {tree} | {shown} |")
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="one update of every parameter beside other libraries")
    parser.add_argument("--only", nargs="+", choices=list(RULES), default=list(RULES))
    parser.add_argument("--trees", nargs="+", choices=list(TREES), default=list(TREES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", choices=["no", "too", "only"], default="too", help="compile times")
    parser.add_argument("--write", action="store_true", help="write the tables into RESULTS.md")
    args = parser.parse_args()
    if args.compile == "only":
        rows = compile_table(args)
        if args.write:
            record.renew("optimizers", {COMPILE: [record.machine("jax", "optax"), "", *rows]})
        return
    torch = importlib.import_module("torch")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    load = os.getloadavg()[0]
    copy, whose = bandwidth()
    text = [record.machine("jax", "optax", "torch"), "", f"The fastest copy is {whose}'s: {copy / 1e9:.1f} GB/s."]
    print(text[-1], flush=True)
    for tree in args.trees:
        print(TITLES[tree], flush=True)
        text += ["", f"### {TITLES[tree]}", "", *table(tree, args, copy)]
    if args.compile == "too":
        text += ["", f"### {COMPILE}", "", *compile_table(args)]
    text += ["", f"{args.rounds} rounds; the load of the machine before them was {load:.1f}."]
    if args.write:
        record.write("optimizers", "Optimizers: one update of every parameter", text)


if __name__ == "__main__":
    main()
