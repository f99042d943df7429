"""Sparse convolution for NumPy: computes only where data is."""

from . import models, nn
from ._backend import allow_tf32, get_backend, set_backend, use_backend
from ._config import show_config
from ._memory import get_kept_memory, set_kept_memory
from ._stencil import kernel_offsets
from ._threads import get_num_threads, set_num_threads
from ._version import __version__ as __version__
from .conv import conv, conv_transpose, inverse_conv, subm_conv
from .coords import Coords, union
from .grad import vjp
from .hashmap import HashMap
from .layout import convert_weight
from .pool import (
    avg_pool,
    global_avg_pool,
    global_max_pool,
    global_sum_pool,
    max_pool,
    sum_pool,
    unpool,
)
from .rulebook import (
    Rulebook,
    conv_rulebook,
    submanifold_rulebook,
    transposed_rulebook,
)
from .tensor import SparseTensor, add, concat, prune
from .voxel import Voxels, devoxelize, voxelize
from .weights import load_weights

__all__ = [
    "Coords",
    "HashMap",
    "Rulebook",
    "SparseTensor",
    "Voxels",
    "add",
    "allow_tf32",
    "avg_pool",
    "concat",
    "conv",
    "conv_rulebook",
    "conv_transpose",
    "convert_weight",
    "devoxelize",
    "get_backend",
    "get_kept_memory",
    "get_num_threads",
    "global_avg_pool",
    "global_max_pool",
    "global_sum_pool",
    "inverse_conv",
    "kernel_offsets",
    "load_weights",
    "max_pool",
    "models",
    "nn",
    "prune",
    "set_backend",
    "set_kept_memory",
    "set_num_threads",
    "show_config",
    "subm_conv",
    "submanifold_rulebook",
    "sum_pool",
    "transposed_rulebook",
    "union",
    "unpool",
    "use_backend",
    "vjp",
    "voxelize",
]
