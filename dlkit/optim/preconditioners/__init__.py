"""Preconditioners that see more than one coordinate: a matrix for every axis, or for every layer."""

from dlkit.optim.preconditioners import kfac as _kfac
from dlkit.optim.preconditioners import psgd as _psgd
from dlkit.optim.preconditioners import shampoo as _shampoo
from dlkit.optim.preconditioners import soap as _soap
from dlkit.optim.preconditioners.kfac import *
from dlkit.optim.preconditioners.psgd import *
from dlkit.optim.preconditioners.shampoo import *
from dlkit.optim.preconditioners.soap import *

__all__: list[str] = []
__all__ += _kfac.__all__
__all__ += _psgd.__all__
__all__ += _shampoo.__all__
__all__ += _soap.__all__
