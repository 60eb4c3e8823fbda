"""Update rules, one family a file: `scale_by_*` turns gradients into directions, a recipe adds the learning rate."""

from dlkit.optim.rules import adagrad as _adagrad
from dlkit.optim.rules import adam as _adam
from dlkit.optim.rules import momentum as _momentum
from dlkit.optim.rules import rmsprop as _rmsprop
from dlkit.optim.rules.adagrad import *
from dlkit.optim.rules.adam import *
from dlkit.optim.rules.momentum import *
from dlkit.optim.rules.rmsprop import *

__all__: list[str] = []
__all__ += _adagrad.__all__
__all__ += _adam.__all__
__all__ += _momentum.__all__
__all__ += _rmsprop.__all__
