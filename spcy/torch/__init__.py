"""Sparse convolution for PyTorch: spcy's operations with autograd, and the layers of other engines by name.

`spcy.torch.spconv` is what ``spconv.pytorch`` is, `spcy.torch.minkowski` what ``MinkowskiEngine`` is and
`spcy.torch.torchsparse` what ``torchsparse`` is; `install` puts them under those names for code that cannot
be edited.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError('spcy.torch needs PyTorch: pip install "spcy[torch]"') from error

from ._install import install
from .functional import (
    Voxels,
    add,
    avg_pool,
    concat,
    conv,
    conv_transpose,
    devoxelize,
    global_avg_pool,
    global_max_pool,
    global_sum_pool,
    inverse_conv,
    max_pool,
    prune,
    subm_conv,
    sum_pool,
    to_dense,
    unpool,
    voxelize,
)
from .tensor import SparseTensor

__all__ = [
    "SparseTensor",
    "Voxels",
    "add",
    "avg_pool",
    "concat",
    "conv",
    "conv_transpose",
    "devoxelize",
    "global_avg_pool",
    "global_max_pool",
    "global_sum_pool",
    "install",
    "inverse_conv",
    "max_pool",
    "prune",
    "subm_conv",
    "sum_pool",
    "to_dense",
    "unpool",
    "voxelize",
]
