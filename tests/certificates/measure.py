"""How far a case is from each library: 50 steps in float64, and every step again in float32."""

import inspect
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from support import compiling
from support.reference import reference

from certificates.case import Case
from certificates.problems import START, loss

STEPS = 50
SOME = (0, 1, 2, 9, 19, 29, 39, 49)  # the steps whose parameters are stored


gradient = jax.jit(jax.grad(loss))  # traced once for all cases
# What torch and Keras are given, rounded as it was when the golden numbers were written, however the tests compile.
gradient_of_others = jax.jit(jax.grad(loss), compiler_options=compiling.AS_GOLDEN)


def arguments(tx: Any, params: Any, grads: Any, case: Case) -> dict[str, Any]:
    """What an optimizer with a line search, or a step size of Polyak's, wants to know beside the gradient."""
    known: dict[str, Any] = {}
    if case.value:
        known |= {"value": loss(params), "grad": grads, "value_fn": loss}
    if case.functions:  # optax's line searches refuse what they do not know
        known |= {"obj_fn": loss, "grad_fn": lambda p, _: jax.grad(loss)(p)}
    taken = inspect.signature(tx.update).parameters
    free = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    return {name: value for name, value in known.items() if free or name in taken}


def cast(of: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), of)


def trajectories(case: Case) -> dict[str, Any]:
    """The parameters after each step, `ours` and optax's, and the `error32` of every update in float32.

    For the last, both are given the same float32 gradients and parameters, optax computing in float64.
    """
    ours, theirs = case.ours, case.optax() if case.optax else None
    float32 = theirs is not None and case.tolerance32 is not None

    def close(carry: Any, tx: Any) -> Any:
        params, state = carry
        grads = gradient(params)
        updates, state = tx.update(grads, state, params, **arguments(tx, params, grads, case))
        return jax.tree.map(jnp.add, params, updates), state

    def step(carry: Any, _: Any) -> Any:
        after = {**carry, "ours": close(carry["ours"], ours)}
        seen = {"ours": after["ours"][0]}
        if theirs is not None:
            after["optax"] = close(carry["optax"], theirs)
            seen["optax"] = after["optax"][0]
        if theirs is not None and float32:
            params = cast(carry["ours"][0], jnp.float32)
            grads = gradient(params)
            extra = arguments(ours, params, grads, case)
            narrow, after["narrow"] = ours.update(grads, carry["narrow"], params, **extra)
            params, grads = cast((params, grads), jnp.float64)
            extra = arguments(theirs, params, grads, case)
            exact, after["exact"] = theirs.update(grads, carry["exact"], params, **extra)
            errors = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), cast(narrow, jnp.float64), exact)
            sizes = jax.tree.map(lambda b: jnp.max(jnp.abs(b)), exact)
            largest = [jnp.max(jnp.stack(jax.tree.leaves(of))) for of in (errors, sizes)]
            seen["error32"] = largest[0] / (largest[1] + 1e-30)
        return after, seen

    def run(wide: Any) -> Any:
        start = {"ours": (wide, ours.init(wide))}
        if theirs is not None:
            start["optax"] = (wide, theirs.init(wide))
        if theirs is not None and float32:
            narrow = cast(wide, jnp.float32)
            start |= {"narrow": ours.init(narrow), "exact": theirs.init(cast(narrow, jnp.float64))}
        return jax.lax.scan(step, start, None, length=STEPS)[1]

    options = compiling.AS_USERS_DO if case.fully else {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return jax.device_get(jax.jit(run, compiler_options=options)(cast(START, jnp.float64)))


def others(library: str, case: Case) -> dict[str, np.ndarray]:
    """The parameters after `SOME` steps of torch's or Keras's optimizer, an array a leaf; golden where it is absent."""
    make = {"torch": _torch, "keras": _keras}[library]
    name = "".join(letter if letter.isalnum() else "_" for letter in case.name)
    return reference(f"certificates/{case.family}_{library}/{name}", lambda: _others(make, case), needs=library)


def _others(make: Any, case: Case) -> dict[str, np.ndarray]:
    leaves, structure = jax.tree.flatten(START)
    step, seen = make(leaves, case), []
    for t in range(STEPS):
        grads = gradient_of_others(cast(jax.tree.unflatten(structure, leaves), jnp.float64))
        leaves = [leaf.copy() for leaf in step([np.array(g) for g in jax.tree.leaves(grads)])]
        if t in SOME:
            seen.append(leaves)
    return {str(i): np.stack(column) for i, column in enumerate(zip(*seen, strict=True))}


def _torch(leaves: list[np.ndarray], case: Case) -> Any:
    import torch

    assert case.torch
    params = [torch.nn.Parameter(torch.tensor(leaf, dtype=torch.float64)) for leaf in leaves]
    optimizer = getattr(torch.optim, case.torch[0])(params, **case.torch[1])
    scheduler = None
    if case.torch_schedule:
        scheduler = getattr(torch.optim.lr_scheduler, case.torch_schedule[0])(optimizer, **case.torch_schedule[1])

    sparse = case.torch[0] == "SparseAdam"  # which takes no other gradients

    def step(grads: list[np.ndarray]) -> list[np.ndarray]:
        for p, g in zip(params, grads, strict=True):
            p.grad = torch.tensor(g).to_sparse(1) if sparse else torch.tensor(g)
        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)  # in which NAdam and ASGD keep scalars
        try:
            optimizer.step()
        finally:
            torch.set_default_dtype(usual)
        if scheduler:
            scheduler.step()
        return [p.detach().numpy() for p in params]

    return step


def _keras(leaves: list[np.ndarray], case: Case) -> Any:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    assert case.keras
    keras.config.set_floatx("float64")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        variables = [keras.Variable(leaf, dtype="float64") for leaf in leaves]
        given = {name: value(keras) if callable(value) else value for name, value in case.keras[1].items()}
        optimizer = getattr(keras.optimizers, case.keras[0])(**given)
        optimizer.build(variables)

    apply, kept = jax.jit(optimizer.stateless_apply), [v.value for v in optimizer.variables]

    def step(grads: list[np.ndarray]) -> list[np.ndarray]:
        nonlocal leaves, kept
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            leaves, kept = apply(kept, [jnp.asarray(g) for g in grads], [jnp.asarray(leaf) for leaf in leaves])
        return [np.array(leaf) for leaf in leaves]

    return step


def distance(ours: Any, expected: list[np.ndarray]) -> float:
    """The largest difference between `SOME` of our steps and those of a library."""
    got = [np.asarray(leaf)[list(SOME)] for leaf in jax.tree.leaves(ours)]
    return max(float(np.max(np.abs(a - b))) for a, b in zip(got, expected, strict=True))


def differences(case: Case) -> dict[str, float]:
    """By library, the largest difference between the trajectories in float64; `float32`, that of the updates."""
    ran, found = trajectories(case), {}
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(ran["ours"])), f"{case.name}: it diverges"
    if case.optax:
        found["optax"] = max(
            float(np.max(np.abs(a - b)))
            for a, b in zip(*(jax.tree.leaves(ran[name]) for name in ("ours", "optax")), strict=True)
        )
        if "error32" in ran:
            found["float32"] = float(np.max(ran["error32"]))
    for library in ("torch", "keras"):
        if getattr(case, library):
            stored = others(library, case)
            found[library] = distance(ran["ours"], [stored[str(i)] for i in range(len(stored))])
    return found
