"""Functions of the parameters, for a link inside that sees some of them alone, or sees them in another form."""

import functools
from collections.abc import Callable
from typing import Any

import jax

__all__: list[str] = []

FUNCTIONS = ("value_fn", "obj_fn", "output_fn", "logits_fn", "residual_fn")


def narrowed(extra: dict[str, Any], whole: Callable[[Any], Any], part: Callable[[Any], Any], like: Any) -> dict:
    """The extra arguments of `update` as the link inside can take them.

    The functions among them (`value_fn=`, `grad_fn=`, ...) are then called with `whole(its parameters)`. With functions
    come line searches and Newton's steps, which also need `grad=` as they see the parameters: `part(grad)`. Without
    functions, everything stays as it is, as in optax. `like` is the tree of gradients.
    """

    def outside(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)  # whose signature says which batch it takes
        def called(params: Any, *args: Any, **named: Any) -> Any:
            return fn(whole(params), *args, **named)

        return called

    given = dict(extra)
    for name in FUNCTIONS:
        if callable(extra.get(name)):
            given[name] = outside(extra[name])
    if callable(extra.get("grad_fn")):
        full = outside(extra["grad_fn"])
        given["grad_fn"] = lambda params, *args, **named: part(full(params, *args, **named))
    changed = any(given[name] is not extra[name] for name in given)
    if changed and jax.tree.structure(extra.get("grad")) == jax.tree.structure(like):
        given["grad"] = part(extra["grad"])
    return given
