"""What the papers of the unusual optimizers claim, on scikit-learn's digits beside tuned AdamW.

    python benchmarks/claims.py [--only soap kfac] [--models mlp cnn] [--seeds 5] [--write]

Every optimizer has the same budget: one grid of five learning rates (its own, a factor of three apart), five seeds, the
same batches, the same weights to start from, weight decay 0.01, a cosine schedule to 0 (schedule-free: none). The rate
is the one with the smallest mean validation loss; what is shown are the five runs at that rate, mean and standard
deviation. A difference counts where the paired difference to AdamW is more than two standard errors from 0. An
optimizer that this version of dlkit does not have is left out. `--write` puts the tables into `benchmarks/RESULTS.md`.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import record

from dlkit import data, losses, models, nn, optim, train, tree

DECAY, BATCH = 0.01, 64
TASKS = {
    "mlp": (models.mlp((64, 64, 64, 10)), 300),
    "cnn": (models.cnn((8, 8, 1), 10, (16, 32)), 150),
}
DECOMPOSE = ("soap", "shampoo", "kfac", "psgd_kron")
CURVATURE = train.Curvature("categorical", "sample")
FASTER, NO_SCHEDULE, FLATTER = "trains in fewer steps", "needs no schedule", "generalizes better"


@dataclass(frozen=True)
class Entry:
    """`make(rate, schedule)` from a traced learning rate, and the same with the cosine schedule on it."""

    needs: str  # the recipe's name in dlkit.optim
    make: Callable[[Any, Any], Any]
    rates: tuple[float, ...]
    claim: str = FASTER


def around(middle: float) -> tuple[float, ...]:
    return tuple(middle * 3.0**i for i in (-2, -1, 0, 1, 2))


def sharpness_aware(rate: Any, schedule: Any) -> Any:
    uphill = optim.chain(optim.normalize(), optim.sgd(0.05))  # pyright: ignore[reportAttributeAccessIssue]
    return optim.sam(optim.adamw(schedule, weight_decay=DECAY), uphill, opaque_mode=True)  # pyright: ignore[reportAttributeAccessIssue]


ENTRIES = {
    "adamw": Entry("adamw", lambda rate, s: optim.adamw(s, weight_decay=DECAY), around(0.01)),
    "muon": Entry("muon", lambda rate, s: optim.muon(s, weight_decay=DECAY), around(0.03)),  # pyright: ignore[reportAttributeAccessIssue]
    "soap": Entry("soap", lambda rate, s: optim.soap(s, weight_decay=DECAY), around(0.01)),
    "shampoo": Entry(
        "shampoo",
        lambda rate, s: optim.shampoo(
            s,
            b2=0.95,
            precondition_every=10,
            weight_decay=DECAY,
            merge_dims=True,
            block_size=256,
            graft=optim.scale_by_adam(),
        ),
        around(0.003),
    ),
    "psgd_kron": Entry("psgd_kron", lambda rate, s: optim.psgd_kron(s, weight_decay=DECAY), around(0.003)),
    "kfac": Entry("kfac", lambda rate, s: optim.kfac(s, damping=0.01, weight_decay=DECAY), around(0.03)),
    "schedule_free": Entry(
        "schedule_free_adamw",
        lambda rate, s: optim.schedule_free_adamw(rate, weight_decay=DECAY),  # pyright: ignore[reportAttributeAccessIssue]
        around(0.03),
        NO_SCHEDULE,
    ),
    "sam": Entry("sam", sharpness_aware, around(0.01), FLATTER),
}


def parts() -> dict[str, dict[str, jax.Array]]:
    """1,197 pictures to train on, 300 to choose the rate, 300 to test; drawn once."""
    digits = data.digits()
    order = np.random.default_rng(0).permutation(len(digits.x))
    cuts = {"train": order[:1197], "validation": order[1197:1497], "test": order[1497:]}
    return {name: {"x": jnp.asarray(digits.x[i]), "y": jnp.asarray(digits.y[i])} for name, i in cuts.items()}


def runner(name: str, entry: Entry, model: Any, steps: int, flat: bool) -> Callable[[Any, Any], dict[str, Any]]:
    """One run, as a pure function of the seed and the learning rate."""
    task, sets = train.Task(model, losses.cross_entropy), parts()
    if flat:
        sets = {part: {**of, "x": of["x"].reshape(len(of["x"]), -1)} for part, of in sets.items()}

    def measured(params: Any, part: str) -> tuple[Any, Any]:
        outputs = model.apply(params, None, sets[part]["x"], nn.EVAL)[0]
        wrong = jnp.argmax(outputs, axis=1) != sets[part]["y"]
        return jnp.mean(losses.cross_entropy(outputs, sets[part]["y"])), 100 * jnp.mean(wrong.astype(jnp.float32))

    def run(seed: Any, rate: Any) -> dict[str, Any]:
        key = jax.random.key(seed)
        tx = entry.make(rate, lambda count: rate * (1 + jnp.cos(jnp.pi * count / steps)) / 2)
        params = model.init(jax.random.fold_in(key, 0))

        def step(carry: Any, t: Any) -> tuple[Any, Any]:
            params, state = carry
            draw = jax.random.fold_in(jax.random.fold_in(key, 1), t)
            rows = jax.random.randint(draw, (BATCH,), 0, len(sets["train"]["y"]))
            batch = jax.tree.map(lambda a: a[rows], sets["train"])
            mode = nn.training(draw)

            def loss(p: Any, i: Any = 0) -> Any:
                return task.loss_fn(p, None, batch, mode)[0]

            grads, extra = jax.grad(loss)(params), {}
            if name == "kfac":
                extra["factors"] = CURVATURE.factors(task, params, None, batch, mode)
            if name == "sam":
                extra["grad_fn"] = jax.grad(loss)
            updates, state = tx.update(grads, state, params, **extra)
            return (optim.apply_updates(params, updates), state), None

        carry = (params, tx.init(params))
        early, _ = jax.lax.scan(step, carry, jnp.arange(steps // 4))
        (params, state), _ = jax.lax.scan(step, early, jnp.arange(steps // 4, steps))
        shown = {"early": early, "late": (params, state)}
        if name == "schedule_free":
            average = optim.schedule_free_eval_params  # pyright: ignore[reportAttributeAccessIssue]
            shown = {when: (average(s, p), s) for when, (p, s) in shown.items()}
        validation, _ = measured(shown["late"][0], "validation")
        return {
            "early": measured(shown["early"][0], "train")[0],
            "late": measured(shown["late"][0], "train")[0],
            "validation": validation,
            "error": measured(shown["late"][0], "test")[1],
        }

    return run


def population(name: str, entry: Entry, which: str, seeds: int) -> tuple[dict[str, np.ndarray], float]:
    """`[rates, seeds]` of every number, and the seconds that all of them took (compilation apart)."""
    model, steps = TASKS[which]
    run = runner(name, entry, model, steps, flat=which == "mlp")
    pairs = [(seed, rate) for rate in entry.rates for seed in range(seeds)]
    which_seed, rates = jnp.array([p[0] for p in pairs]), jnp.array([p[1] for p in pairs], jnp.float32)
    # Small products are faster together; convolutions with weights of their own are faster one after the other.
    # Decompositions are a loop on CPU either way.
    together = which == "mlp" and name not in DECOMPOSE
    several = jax.vmap(run) if together else lambda s, r: jax.lax.map(lambda one: run(*one), (s, r))
    compiled = jax.jit(several).lower(which_seed, rates).compile()
    start = time.perf_counter()
    found = jax.device_get(compiled(which_seed, rates))
    seconds = time.perf_counter() - start
    return {key: np.asarray(value).reshape(len(entry.rates), seeds) for key, value in found.items()}, seconds


def chosen(found: Mapping[str, np.ndarray]) -> int:
    means = found["validation"].mean(axis=1)
    return int(np.nanargmin(np.where(np.isfinite(means), means, np.inf)))


LOOKED_AT = {
    FASTER: {"early": "training loss after a quarter of the steps", "late": "at the end"},
    NO_SCHEDULE: {"error": "test error"},
    FLATTER: {"error": "test error"},
}


def verdict(name: str, entry: Entry, ours: Mapping[str, np.ndarray], adamw: Mapping[str, np.ndarray]) -> str:
    """Whether the claim holds here, by the first number that is looked at; paired differences over seeds."""
    seen, answers = [], []
    for number, what in LOOKED_AT[entry.claim].items():
        difference = ours[number] - adamw[number]
        mean, error = float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))
        less, more = mean < -2 * error, mean > 2 * error
        answers.append(not more if entry.claim == NO_SCHEDULE else less)
        word = "less than AdamW's" if less else "more than AdamW's" if more else "not told apart from AdamW's"
        seen.append(f"{what} {word}, by {mean:+.3g} with standard error {error:.2g}")
    return f"- `{name}` {entry.claim}: {'holds here' if answers[0] else 'does not show here'} ({'; '.join(seen)})."


def table(which: str, names: list[str], seeds: int) -> list[str]:
    rows = [
        "| | rate | training loss after a quarter | at the end | validation loss | test error, % | time |",
        "|---|---|---|---|---|---|---|",
    ]
    verdicts, base, base_seconds = [], None, 1.0
    for name in names:
        entry = ENTRIES[name]
        found, seconds = population(name, entry, which, seeds)
        best = chosen(found)
        ours = {key: value[best] for key, value in found.items()}
        if base is None:
            base, base_seconds = ours, seconds
        else:
            verdicts.append(verdict(name, entry, ours, base))
        edge = " (edge)" if best in (0, len(entry.rates) - 1) else ""
        digits = {"early": 4, "late": 4, "validation": 4, "error": 2}
        cells = [f"{ours[k].mean():.{n}f} ± {ours[k].std(ddof=1):.{n}f}" for k, n in digits.items()]
        rows.append(
            f"| `{name}` | {entry.rates[best]:.2g}{edge} | {' | '.join(cells)} | {seconds / base_seconds:.1f} |"
        )
        print(rows[-1], f"({seconds:.1f} s)", flush=True)
    return [*rows, "", *verdicts]


def main() -> None:
    parser = argparse.ArgumentParser(description="the papers' claims on digits")
    parser.add_argument("--only", nargs="+", choices=list(ENTRIES), help="beside adamw, which is always run")
    parser.add_argument("--models", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write the tables into RESULTS.md")
    args = parser.parse_args()
    wanted = ["adamw", *(n for n in ENTRIES if n != "adamw" and n in (args.only or ENTRIES))]
    names = [name for name in wanted if hasattr(optim, ENTRIES[name].needs)]
    if missing := sorted(set(wanted) - set(names)):
        print("not in this version of dlkit:", ", ".join(missing))
    text = [
        record.machine("jax", "scikit-learn"),
        "",
        f"{args.seeds} seeds, five learning rates each, batches of {BATCH}; the rate with the smallest mean validation "
        "loss is shown (edge: it is the smallest or the largest of the grid). Mean and standard deviation over seeds; "
        "time is that of all runs in one program, AdamW's being 1 (of the MLPs, those whose updates decompose matrices "
        "or solve with them ran one after the other, the others side by side). A difference counts at two standard "
        "errors. "
        "Nothing but the rate was tuned (b2, for one, is 0.999 for AdamW and 0.95 for SOAP and Shampoo).",
    ]
    for which in args.models:
        model, steps = TASKS[which]
        size = tree.count(jax.eval_shape(model.init, jax.random.key(0)))
        title = f"{which} of {size:,} parameters, {steps} steps"
        print(title, flush=True)
        text += ["", f"### Digits, {title}", "", *table(which, names, args.seeds)]
    print("\n".join(text))
    if args.write:
        record.write("claims", "Optimizers: what their papers claim, on digits", text)


if __name__ == "__main__":
    main()
