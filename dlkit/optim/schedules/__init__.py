"""Hyperparameters as functions of the number of the update."""

from dlkit.optim.schedules import annealing as _annealing
from dlkit.optim.schedules import composition as _composition
from dlkit.optim.schedules import curves as _curves
from dlkit.optim.schedules import cycles as _cycles
from dlkit.optim.schedules import phases as _phases
from dlkit.optim.schedules import picture as _picture
from dlkit.optim.schedules import powers as _powers
from dlkit.optim.schedules import restarts as _restarts
from dlkit.optim.schedules.annealing import *
from dlkit.optim.schedules.composition import *
from dlkit.optim.schedules.curves import *
from dlkit.optim.schedules.cycles import *
from dlkit.optim.schedules.phases import *
from dlkit.optim.schedules.picture import *
from dlkit.optim.schedules.powers import *
from dlkit.optim.schedules.restarts import *

__all__: list[str] = []
__all__ += _annealing.__all__
__all__ += _composition.__all__
__all__ += _curves.__all__
__all__ += _cycles.__all__
__all__ += _phases.__all__
__all__ += _picture.__all__
__all__ += _powers.__all__
__all__ += _restarts.__all__
