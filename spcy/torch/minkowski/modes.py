"""The choices of MinkowskiEngine, by their names."""

from __future__ import annotations

from enum import Enum


class RegionType(Enum):
    """Which cells a kernel has: a box, its axes alone, or those that are given."""

    HYPER_CUBE = 0
    HYPER_CROSS = 1
    CUSTOM = 2


class PoolingMode(Enum):
    """What a pool computes. The three names of each global one are the same here."""

    LOCAL_SUM_POOLING = 0
    LOCAL_AVG_POOLING = 1
    LOCAL_MAX_POOLING = 2
    GLOBAL_SUM_POOLING_DEFAULT = 3
    GLOBAL_AVG_POOLING_DEFAULT = 4
    GLOBAL_MAX_POOLING_DEFAULT = 5
    GLOBAL_SUM_POOLING_KERNEL = 6
    GLOBAL_AVG_POOLING_KERNEL = 7
    GLOBAL_MAX_POOLING_KERNEL = 8
    GLOBAL_SUM_POOLING_PYTORCH_INDEX = 9
    GLOBAL_AVG_POOLING_PYTORCH_INDEX = 10
    GLOBAL_MAX_POOLING_PYTORCH_INDEX = 11


class BroadcastMode(Enum):
    """What a broadcast does with a batch's row."""

    ELEMENTWISE_ADDITON = 0
    ELEMENTWISE_MULTIPLICATION = 1


class SparseTensorOperationMode(Enum):
    """Whether a new tensor gets a coordinate manager of its own or the global one."""

    SEPARATE_COORDINATE_MANAGER = 0
    SHARE_COORDINATE_MANAGER = 1


class SparseTensorQuantizationMode(Enum):
    """What becomes of the features of rows with the same coordinates."""

    RANDOM_SUBSAMPLE = 0
    UNWEIGHTED_AVERAGE = 1
    UNWEIGHTED_SUM = 2
    NO_QUANTIZATION = 3
    MAX_POOL = 4
    SPLAT_LINEAR_INTERPOLATION = 5


class ConvolutionMode(Enum):
    """Algorithms of MinkowskiEngine: accepted, without effect."""

    DEFAULT = 0
    DIRECT_GEMM = 1
    COPY_GEMM = 2


class MinkowskiAlgorithm(Enum):
    """Algorithms of MinkowskiEngine: accepted, without effect."""

    DEFAULT = 0
    MEMORY_EFFICIENT = 1
    SPEED_OPTIMIZED = 2


class GPUMemoryAllocatorType(Enum):
    """Allocators of MinkowskiEngine: accepted, without effect."""

    PYTORCH = 0
    CUDA = 1


class CoordinateMapType(Enum):
    """Where a coordinate manager's coordinates are."""

    CPU = 0
    CUDA = 1
