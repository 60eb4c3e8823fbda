"""L-BFGS beside scipy's L-BFGS-B on logistic regressions with 10,000 parameters, in one process, interleaved.

    python benchmarks/lbfgs.py [--rounds 7] [--write]

Both minimize the same loss in float64 from zero, with 10 pairs of memory. scipy runs to a gradient below 1e-6 in every
component; dlkit runs until its gradient is no longer than scipy's was at the end. scipy is given the loss twice: as
numpy, written by hand, and as the jitted `value_and_grad` that dlkit uses. Compiling is not timed, but shown.
`optax` is `optax.lbfgs` in a `while_loop` of its own, with `value_and_grad_from_state`, to the same gradient.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import record
from scipy.optimize import minimize as scipy_minimize
from scipy.special import expit, logsumexp
from timing import medians, quartiles

from dlkit import optim

jax.config.update("jax_enable_x64", True)
DECAY = 1e-3


def binary(examples: int = 1000, features: int = 10_000) -> tuple[Any, Callable[..., Any], Callable[..., Any]]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((examples, features)) / np.sqrt(features) * np.geomspace(1, 30, features)
    y = (x @ rng.standard_normal(features) / 10 + rng.standard_normal(examples) > 0).astype(np.float64)

    def loss(w: Any, x: Any, y: Any) -> Any:
        z = x @ w
        return jnp.mean(jnp.logaddexp(0.0, z) - y * z) + DECAY / 2 * jnp.sum(w**2)

    def by_numpy(w: Any) -> Any:
        z = x @ w
        value = np.mean(np.logaddexp(0.0, z) - y * z) + DECAY / 2 * w @ w
        return value, (expit(z) - y) @ x / examples + DECAY * w

    return (x, y), loss, by_numpy


def classes(
    examples: int = 5000, features: int = 1000, k: int = 10
) -> tuple[Any, Callable[..., Any], Callable[..., Any]]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((examples, features)) * np.geomspace(0.1, 3, features)
    logits = x @ rng.standard_normal((features, k)) / 20
    y = np.eye(k)[np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)]

    def loss(w: Any, x: Any, y: Any) -> Any:
        z = x @ w.reshape(features, k)
        return jnp.mean(jax.nn.logsumexp(z, axis=1) - jnp.sum(y * z, axis=1)) + DECAY / 2 * jnp.sum(w**2)

    def by_numpy(w: Any) -> Any:
        z = x @ w.reshape(features, k)
        total = logsumexp(z, axis=1, keepdims=True)
        value = np.mean(total[:, 0] - np.sum(y * z, axis=1)) + DECAY / 2 * w @ w
        return value, (x.T @ (np.exp(z - total) - y) / examples).ravel() + DECAY * w

    return (x, y), loss, by_numpy


def by_optax(loss: Any, start: Any, tol: float, data: Any) -> Any:
    tx = optax.lbfgs()

    def fun(w: Any) -> Any:
        return loss(w, *data)

    value_and_grad = optax.value_and_grad_from_state(fun)

    def body(carry: Any) -> Any:
        w, state, steps = carry
        value, grad = value_and_grad(w, state=state)
        updates, state = tx.update(grad, state, w, value=value, grad=grad, value_fn=fun)
        return optax.apply_updates(w, updates), state, steps + 1

    def more(carry: Any) -> Any:
        return (carry[2] == 0) | (jnp.linalg.norm(optax.tree.get(carry[1], "grad")) > tol)

    w, _, steps = jax.lax.while_loop(more, body, (start, tx.init(start), 0))
    return w, steps


def case(title: str, problem: Any, rounds: int) -> list[str]:
    data, loss, by_numpy = problem
    arrays = tuple(jnp.asarray(a) for a in data)
    start = jnp.zeros(10_000)
    jitted = jax.jit(jax.value_and_grad(loss))

    def by_jax(w: Any) -> Any:
        value, grad = jitted(w, *arrays)
        return float(value), np.asarray(grad)

    def scipy(fun: Any) -> Any:
        options = {"maxcor": 10, "gtol": 1e-6, "ftol": 0.0, "maxiter": 10_000, "maxfun": 20_000}
        return scipy_minimize(fun, np.zeros(10_000), jac=True, method="L-BFGS-B", options=options)

    value, grad = by_numpy(np.full(10_000, 0.01))
    other, there = by_jax(np.full(10_000, 0.01))
    assert abs(value - other) < 1e-10 * abs(value)
    assert np.allclose(grad, there, rtol=1e-8, atol=1e-12)
    found = scipy(by_numpy)
    tol = float(np.linalg.norm(by_numpy(found.x)[1]))
    optax_run = jax.jit(by_optax, static_argnums=0)
    ways: dict[str, Callable[[], Any]] = {
        "dlkit minimize(lbfgs())": lambda: optim.minimize(loss, start, optim.lbfgs(), 10_000, tol, args=arrays),
        "scipy L-BFGS-B, numpy loss": lambda: scipy(by_numpy),
        "scipy L-BFGS-B, jitted loss": lambda: scipy(by_jax),
        "optax lbfgs, while_loop": lambda: optax_run(loss, start, tol, arrays),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    first, results = {}, {}
    for repeat in range(-1, rounds):
        names = list(ways)
        for name in names[repeat % 4 :] + names[: repeat % 4]:
            begin = time.perf_counter()
            results[name] = jax.block_until_ready(ways[name]())
            took = time.perf_counter() - begin
            (first.__setitem__(name, took) if repeat < 0 else seconds[name].append(took))
    result = results["dlkit minimize(lbfgs())"][1]
    assert bool(result.converged), optim.Stop(int(result.reason))
    shown = {
        "dlkit minimize(lbfgs())": (int(result.steps), int(result.evaluations), float(result.value)),
        "optax lbfgs, while_loop": (
            int(results["optax lbfgs, while_loop"][1]),
            "",
            float(loss(results["optax lbfgs, while_loop"][0], *arrays)),
        ),
    }
    for name in ("scipy L-BFGS-B, numpy loss", "scipy L-BFGS-B, jitted loss"):
        shown[name] = (results[name].nit, results[name].nfev, results[name].fun)
    best = min(shown[name][2] for name in ways)
    middle = medians(seconds)
    base = min(middle[name] for name in ways if name.startswith("scipy"))
    rows = [
        f"### {title}",
        "",
        "| | median ms | quartiles | of scipy's best | iterations | evaluations | loss above best | first call s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ways:
        steps, evaluations, value = shown[name]
        rows.append(
            f"| {name} | {middle[name] * 1e3:.0f} | {quartiles(seconds[name])} | {middle[name] / base:.2f} | {steps} "
            f"| {evaluations} | {value - best:.1e} | {first[name]:.2f} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="L-BFGS beside scipy's")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write the tables into RESULTS.md")
    args = parser.parse_args()
    text = [
        record.machine("jax", "scipy", "numpy", "optax"),
        "",
        f"{args.rounds} rounds. Goal: at most 1.00 of scipy's best.",
    ]
    for title, problem in (
        ("Two classes, 10,000 features, 1,000 examples", binary()),
        ("Ten classes, 1,000 features, 5,000 examples", classes()),
    ):
        load = os.getloadavg()[0]
        rows = case(title, problem, args.rounds)
        print("\n".join(rows), "\n", flush=True)
        text += ["", *rows, "", f"Load of the machine before: {load:.1f}."]
    if args.write:
        record.write("lbfgs", "L-BFGS beside scipy's L-BFGS-B", text)


if __name__ == "__main__":
    main()
