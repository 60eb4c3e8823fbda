"""Optimizers that look at values of the loss alone: they ask for `value_fn=` and never for a gradient."""

from dlkit.optim.zeroth_order import cma_es as _cma_es
from dlkit.optim.zeroth_order import random_search as _random_search
from dlkit.optim.zeroth_order import spsa as _spsa
from dlkit.optim.zeroth_order.cma_es import *
from dlkit.optim.zeroth_order.random_search import *
from dlkit.optim.zeroth_order.spsa import *

__all__: list[str] = []
__all__ += _cma_es.__all__
__all__ += _random_search.__all__
__all__ += _spsa.__all__
