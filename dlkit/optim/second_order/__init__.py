"""Second-order optimization: curvature from products, from matrices of small problems, or from the steps themselves."""

from dlkit.optim.second_order import backtracking as _backtracking
from dlkit.optim.second_order import conjugate as _conjugate
from dlkit.optim.second_order import damped as _damped
from dlkit.optim.second_order import gauss_newton as _gauss_newton
from dlkit.optim.second_order import lbfgs as _lbfgs
from dlkit.optim.second_order import levenberg as _levenberg
from dlkit.optim.second_order import minimize as _minimize
from dlkit.optim.second_order import natural as _natural
from dlkit.optim.second_order import newton as _newton
from dlkit.optim.second_order import newton_cg as _newton_cg
from dlkit.optim.second_order import nonlinear_cg as _nonlinear_cg
from dlkit.optim.second_order import products as _products
from dlkit.optim.second_order import stochastic as _stochastic
from dlkit.optim.second_order import stored as _stored
from dlkit.optim.second_order import trials as _trials
from dlkit.optim.second_order import trust_region as _trust_region
from dlkit.optim.second_order import wolfe as _wolfe
from dlkit.optim.second_order import zoom as _zoom
from dlkit.optim.second_order.backtracking import *
from dlkit.optim.second_order.conjugate import *
from dlkit.optim.second_order.damped import *
from dlkit.optim.second_order.gauss_newton import *
from dlkit.optim.second_order.lbfgs import *
from dlkit.optim.second_order.levenberg import *
from dlkit.optim.second_order.minimize import *
from dlkit.optim.second_order.natural import *
from dlkit.optim.second_order.newton import *
from dlkit.optim.second_order.newton_cg import *
from dlkit.optim.second_order.nonlinear_cg import *
from dlkit.optim.second_order.products import *
from dlkit.optim.second_order.stochastic import *
from dlkit.optim.second_order.stored import *
from dlkit.optim.second_order.trials import *
from dlkit.optim.second_order.trust_region import *
from dlkit.optim.second_order.wolfe import *
from dlkit.optim.second_order.zoom import *

__all__: list[str] = []
__all__ += _backtracking.__all__
__all__ += _conjugate.__all__
__all__ += _damped.__all__
__all__ += _gauss_newton.__all__
__all__ += _lbfgs.__all__
__all__ += _levenberg.__all__
__all__ += _minimize.__all__
__all__ += _natural.__all__
__all__ += _newton.__all__
__all__ += _newton_cg.__all__
__all__ += _nonlinear_cg.__all__
__all__ += _products.__all__
__all__ += _stochastic.__all__
__all__ += _stored.__all__
__all__ += _trials.__all__
__all__ += _trust_region.__all__
__all__ += _wolfe.__all__
__all__ += _zoom.__all__
