"""Update rules, one family a file: `scale_by_*` turns gradients into directions, a recipe adds the learning rate."""

from dlkit.optim.rules import adadelta as _adadelta
from dlkit.optim.rules import adafactor as _adafactor
from dlkit.optim.rules import adagrad as _adagrad
from dlkit.optim.rules import adam as _adam
from dlkit.optim.rules import adamax as _adamax
from dlkit.optim.rules import adan as _adan
from dlkit.optim.rules import amsgrad as _amsgrad
from dlkit.optim.rules import belief as _belief
from dlkit.optim.rules import galore as _galore
from dlkit.optim.rules import momentum as _momentum
from dlkit.optim.rules import muon as _muon
from dlkit.optim.rules import nadam as _nadam
from dlkit.optim.rules import novograd as _novograd
from dlkit.optim.rules import optimistic as _optimistic
from dlkit.optim.rules import polyak as _polyak
from dlkit.optim.rules import radam as _radam
from dlkit.optim.rules import rmsprop as _rmsprop
from dlkit.optim.rules import rprop as _rprop
from dlkit.optim.rules import sign as _sign
from dlkit.optim.rules import sm3 as _sm3
from dlkit.optim.rules import steepest as _steepest
from dlkit.optim.rules import trust_ratio as _trust_ratio
from dlkit.optim.rules import yogi as _yogi
from dlkit.optim.rules.adadelta import *
from dlkit.optim.rules.adafactor import *
from dlkit.optim.rules.adagrad import *
from dlkit.optim.rules.adam import *
from dlkit.optim.rules.adamax import *
from dlkit.optim.rules.adan import *
from dlkit.optim.rules.amsgrad import *
from dlkit.optim.rules.belief import *
from dlkit.optim.rules.galore import *
from dlkit.optim.rules.momentum import *
from dlkit.optim.rules.muon import *
from dlkit.optim.rules.nadam import *
from dlkit.optim.rules.novograd import *
from dlkit.optim.rules.optimistic import *
from dlkit.optim.rules.polyak import *
from dlkit.optim.rules.radam import *
from dlkit.optim.rules.rmsprop import *
from dlkit.optim.rules.rprop import *
from dlkit.optim.rules.sign import *
from dlkit.optim.rules.sm3 import *
from dlkit.optim.rules.steepest import *
from dlkit.optim.rules.trust_ratio import *
from dlkit.optim.rules.yogi import *

__all__: list[str] = []
__all__ += _adadelta.__all__
__all__ += _adafactor.__all__
__all__ += _adagrad.__all__
__all__ += _adam.__all__
__all__ += _adamax.__all__
__all__ += _adan.__all__
__all__ += _amsgrad.__all__
__all__ += _belief.__all__
__all__ += _galore.__all__
__all__ += _momentum.__all__
__all__ += _muon.__all__
__all__ += _nadam.__all__
__all__ += _novograd.__all__
__all__ += _optimistic.__all__
__all__ += _polyak.__all__
__all__ += _radam.__all__
__all__ += _rmsprop.__all__
__all__ += _rprop.__all__
__all__ += _sign.__all__
__all__ += _sm3.__all__
__all__ += _steepest.__all__
__all__ += _trust_ratio.__all__
__all__ += _yogi.__all__
