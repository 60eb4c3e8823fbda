"""Transforms around other transforms: some of the leaves, some of the steps."""

from dlkit.optim.wrappers import accumulation as _accumulation
from dlkit.optim.wrappers import averages as _averages
from dlkit.optim.wrappers import averaging as _averaging
from dlkit.optim.wrappers import cautious as _cautious
from dlkit.optim.wrappers import chains as _chains
from dlkit.optim.wrappers import conditional as _conditional
from dlkit.optim.wrappers import feasible as _feasible
from dlkit.optim.wrappers import flattened as _flattened
from dlkit.optim.wrappers import freezing as _freezing
from dlkit.optim.wrappers import hyperparams as _hyperparams
from dlkit.optim.wrappers import layer_decay as _layer_decay
from dlkit.optim.wrappers import lookahead as _lookahead
from dlkit.optim.wrappers import loss_scaling as _loss_scaling
from dlkit.optim.wrappers import map_params as _map_params
from dlkit.optim.wrappers import masks as _masks
from dlkit.optim.wrappers import monitors as _monitors
from dlkit.optim.wrappers import partition as _partition
from dlkit.optim.wrappers import reporting as _reporting
from dlkit.optim.wrappers import skipping as _skipping
from dlkit.optim.wrappers.accumulation import *
from dlkit.optim.wrappers.averages import *
from dlkit.optim.wrappers.averaging import *
from dlkit.optim.wrappers.cautious import *
from dlkit.optim.wrappers.chains import *
from dlkit.optim.wrappers.conditional import *
from dlkit.optim.wrappers.feasible import *
from dlkit.optim.wrappers.flattened import *
from dlkit.optim.wrappers.freezing import *
from dlkit.optim.wrappers.hyperparams import *
from dlkit.optim.wrappers.layer_decay import *
from dlkit.optim.wrappers.lookahead import *
from dlkit.optim.wrappers.loss_scaling import *
from dlkit.optim.wrappers.map_params import *
from dlkit.optim.wrappers.masks import *
from dlkit.optim.wrappers.monitors import *
from dlkit.optim.wrappers.partition import *
from dlkit.optim.wrappers.reporting import *
from dlkit.optim.wrappers.skipping import *

__all__: list[str] = []
__all__ += _accumulation.__all__
__all__ += _averages.__all__
__all__ += _averaging.__all__
__all__ += _cautious.__all__
__all__ += _chains.__all__
__all__ += _conditional.__all__
__all__ += _feasible.__all__
__all__ += _flattened.__all__
__all__ += _freezing.__all__
__all__ += _hyperparams.__all__
__all__ += _layer_decay.__all__
__all__ += _lookahead.__all__
__all__ += _loss_scaling.__all__
__all__ += _map_params.__all__
__all__ += _masks.__all__
__all__ += _monitors.__all__
__all__ += _partition.__all__
__all__ += _reporting.__all__
__all__ += _skipping.__all__
