"""The defaults of other libraries, for the recipes here: the same name often means different numbers."""

from typing import Any, Literal

__all__ = ["preset"]

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "optax": {
        "sgd": {},
        "adagrad": {},
        "rmsprop": {},
        "adam": {},
        "adamw": {},
        "amsgrad": {},
        "adadelta": {},
        "adamax": {},
        "nadam": {},
        "radam": {},
        "rprop": {},
    },
    "torch": {
        "sgd": {},
        "adagrad": {"initial_accumulator_value": 0.0, "eps": 1e-10, "eps_in_sqrt": False},
        "rmsprop": {"decay": 0.99, "eps": 1e-8, "eps_in_sqrt": False, "lr_in_velocity": False},
        "adam": {},
        "adamw": {"weight_decay": 1e-2},
        "amsgrad": {"correct_after_max": True},
        "adadelta": {},
        "adamax": {},
        "nadam": {"momentum_decay": 4e-3},
        "radam": {"tf_style": True},
        "rprop": {"delayed": False},
    },
    "keras": {
        "sgd": {"lr_in_velocity": True},
        "adagrad": {},
        "rmsprop": {"eps": 1e-7},
        "adam": {"eps": 1e-7, "tf_style": True},
        "adamw": {"eps": 1e-7, "tf_style": True, "weight_decay": 4e-3},
        "amsgrad": {"eps": 1e-7, "tf_style": True},
        "adadelta": {"rho": 0.95, "eps": 1e-7},
        "adamax": {"eps": 1e-7, "eps_in_max": False},
        "nadam": {"eps": 1e-7, "momentum_decay": 1.0},
    },
    "tf1": {
        "rmsprop": {"eps": 1e-10, "initial_scale": 1.0},
        "adam": {"tf_style": True},
    },
}


def preset(library: Literal["optax", "torch", "keras", "tf1"], optimizer: str) -> dict[str, Any]:
    """The keyword arguments that make the recipe `optimizer` take the steps of that library's, at its defaults.

    Those of optax, torch and Keras are measured against the libraries, through `optim.torch` and `optim.keras`, which
    have those libraries' own argument names. Those of TensorFlow 1 follow its documentation and are not measured.

    Learning rates are not included, and arguments of your own go on top:
    `rmsprop(1e-2, **preset("torch", "rmsprop"), momentum=0.9)`, or `{**preset(...), "eps": 1e-2}` to replace one.

    >>> preset("torch", "rmsprop")
    {'decay': 0.99, 'eps': 1e-08, 'eps_in_sqrt': False, 'lr_in_velocity': False}

    Raises:
      ValueError: there is no preset of that name.
    """
    known = {f"{lib}/{name}" for lib, names in PRESETS.items() for name in names}
    if f"{library}/{optimizer}" not in known:
        raise ValueError(f"preset: there is no {library}/{optimizer}, only {', '.join(sorted(known))}")
    return dict(PRESETS[library][optimizer])
