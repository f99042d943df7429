"""The modules of ``spconv.pytorch`` by their names, on spcy: on CPUs too, with gradients.

``import spcy.torch.spconv as spconv`` stands where ``import spconv.pytorch as spconv`` stood. Weights and
results are spconv's; what differs: rows ascend by batch and coordinates where a layer makes sites, and what
spconv computes wrongly in silence is an error (sites outside of the shape, sites twice, an `indice_key` for
other sites).
"""

from . import (
    constants,
    conv,
    core,
    functional,
    hash,
    identity,
    modules,
    ops,
    pool,
    tables,
    tensorview,
    tools,
    utils,
)
from .conv import (
    SparseConv1d,
    SparseConv2d,
    SparseConv3d,
    SparseConv4d,
    SparseConvTranspose1d,
    SparseConvTranspose2d,
    SparseConvTranspose3d,
    SparseConvTranspose4d,
    SparseInverseConv1d,
    SparseInverseConv2d,
    SparseInverseConv3d,
    SparseInverseConv4d,
    SubMConv1d,
    SubMConv2d,
    SubMConv3d,
    SubMConv4d,
)
from .core import ConvAlgo, SparseConvTensor
from .identity import Identity
from .layer import SparseModule
from .modules import (
    RemoveGrid,
    SparseBatchNorm,
    SparseIdentity,
    SparseReLU,
    SparseSequential,
    SparseSyncBatchNorm,
    ToDense,
    assign_name_for_sparse_modules,
)
from .pool import (
    SparseAvgPool1d,
    SparseAvgPool2d,
    SparseAvgPool3d,
    SparseGlobalAvgPool,
    SparseGlobalMaxPool,
    SparseMaxPool1d,
    SparseMaxPool2d,
    SparseMaxPool3d,
    SparseMaxPool4d,
)
from .tables import AddTable, ConcatTable, JoinTable

__version__ = "2.3.8"  # the spconv whose names and results these are

__all__ = [
    "AddTable",
    "ConcatTable",
    "ConvAlgo",
    "Identity",
    "JoinTable",
    "RemoveGrid",
    "SparseAvgPool1d",
    "SparseAvgPool2d",
    "SparseAvgPool3d",
    "SparseBatchNorm",
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseConv4d",
    "SparseConvTensor",
    "SparseConvTranspose1d",
    "SparseConvTranspose2d",
    "SparseConvTranspose3d",
    "SparseConvTranspose4d",
    "SparseGlobalAvgPool",
    "SparseGlobalMaxPool",
    "SparseIdentity",
    "SparseInverseConv1d",
    "SparseInverseConv2d",
    "SparseInverseConv3d",
    "SparseInverseConv4d",
    "SparseMaxPool1d",
    "SparseMaxPool2d",
    "SparseMaxPool3d",
    "SparseMaxPool4d",
    "SparseModule",
    "SparseReLU",
    "SparseSequential",
    "SparseSyncBatchNorm",
    "SubMConv1d",
    "SubMConv2d",
    "SubMConv3d",
    "SubMConv4d",
    "ToDense",
    "assign_name_for_sparse_modules",
    "constants",
    "conv",
    "core",
    "functional",
    "hash",
    "identity",
    "modules",
    "ops",
    "pool",
    "tables",
    "tensorview",
    "tools",
    "utils",
]
