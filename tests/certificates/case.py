"""One row of the table: an optimizer of ours, and what it is compared with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LIBRARIES = ("optax", "torch", "keras")


@dataclass(frozen=True)
class Case:
    """`name` is the call as the page shows it, `ours` what it returns.

    A library that is given has to take the same steps, unless `differs` says why it does not. Where both do the same
    only with arguments that are not the defaults, `flags` says with which.
    """

    name: str
    ours: Any
    optax: Callable[[], Any] | None = None  # makes optax's transformation
    torch: tuple[str, Mapping[str, Any]] | None = None  # the class in torch.optim, and its arguments
    # The class in keras.optimizers, and its arguments; a callable makes one from the module, a schedule of Keras's say.
    keras: tuple[str, Mapping[str, Any]] | None = None
    flags: Mapping[str, str] = field(default_factory=dict)  # library: the arguments under which both are equal
    differs: Mapping[str, str] = field(default_factory=dict)  # library: because
    torch_schedule: tuple[str, Mapping[str, Any]] | None = None  # the class in torch.optim.lr_scheduler
    value: bool = False  # whether `update` is given value=, grad= and value_fn= of the loss
    functions: bool = False  # whether it is given obj_fn= and grad_fn= in the place of grad= and value_fn=
    # Where it matters that a * b + c is rounded once: to a velocity in float32, to the step that a search takes.
    fully: bool = False
    family: str = ""  # the file it stands in, which names the file of its golden numbers
    tolerance: float = 1e-12  # of a trajectory in float64, absolute; the parameters are about 1
    # Of an update in float32, relative to the largest one; more only with a reason. None: it is not compared here.
    tolerance32: float | None = 1e-6

    def __post_init__(self) -> None:
        assert set(self.differs) | set(self.flags) <= {name for name in LIBRARIES if getattr(self, name) is not None}
        assert not set(self.differs) & set(self.flags)
