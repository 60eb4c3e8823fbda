"""Hyperparameters as functions of the number of the update."""

from dlkit.optim.schedules import curves as _curves
from dlkit.optim.schedules import phases as _phases
from dlkit.optim.schedules.curves import *
from dlkit.optim.schedules.phases import *

__all__: list[str] = []
__all__ += _curves.__all__
__all__ += _phases.__all__
