"""Layers made of layers: one after another, the same block many times, around a shortcut."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from dlkit import functional, tree
from dlkit.functional import Graph
from dlkit.nn.checks import describe
from dlkit.nn.layer import Layer, Pure, child_state
from dlkit.nn.mode import EVAL, Mode

__all__ = ["Chain", "Residual", "Stack", "is_pure"]

Remat = Literal["none", "full", "dots"]


def is_pure(layer: Layer) -> bool:
    """Whether the layer's output depends on its parameters and input alone."""
    if isinstance(layer, _Combinator):
        return not getattr(layer, "drop_path", 0) and all(is_pure(child) for child in layer.children().values())
    return isinstance(layer, Pure)


class _Combinator(Layer[Any, Any]):
    def __call__(self, params: Any, x: Any) -> Any:
        """The output for `x`, where every layer inside is pure.

        Raises:
          TypeError: a layer inside needs a mode or a state: use `apply`.
        """
        if not is_pure(self):
            children = (f"{n} = {c!r}" for n, c in self.children().items() if not is_pure(c))
            impure = next(children, "its drop_path")
            raise TypeError(f"{type(self).__name__} is not pure because of {impure}: call .apply(..., mode)")
        return self.apply(params, None, x, EVAL)[0]


def _run(layer: Layer, params: Any, state: Any, x: Any, mode: Mode, name: str) -> tuple[Any, Any]:
    # A pure layer draws nothing: folding a key for it would only make the traced program longer.
    return (layer(params, x), None) if isinstance(layer, Pure) else layer.apply(params, state, x, mode.at(name))


@dataclass(frozen=True, init=False)
class Chain(_Combinator):
    """One layer after another: `y = f_n(... f_2(f_1(x)))`.

    Layers given without a name are called after their class and counted, `conv1`, `relu1`, `conv2`; those given by
    keyword keep that name. Names key the initial weights and the random draws, so inserting a layer changes no other
    layer's numbers as long as their names stay.

    >>> from dlkit import nn
    >>> model = Chain(nn.Linear(4, 8), nn.Relu(), head=nn.Linear(8, 2))
    >>> model
    Chain(linear1=Linear(d_in=4, d_out=8), relu1=Relu(), head=Linear(d_in=8, d_out=2))
    >>> params = model.init(jax.random.key(0))
    >>> params["head"]["w"].shape, model(params, jnp.ones((3, 4))).shape
    ((8, 2), (3, 2))

    Raises:
      TypeError: an argument is not a layer.
      ValueError: two layers have one name.
    """

    names: tuple[str, ...]
    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer, **named: Layer) -> None:
        counts: dict[str, int] = {}
        names = []
        for layer in layers:
            word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(layer).__name__).lower()
            counts[word] = counts.get(word, 0) + 1
            names.append(f"{word}{counts[word]}")
        for name, layer in zip([*names, *named], [*layers, *named.values()], strict=True):
            if not isinstance(layer, Layer):
                raise TypeError(f"Chain wants layers, got {name}={layer!r} of type {type(layer).__name__}")
            if not name.isidentifier():
                raise ValueError(
                    f"Chain got a layer called {name!r}: expected an identifier, as it becomes part of paths"
                )
        if clash := set(names) & named.keys():
            raise ValueError(f"Chain has two layers called {sorted(clash)[0]!r}: rename the one given by keyword")
        object.__setattr__(self, "names", (*names, *named))
        object.__setattr__(self, "layers", (*layers, *named.values()))

    def parts(self) -> dict[str, Layer | tuple[Layer, ...]]:
        return dict(zip(self.names, self.layers, strict=True))

    def apply(self, params: Any, state: Any, x: Any, mode: Mode) -> tuple[Any, Any]:
        remembered = {}
        for name, layer in zip(self.names, self.layers, strict=True):
            x, after = _run(layer, params[name], child_state(state, name), x, mode, name)
            if after is not None:
                remembered[name] = after
        return x, remembered or None

    def __getitem__(self, name: str) -> Layer:
        try:
            return self.layers[self.names.index(name)]
        except ValueError:
            raise KeyError(f"Chain has no layer {name!r}; it has {', '.join(self.names)}") from None

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        return f"Chain({', '.join(f'{n}={layer!r}' for n, layer in self.children().items())})"


@dataclass(frozen=True)
class Residual(_Combinator):
    """`y = shortcut(x) + body(x)`; without a shortcut, `y = x + body(x)` (He et al. 2015, arXiv:1512.03385).

    Where the branches give a `Graph`, the features of their nodes are added, and the rest is that of the body.

    Raises:
      ValueError: the two branches give different shapes.
    """

    body: Layer
    shortcut: Layer | None = None

    def apply(self, params: Any, state: Any, x: Any, mode: Mode) -> tuple[Any, Any]:
        remembered = {}
        y, after = _run(self.body, params["body"], child_state(state, "body"), x, mode, "body")
        if after is not None:
            remembered["body"] = after
        if self.shortcut is not None:
            held = child_state(state, "shortcut")
            x, after = _run(self.shortcut, params["shortcut"], held, x, mode, "shortcut")
            if after is not None:
                remembered["shortcut"] = after
        if isinstance(x, Graph) and isinstance(y, Graph):
            return y._replace(nodes=_added(x.nodes, y.nodes)), remembered or None
        return _added(x, y), remembered or None


def _added(x: Any, y: Any) -> Any:
    if x.shape != y.shape:
        raise ValueError(
            f"Residual cannot add branches of shapes {x.shape} (shortcut) and {y.shape} (body): "
            f"give it a shortcut that maps the one onto the other"
        )
    return x + y


def _typed(given: Any) -> Any:
    """Shapes and dtypes alone, without weak types, which a scan promotes."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), given)


@dataclass(frozen=True)
class Stack(_Combinator):
    """The same block `depth` times, each with weights of its own: `x = block_i(x)` for i = 0 .. depth-1.

    Parameters and state are those of one block with a leading axis of size `depth` on every leaf. With `scan` the
    program holds the block once (`lax.scan`), so compile time does not grow with depth; without, the loop is
    unrolled. Both have the same parameters and draw the same numbers: block i runs with `mode.at(i)`. Keyword arguments
    of `apply` (a mask, a memory) are given to every block.

    `remat` says what the backward pass recomputes instead of keeping: nothing (`"none"`), everything inside a block
    (`"full"`: only the blocks' inputs are kept), or all but the matmuls without batch dimensions (`"dots"`).

    `drop_path` is for blocks of the form `block(x) = x + f(x)` on an array `[B, ...]`: in training, `f(x)` is left out
    for an example with probability `rate_i`, else divided by `1 - rate_i`, the rate growing linearly from 0 at the
    first block to `drop_path` at the last (stochastic depth, arXiv:1603.09382).

    Raises:
      ValueError: depth below 1, an unknown `remat`, `drop_path` outside [0, 1], or a block whose output is not of
        the shapes and dtypes of its input, or its new state not of those of its old one; the leaves are named.
    """

    block: Layer
    depth: int
    remat: Remat = "none"
    scan: bool = True
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"Stack wants a depth of at least 1, got {self.depth}")
        if self.remat not in ("none", "full", "dots"):
            raise ValueError(f"Stack got remat={self.remat!r}; expected 'none', 'full' or 'dots'")
        functional.linear_rates(self.drop_path, self.depth)  # raises where it is no probability

    def children(self) -> dict[str, Layer]:
        return {"": self.block}  # transparent: the block's parameters are the stack's, with a leading axis

    def init(self, key: Any) -> Any:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(self.depth))
        return jax.vmap(self.block.init)(keys)

    def init_state(self) -> Any:
        return self._repeat(self.block.init_state())

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Any:
        return self._repeat(self.block.init_cache(batch, length, dtype))

    def _repeat(self, state: Any) -> Any:
        return jax.tree.map(lambda s: jnp.repeat(s[None], self.depth, axis=0), state)

    def apply(self, params: Any, state: Any, x: Any, mode: Mode, **inputs: Any) -> tuple[Any, Any]:
        def step(x: Any, one: tuple[Any, Any, Mode, Any]) -> tuple[Any, Any]:
            y, after = self.block.apply(one[0], one[1], x, one[2], **inputs)
            for what, before, now in (("output", x, y), ("state", one[1], after)):
                if before is not None and (changed := tree.diff(_typed(before), _typed(now))):
                    raise ValueError(
                        f"Stack gives its block's {what} to the block again, but {describe(self.block)} makes another "
                        f"one of what it gets:\n{changed}"
                    )
            if rates is not None:
                y = x + functional.drop_path(one[2].rng("stack/drop_path"), y - x, one[3])
            return y, after

        rates = None
        if self.drop_path and mode.train:
            rates = jnp.asarray(functional.linear_rates(self.drop_path, self.depth), jnp.float32)
        each = (params, state, mode.split(self.depth), rates)
        if self.scan:
            return jax.lax.scan(self._rematerialized(step), x, each, length=self.depth)
        after = []
        for i in range(self.depth):
            # The i-th slices are taken inside, so that they are recomputed too and not kept beside the parameters.
            nth = self._rematerialized(lambda x, each: step(x, jax.tree.map(lambda leaf: leaf[i], each)))  # noqa: B023
            x, held = nth(x, each)
            after.append(held)
        return x, jax.tree.map(lambda *held: jnp.stack(held), *after)

    def _rematerialized(self, step: Callable[..., Any]) -> Callable[..., Any]:
        # Inside a scan XLA cannot merge the recomputation with the first computation, so no barrier is needed.
        if self.remat == "none":
            return step
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if self.remat == "dots" else None
        return jax.checkpoint(step, prevent_cse=not self.scan, policy=policy)
