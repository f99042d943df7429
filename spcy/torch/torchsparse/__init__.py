"""The modules of ``torchsparse`` 2.1 by their names, on spcy: on CPUs too, with gradients.

``import spcy.torch.torchsparse as torchsparse`` stands where ``import torchsparse`` stood. Weights and
results are TorchSparse's; what differs: a dilation is honoured, outputs do not depend on the greatest
coordinate of the batch, rows ascend by batch and coordinates where a layer makes sites, and what TorchSparse
computes wrongly in silence is computed or an error (sites twice, tensors of other sites added, a crop of the
batch column). `v1` has what is otherwise in version 1.4.
"""

from . import backbones, backend, backends, nn, operators, tensor, utils, v1
from .operators import cat, generative_add
from .tensor import PointTensor, SparseTensor
from .utils import collate as _collate  # noqa: F401  (code reads it as torchsparse.utils.collate)
from .utils import quantize as _quantize  # noqa: F401
from .utils.tune import tune

__version__ = "2.1.0"  # the TorchSparse whose names and results these are

backends.init()

__all__ = [
    "PointTensor",
    "SparseTensor",
    "backbones",
    "backend",
    "backends",
    "cat",
    "generative_add",
    "nn",
    "operators",
    "tensor",
    "tune",
    "utils",
    "v1",
]
