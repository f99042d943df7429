"""The Python API of MinkowskiEngine 0.5.4 by its names, on spcy: on CPUs too, without a build.

``import spcy.torch.minkowski as ME`` stands where ``import MinkowskiEngine as ME`` stood. Weights and
results are MinkowskiEngine's; what differs: rows ascend by batch and coordinates where a layer makes sites,
and mistakes are errors that say what to do.
"""

import torch as _torch

from . import functional as MinkowskiFunctional
from . import modules, utils
from . import ops as MinkowskiOps
from .conv import (
    MinkowskiChannelwiseConvolution,
    MinkowskiConvolution,
    MinkowskiConvolutionFunction,
    MinkowskiConvolutionTranspose,
    MinkowskiConvolutionTransposeFunction,
    MinkowskiGenerativeConvolutionTranspose,
    MinkowskiModuleBase,
)
from .kernels import (
    KernelGenerator,
    KernelRegion,
    convert_region_type,
    convert_to_int_list,
    convert_to_int_tensor,
    get_kernel_volume,
)
from .manager import (
    CoordinateManager,
    CoordinateMapKey,
    CoordsManager,  # noqa: F401  # the name of 0.4
    set_gpu_allocator,
    set_memory_manager_backend,
)
from .modes import (
    BroadcastMode,
    ConvolutionMode,
    CoordinateMapType,
    GPUMemoryAllocatorType,
    MinkowskiAlgorithm,
    PoolingMode,
    RegionType,
    SparseTensorOperationMode,
    SparseTensorQuantizationMode,
)
from .network import (
    MinkowskiNetwork,
)
from .nonlinearity import (
    MinkowskiAdaptiveLogSoftmaxWithLoss,
    MinkowskiAlphaDropout,
    MinkowskiCELU,
    MinkowskiDropout,
    MinkowskiELU,
    MinkowskiGELU,
    MinkowskiHardshrink,
    MinkowskiHardsigmoid,
    MinkowskiHardswish,
    MinkowskiHardtanh,
    MinkowskiLeakyReLU,
    MinkowskiLogSigmoid,
    MinkowskiLogSoftmax,
    MinkowskiPReLU,
    MinkowskiReLU,
    MinkowskiReLU6,
    MinkowskiRReLU,
    MinkowskiSELU,
    MinkowskiSigmoid,
    MinkowskiSiLU,
    MinkowskiSinusoidal,
    MinkowskiSoftmax,
    MinkowskiSoftmin,
    MinkowskiSoftplus,
    MinkowskiSoftshrink,
    MinkowskiSoftsign,
    MinkowskiTanh,
    MinkowskiTanhshrink,
    MinkowskiThreshold,
)
from .norm import (
    MinkowskiBatchNorm,
    MinkowskiInstanceNorm,
    MinkowskiInstanceNormFunction,
    MinkowskiStableInstanceNorm,
    MinkowskiSyncBatchNorm,
)
from .ops import (
    MinkowskiInterpolation,
    MinkowskiInterpolationFunction,
    MinkowskiLinear,
    MinkowskiPruning,
    MinkowskiPruningFunction,
    MinkowskiStackCat,
    MinkowskiStackMean,
    MinkowskiStackSum,
    MinkowskiStackVar,
    MinkowskiToDenseTensor,
    MinkowskiToFeature,
    MinkowskiToSparseTensor,
    MinkowskiUnion,
    MinkowskiUnionFunction,
    cat,
    dense_coordinates,
    mean,
    sum,
    to_sparse,
    to_sparse_all,
    var,
)
from .pool import (
    MinkowskiAvgPooling,
    MinkowskiBroadcast,
    MinkowskiBroadcastAddition,
    MinkowskiBroadcastConcatenation,
    MinkowskiBroadcastFunction,
    MinkowskiBroadcastMultiplication,
    MinkowskiDirectMaxPoolingFunction,
    MinkowskiGlobalAvgPooling,
    MinkowskiGlobalMaxPooling,
    MinkowskiGlobalPooling,
    MinkowskiGlobalPoolingFunction,
    MinkowskiGlobalSumPooling,
    MinkowskiLocalPoolingFunction,
    MinkowskiLocalPoolingTransposeFunction,
    MinkowskiMaxPooling,
    MinkowskiPoolingTranspose,
    MinkowskiSumPooling,
)
from .spmm import (
    MinkowskiSPMMAverageFunction,
    MinkowskiSPMMFunction,
    spmm,
)
from .tensor import (
    SparseTensor,
    TensorField,
    clear_global_coordinate_manager,
    global_coordinate_manager,
    set_global_coordinate_manager,
    set_sparse_tensor_operation_mode,
    sparse_tensor_operation_mode,
)

__version__ = "0.5.4"  # the MinkowskiEngine whose names and results these are


def is_cuda_available() -> bool:
    """Return whether tensors on a GPU can be used."""
    return _torch.cuda.is_available()


def cuda_version() -> int:
    """Return PyTorch's CUDA version as MinkowskiEngine writes it, 12060 for 12.6; -1 without one."""
    version = _torch.version.cuda
    if version is None:
        return -1
    major, minor, *_ = map(int, version.split("."))
    return 1000 * major + 10 * minor


cudart_version = cuda_version


def get_gpu_memory_info() -> tuple[int, int]:
    """Return the free and the total bytes of the GPU."""
    return _torch.cuda.mem_get_info()


def print_diagnostics() -> None:
    """Print what a bug report needs: what `spcy.show_config` does, and PyTorch's version."""
    import spcy

    print(f"PyTorch {_torch.__version__}")
    spcy.show_config()


__all__ = [
    "BroadcastMode",
    "ConvolutionMode",
    "CoordinateManager",
    "CoordinateMapKey",
    "CoordinateMapType",
    "GPUMemoryAllocatorType",
    "KernelGenerator",
    "KernelRegion",
    "MinkowskiAdaptiveLogSoftmaxWithLoss",
    "MinkowskiAlgorithm",
    "MinkowskiAlphaDropout",
    "MinkowskiAvgPooling",
    "MinkowskiBatchNorm",
    "MinkowskiBroadcast",
    "MinkowskiBroadcastAddition",
    "MinkowskiBroadcastConcatenation",
    "MinkowskiBroadcastFunction",
    "MinkowskiBroadcastMultiplication",
    "MinkowskiCELU",
    "MinkowskiChannelwiseConvolution",
    "MinkowskiConvolution",
    "MinkowskiConvolutionFunction",
    "MinkowskiConvolutionTranspose",
    "MinkowskiConvolutionTransposeFunction",
    "MinkowskiDirectMaxPoolingFunction",
    "MinkowskiDropout",
    "MinkowskiELU",
    "MinkowskiFunctional",
    "MinkowskiGELU",
    "MinkowskiGenerativeConvolutionTranspose",
    "MinkowskiGlobalAvgPooling",
    "MinkowskiGlobalMaxPooling",
    "MinkowskiGlobalPooling",
    "MinkowskiGlobalPoolingFunction",
    "MinkowskiGlobalSumPooling",
    "MinkowskiHardshrink",
    "MinkowskiHardsigmoid",
    "MinkowskiHardswish",
    "MinkowskiHardtanh",
    "MinkowskiInstanceNorm",
    "MinkowskiInstanceNormFunction",
    "MinkowskiInterpolation",
    "MinkowskiInterpolationFunction",
    "MinkowskiLeakyReLU",
    "MinkowskiLinear",
    "MinkowskiLocalPoolingFunction",
    "MinkowskiLocalPoolingTransposeFunction",
    "MinkowskiLogSigmoid",
    "MinkowskiLogSoftmax",
    "MinkowskiMaxPooling",
    "MinkowskiModuleBase",
    "MinkowskiNetwork",
    "MinkowskiOps",
    "MinkowskiPReLU",
    "MinkowskiPoolingTranspose",
    "MinkowskiPruning",
    "MinkowskiPruningFunction",
    "MinkowskiRReLU",
    "MinkowskiReLU",
    "MinkowskiReLU6",
    "MinkowskiSELU",
    "MinkowskiSPMMAverageFunction",
    "MinkowskiSPMMFunction",
    "MinkowskiSiLU",
    "MinkowskiSigmoid",
    "MinkowskiSinusoidal",
    "MinkowskiSoftmax",
    "MinkowskiSoftmin",
    "MinkowskiSoftplus",
    "MinkowskiSoftshrink",
    "MinkowskiSoftsign",
    "MinkowskiStableInstanceNorm",
    "MinkowskiStackCat",
    "MinkowskiStackMean",
    "MinkowskiStackSum",
    "MinkowskiStackVar",
    "MinkowskiSumPooling",
    "MinkowskiSyncBatchNorm",
    "MinkowskiTanh",
    "MinkowskiTanhshrink",
    "MinkowskiThreshold",
    "MinkowskiToDenseTensor",
    "MinkowskiToFeature",
    "MinkowskiToSparseTensor",
    "MinkowskiUnion",
    "MinkowskiUnionFunction",
    "PoolingMode",
    "RegionType",
    "SparseTensor",
    "SparseTensorOperationMode",
    "SparseTensorQuantizationMode",
    "TensorField",
    "cat",
    "clear_global_coordinate_manager",
    "convert_region_type",
    "convert_to_int_list",
    "convert_to_int_tensor",
    "cuda_version",
    "cudart_version",
    "dense_coordinates",
    "get_gpu_memory_info",
    "get_kernel_volume",
    "global_coordinate_manager",
    "is_cuda_available",
    "mean",
    "modules",
    "print_diagnostics",
    "set_global_coordinate_manager",
    "set_gpu_allocator",
    "set_memory_manager_backend",
    "set_sparse_tensor_operation_mode",
    "sparse_tensor_operation_mode",
    "spmm",
    "sum",
    "to_sparse",
    "to_sparse_all",
    "utils",
    "var",
]
