"""Properties of a layer that draws random numbers: which keys it uses, when, and what the draws average to."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from dlkit.nn import EVAL, Dropout, Layer, Mode, Pure, training
from dlkit.testing.case import Case

__all__: list[str] = []


# --- randomness ------------------------------------------------------------------------------------------------------


@jax.tree_util.register_pytree_node_class
class _Recorder(Mode):
    """A mode that notes the bits of every key drawn from it."""

    drawn: list[tuple[str, bytes]]  # set by `recording`; shared by all that descend from one recorder

    def rng(self, name: str) -> Any:
        key = Mode.rng(self, name)
        # A callback, because the layer may be inside a scan or a rematerialized block, where the key is a tracer.
        jax.debug.callback(lambda bits: self.drawn.append((name, np.asarray(bits).tobytes())), jax.random.key_data(key))
        return key

    def at(self, name: str | int) -> Mode:
        return recording(Mode.at(Mode(self.key, self.train), name).key, self.drawn)

    def split(self, n: int) -> Mode:
        return recording(Mode.split(Mode(self.key, self.train), n).key, self.drawn)

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.key,), _Same(self.drawn)

    @classmethod
    def tree_unflatten(cls, aux: Any, leaves: Any) -> Any:
        return recording(leaves[0], aux.held)


@dataclass(frozen=True)
class _Same:
    """Equal to itself alone, whatever the list holds by now."""

    held: list[tuple[str, bytes]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.held is self.held

    def __hash__(self) -> int:
        return id(self.held)


def recording(key: Any, drawn: list[tuple[str, bytes]]) -> _Recorder:
    """The training mode of `key` that appends name and bits of each key drawn from it, when that is computed."""
    mode = _Recorder(key, True)
    object.__setattr__(mode, "drawn", drawn)
    return mode


def _draws(case: Case) -> list[tuple[str, bytes]]:
    """What training draws; nothing where it computes what evaluation does."""
    drawn: list[tuple[str, bytes]] = []
    if len(case.ways) > 1:
        case.run(case.params, case.state, case.x, recording(jax.random.key(2), drawn))
        jax.effects_barrier()
    return drawn


def no_key_twice(case: Case) -> None:
    seen: dict[bytes, str] = {}
    for name, bits in _draws(case):
        assert bits not in seen, f"the draws {seen[bits]!r} and {name!r} use one key: descend with mode.at(child name)"
        seen[bits] = name
    with jax.debug_key_reuse(True):
        jax.jit(case.layer.init)(jax.random.key(1))
        if len(case.ways) > 1:
            jax.jit(lambda mode: case.run(case.params, case.state, case.x, mode))(case.modes["training"])


def _has_dropout(layer: Layer[Any, Any]) -> bool:
    return (isinstance(layer, Dropout) and layer.rate > 0) or any(map(_has_dropout, layer.children().values()))


def training_draws(case: Case) -> None:
    assert _draws(case) or not _has_dropout(case.layer), "there is dropout inside, but training draws nothing: EVAL?"
    if case.state is not None:
        return  # what remembers, such as a batch norm, may differ in training without drawing
    modes = (training(jax.random.key(5)), EVAL, training(jax.random.key(6)))
    first, *others = (case.jitted(case.params, None, case.x, mode)[0] for mode in modes)
    same = [
        all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(y), jax.tree.leaves(first), strict=True))
        for y in others
    ]
    assert same != [False, True], "training differs from evaluation, but not from one key to the next: a fixed key?"


def eval_draws_nothing(case: Case) -> None:
    for key in (jax.random.key(3), jax.random.key(4)):
        with_key, without = (case.jitted(case.params, case.state, case.x, mode) for mode in (Mode(key, False), EVAL))
        for a, b in zip(jax.tree.leaves(with_key), jax.tree.leaves(without), strict=True):
            assert np.array_equal(a, b, equal_nan=True), "evaluation depends on the key"


def training_mean_is_eval(case: Case) -> None:
    leaf = not case.layer.children() and not isinstance(case.layer, Pure)
    if not (leaf if case.unbiased is None else case.unbiased) or not _draws(case):
        return
    n = 2000
    modes = case.modes["training"].split(n)
    draw = jax.jit(jax.vmap(lambda mode: case.run(case.params, case.state, case.x, mode)[0]))
    ys = np.asarray(draw(modes), np.float64)
    error = np.abs(ys.mean(0) - np.asarray(case.evaluate("evaluation")[0], np.float64))
    # Six standard errors: with a few thousand elements, none lies outside by chance.
    bound = 6 * ys.std(0) / np.sqrt(n) + 1e-5
    worst = np.unravel_index(np.argmax(error - bound), error.shape)
    assert np.all(error <= bound), (
        f"the mean of {n} training outputs is {ys.mean(0)[worst]:.4g} at {tuple(map(int, worst))}, evaluation gives "
        f"{np.asarray(case.evaluate('evaluation')[0])[worst]:.4g}: a missing scale?"
    )
