"""Whole models beside other libraries: a training step, decoding with a cache, and compile time by depth.

    python benchmarks/models.py [--only gpt lstm resnet20 vae decoding compiling] [--rounds 15] [--write]

Steps are timed as in `steps.py`: one process, interleaved, the same weights and batch in every library, equal losses
before anything is timed. Decoding is 192 greedy tokens of the GPT behind a prompt of 8, of random weights: dlkit's one
compiled loop, and torch's eager loop over a cache of keys and values that grows. Compile time is that of a whole
training step of a GPT 64 wide over 32 tokens, traced and compiled anew, with no cache. `--write` puts the tables into
`benchmarks/RESULTS.md`.
"""

import argparse
import dataclasses
import importlib
import os
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import record
from compared import prepare, table
from timing import Run, measure, medians, quartiles

from dlkit import losses, models, nn

STEPS = ("gpt", "lstm", "resnet20", "vae")
PARTS = (*STEPS, "decoding", "compiling")
PROMPT, NEW = 8, 192


def step_tables(names: list[str], rounds: int) -> Iterator[tuple[str, list[str]]]:
    for name in names:
        if name == "resnet20":
            steps = importlib.import_module("steps")
            case = importlib.import_module("peers.problem").problem(name)
            title, makers, count, goal = case.title, steps.trainers(case, False), case.steps, steps.GOALS[name]
        else:
            network = importlib.import_module(f"networks.{name}")
            title, makers, count, goal = network.TITLE, network.trainers(), network.STEPS, network.GOAL
        print(title, flush=True)
        ready = prepare(makers)
        load = os.getloadavg()[0]
        rows = table(measure(ready, count, rounds), goal)
        yield title, [*rows, "", f"{rounds} rounds; the load of the machine before them was {load:.1f}."]
        jax.clear_caches()


def decoding(rounds: int) -> list[str]:
    torch, gpt = importlib.import_module("torch"), importlib.import_module("networks.gpt")
    w = gpt.weights()
    lines = ["| batch | | median s | quartiles ms | tokens/s | of torch |", "|---|---|---|---|---|---|"]
    for batch in (1, 8):
        prompt = np.random.default_rng(2).integers(0, gpt.VOCAB, (batch, PROMPT)).astype(np.int32)
        runs, texts = {}, {}
        for scan in (False, True):
            model = gpt.dlkit_model(scan)
            params = jax.tree.map(jnp.asarray, gpt.dlkit_params(w, model))
            held: dict[str, Any] = {}

            def run(model: Any = model, params: Any = params, held: Any = held, prompt: Any = prompt) -> None:
                held["text"] = models.generate(model, params, jnp.asarray(prompt), NEW)

            name = "dlkit scanned" if scan else "dlkit"
            runs[name], texts[name] = Run(run, lambda held=held: jax.block_until_ready(held["text"])), held
        torch_model, held = gpt.TorchGPT(w).eval(), {}

        @torch.inference_mode()
        def eager(torch_model: Any = torch_model, held: Any = held, prompt: Any = prompt, batch: int = batch) -> None:
            empty = torch.zeros(batch, gpt.HEADS, 0, gpt.D // gpt.HEADS)
            cache = [[empty, empty] for _ in range(gpt.DEPTH)]
            ids, made = torch.tensor(prompt).long(), []
            for i in range(PROMPT + NEW - 1):  # the prompt goes token by token too: 4 % of all
                token = ids[:, i, None] if i < PROMPT else made[-1]
                logits = torch_model(token, cache, i)
                if i >= PROMPT - 1:
                    made.append(logits[:, -1].argmax(-1, keepdim=True))
            held["text"] = torch.cat(made, 1).numpy()

        runs["torch eager"], texts["torch eager"] = Run(eager, lambda: None), held
        seconds = measure(runs, 1, rounds)
        middle = medians(seconds)
        for name, times in seconds.items():
            same = (np.asarray(texts[name]["text"]) == np.asarray(texts["dlkit"]["text"])).mean()
            if same < 0.5:  # an argmax of nearly equal logits may fall otherwise, and then the rest differs
                raise SystemExit(f"{name} writes another text than dlkit: {same:.0%} of the tokens agree")
            ratio = middle[name] / middle["torch eager"]
            rate = batch * NEW / middle[name]
            lines.append(f"| {batch} | {name} | {middle[name]:.3f} | {quartiles(times)} | {rate:.0f} | {ratio:.2f} |")
    return [*lines, "", "Goal: at most 0.55 of torch eager at batch 1."]


def compiling() -> list[str]:
    def seconds(depth: int, scan: bool) -> float:
        made = models.gpt(vocab=65, d=64, depth=depth, heads=4, length=32)
        model = dataclasses.replace(made, blocks=dataclasses.replace(made.blocks, scan=scan))
        tx = optax.adamw(1e-3)

        def step(params: Any, opt_state: Any, x: Any) -> Any:
            def loss(params: Any) -> Any:
                return losses.cross_entropy(model.apply(params, None, x, nn.EVAL)[0], x).mean()

            value, grads = jax.value_and_grad(loss)(params)
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, value

        params = jax.eval_shape(model.init, jax.random.key(0))
        given = params, jax.eval_shape(tx.init, params), jax.ShapeDtypeStruct((4, 32), jnp.int32)
        jax.clear_caches()
        begin = time.perf_counter()
        jax.jit(step).lower(*given).compile()
        return time.perf_counter() - begin

    jax.config.update("jax_enable_compilation_cache", False)
    seconds(2, True)
    depths = (6, 12, 24, 48)
    times = {scan: [min(seconds(depth, scan) for _ in range(2)) for depth in depths] for scan in (True, False)}
    lines = [f"| layers | {' | '.join(map(str, depths))} | 48 of 6 |", "|---" * (len(depths) + 2) + "|"]
    for scan, found in times.items():
        shown = " | ".join(f"{t:.2f} s" for t in found)
        lines.append(f"| {'scanned, the default' if scan else 'unrolled'} | {shown} | {found[-1] / found[0]:.2f} |")
    return [*lines, "", "The better of two. Goal: 48 scanned layers at most 1.3 of 6."]


def main() -> None:
    parser = argparse.ArgumentParser(description="whole models beside other libraries")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="write the tables into RESULTS.md")
    args = parser.parse_args()
    importlib.import_module("torch").set_num_threads(len(os.sched_getaffinity(0)))
    machine = record.machine("jax", "optax", "flax", "equinox", "dm-haiku", "torch")
    blocks: dict[str, list[str]] = {}
    for title, rows in step_tables([name for name in STEPS if name in args.only], args.rounds):
        blocks[title] = rows
        print("\n".join(rows), "\n", flush=True)
    if "decoding" in args.only:
        blocks["Decoding 192 tokens with a cache"] = rows = decoding(args.rounds)
        print("\n".join(rows), "\n", flush=True)
    if "compiling" in args.only:
        blocks["Compile time of a training step by depth"] = rows = compiling()
        print("\n".join(rows), "\n", flush=True)
    if args.write and set(args.only) != set(PARTS):
        record.renew("models", {title: [*rows, "", machine] for title, rows in blocks.items()})
    elif args.write:
        tables = [line for title, rows in blocks.items() for line in ("", f"### {title}", "", *rows)]
        record.write("models", "Models beside other libraries", [machine, *tables])


if __name__ == "__main__":
    main()
