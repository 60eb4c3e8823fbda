"""torch.optim's optimizers under torch's names, arguments, defaults and numbers.

    tx = optim.torch.adam(1e-3, weight_decay=1e-2, amsgrad=True)

Every recipe returns a chain like any other. `weight_decay` is what it is in that class of torch's: coupled outside of
AdamW and Muon, unless `decoupled_weight_decay=True`. Three things are added: the rate may be a schedule, `mask` says
which parameters decay (torch: parameter groups), and `dtype` of `muon`. Left out is what has no meaning here:
`foreach`, `fused`, `capturable`, `differentiable`. torch is not imported.
"""

from dlkit.optim.torch import adaptive as _adaptive
from dlkit.optim.torch import asgd as _asgd
from dlkit.optim.torch import factored as _factored
from dlkit.optim.torch import orthogonal as _orthogonal
from dlkit.optim.torch import plain as _plain
from dlkit.optim.torch import sparse as _sparse
from dlkit.optim.torch.adaptive import *
from dlkit.optim.torch.asgd import *
from dlkit.optim.torch.factored import *
from dlkit.optim.torch.orthogonal import *
from dlkit.optim.torch.plain import *
from dlkit.optim.torch.sparse import *

__all__: list[str] = []
__all__ += _adaptive.__all__
__all__ += _asgd.__all__
__all__ += _factored.__all__
__all__ += _orthogonal.__all__
__all__ += _plain.__all__
__all__ += _sparse.__all__
