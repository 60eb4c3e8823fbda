"""Bad arguments of every public optimizer are refused before anything is traced: name, value and range are said."""

import inspect

import jax
import jax.numpy as jnp
import pytest
from optimizer_rows import RECIPES
from optimizer_rows.second import Local

from dlkit import optim

BELOW_ZERO, UNIT = (-0.1, float("nan")), (-0.1, 1.5)
BAD = {
    "learning_rate": BELOW_ZERO,
    "lr": BELOW_ZERO,
    "weight_decay": BELOW_ZERO,
    "eps": BELOW_ZERO,
    "damping": BELOW_ZERO,
    "max_norm": BELOW_ZERO,
    "b1": (*UNIT, 1.0),
    "b2": UNIT,
    "b3": UNIT,
    "rho": (-0.1,),
    "momentum": (*UNIT, 1.0),
    "decay": UNIT,
    "betas": ((1.5, 0.9), (0.9, -0.1)),
}
# By which other name the rule inside calls it: `sgd(momentum=)` is `trace(decay=)`, torch's weight decay is `l2`.
ALSO = {
    "lr": ("learning_rate",),
    "rho": ("decay",),
    "momentum": ("decay", "b1", "beta"),
    "weight_decay": ("l2",),
    "betas": ("b1", "b2", "beta"),
}
CLOSED = {"schedule_free", "schedule_free_adamw", "schedule_free_sgd"}  # b1 = 1 is the average itself
NEEDED = {
    "learning_rate": 0.1,
    "inner": optim.sgd(0.1),
    "opt": optim.sgd(0.1),
    "base_optimizer": optim.sgd(0.1),
    "optimizer": optim.sgd(0.1),
    "decay": 0.9,
    "layers": ("a", "b"),
    "max_norm": 1.0,
    "clipping": 0.1,
    "likelihood": "gaussian",
    "init_step": ("distance", 0.1),
    "l2_norm_clip": 1.0,
    "noise_multiplier": 1.0,
    "seed": 0,
    "key": 0,
}


def public():
    """Every function and class of `optim`, `optim.torch` and `optim.keras` in lower case, schedules apart."""
    found = {}
    for prefix, module in (("", optim), ("torch.", optim.torch), ("keras.", optim.keras)):
        for name in module.__all__:
            make = getattr(module, name)
            if name[0].islower() and callable(make) and not name.endswith(("schedule", "inverse_root")):
                found[prefix + name] = make
    return found


PUBLIC = public()


def arguments(make):
    given = inspect.signature(make).parameters
    wanted = [
        name for name, p in given.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    known = {name: NEEDED[name] for name in wanted if name in NEEDED}
    if "key" in given and "eta" in given:  # of the noise
        known["key"] = 0
    return (known if len(known) >= len(wanted) else None), given


def transforms():
    """name -> (what makes it, the arguments it needs, its parameters)"""
    found = {}
    for name, make in PUBLIC.items():
        known, given = arguments(make)
        if known is not None and set(given) & {*BAD, "mask", "weight_decay_mask"}:
            made = make(**known)
            if hasattr(made, "init") and hasattr(made, "update"):
                found[name] = (make, known, given)
    return found


TRANSFORMS = transforms()


def test_the_table_has_every_optimizer():
    have = {name.split(".")[-1] for name in TRANSFORMS}
    for name in ("adamw", "sgd", "lion", "muon", "soap", "kfac", "lars", "sam", "dpsgd", "prodigy", "rmsprop", "ftrl"):
        assert name in have or name in ("sam",), name
    assert len(TRANSFORMS) > 120


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.usefixtures("unchecked")
def test_numbers_out_of_range(name):
    make, known, given = TRANSFORMS[name]
    for argument in (a for a in given if a in BAD and not (a == "eps" and isinstance(given[a].default, tuple))):
        for value in BAD[argument]:
            if name in CLOSED and value == 1.0:
                continue
            with pytest.raises(ValueError, match="wanted") as caught:
                make(**{**known, argument: value})
            said = str(caught.value)
            assert any(word in said for word in (argument, *ALSO.get(argument, ()))), (argument, said)
            numbers = value if isinstance(value, tuple) else (value,)
            assert any(str(number) in said for number in numbers), (value, said)


MASKS = [(n, a) for n, (_, _, given) in TRANSFORMS.items() for a in ("mask", "weight_decay_mask") if a in given]


@pytest.mark.parametrize(("name", "argument"), MASKS)
def test_a_mask_that_matches_nothing(name, argument):
    make, known, given = TRANSFORMS[name]
    decay = {decay: 0.1 for decay in ("weight_decay", "weight_decay_rate", "l2") if decay in given}
    with pytest.raises(ValueError, match=r"'nowhere/\*\*' matches none of the 1 paths"):
        make(**{**known, **decay, argument: "nowhere/**"}).init({"w": jnp.ones((2, 2))})


PARAMS = {"head": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}}


def size(params):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def outputs(params):
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])[None]


@pytest.mark.parametrize("name", RECIPES)
def test_gradients_of_another_tree(name):
    """One leaf is missing, or of another shape: the paths are named."""
    transform, extra = RECIPES[name][0], dict(*RECIPES[name][2:])
    if isinstance(transform, Local):  # which makes them of the gradients
        transform = transform.inner
        extra = {
            "value": jnp.ones(()),
            "grad": PARAMS,
            "value_fn": size,
            "residual_fn": lambda p: p,
            "output_fn": outputs,
        }
        taken = inspect.signature(transform.update).parameters
        free = any(p.kind is p.VAR_KEYWORD for p in taken.values())
        extra = {key: value for key, value in extra.items() if free or key in taken}
    params = PARAMS
    state = jax.eval_shape(transform.init, params)
    for grads in ({"head": {"w": params["head"]["w"]}}, {"head": {"w": jnp.ones((2, 2)), "b": jnp.ones(3)}}):
        with pytest.raises(ValueError, match=r"match[\s\S]*head/b"):
            jax.eval_shape(lambda g, s: transform.update(g, s, params, **extra), grads, state)
