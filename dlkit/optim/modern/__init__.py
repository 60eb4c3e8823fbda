"""Rules of recent years, a family a file: learning-rate-free, schedule-free, sharpness-aware, private, second-order."""

from dlkit.optim.modern import acprop as _acprop
from dlkit.optim.modern import adahessian as _adahessian
from dlkit.optim.modern import ademamix as _ademamix
from dlkit.optim.modern import adopt as _adopt
from dlkit.optim.modern import cocob as _cocob
from dlkit.optim.modern import complex_valued as _complex_valued
from dlkit.optim.modern import curvature as _curvature
from dlkit.optim.modern import dog as _dog
from dlkit.optim.modern import learning_rate_free as _learning_rate_free
from dlkit.optim.modern import madgrad as _madgrad
from dlkit.optim.modern import mechanic as _mechanic
from dlkit.optim.modern import momo as _momo
from dlkit.optim.modern import plateau as _plateau
from dlkit.optim.modern import privacy as _privacy
from dlkit.optim.modern import sam as _sam
from dlkit.optim.modern import schedule_free as _schedule_free
from dlkit.optim.modern import sophia as _sophia
from dlkit.optim.modern.acprop import *
from dlkit.optim.modern.adahessian import *
from dlkit.optim.modern.ademamix import *
from dlkit.optim.modern.adopt import *
from dlkit.optim.modern.cocob import *
from dlkit.optim.modern.complex_valued import *
from dlkit.optim.modern.curvature import *
from dlkit.optim.modern.dog import *
from dlkit.optim.modern.learning_rate_free import *
from dlkit.optim.modern.madgrad import *
from dlkit.optim.modern.mechanic import *
from dlkit.optim.modern.momo import *
from dlkit.optim.modern.plateau import *
from dlkit.optim.modern.privacy import *
from dlkit.optim.modern.sam import *
from dlkit.optim.modern.schedule_free import *
from dlkit.optim.modern.sophia import *

__all__: list[str] = []
__all__ += _acprop.__all__
__all__ += _adahessian.__all__
__all__ += _ademamix.__all__
__all__ += _adopt.__all__
__all__ += _cocob.__all__
__all__ += _complex_valued.__all__
__all__ += _curvature.__all__
__all__ += _dog.__all__
__all__ += _learning_rate_free.__all__
__all__ += _madgrad.__all__
__all__ += _mechanic.__all__
__all__ += _momo.__all__
__all__ += _plateau.__all__
__all__ += _privacy.__all__
__all__ += _sam.__all__
__all__ += _schedule_free.__all__
__all__ += _sophia.__all__
