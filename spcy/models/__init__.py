"""Networks that were published with trained weights, and what turns those weights into spcy's.

Their parameters have the names that the original networks gave them, in spcy's layout. Each has a
``from_state_dict(state, source)``, for `spcy.load_weights` and the library that the weights are from.
"""

from .backbone8x import BackboneFeatures, VoxelBackBone8x, VoxelResBackBone8x
from .minkunet import MinkUNet, MinkUNet42
from .network import Network
from .scn_unet import SparseConvNetUNet
from .store import NETWORKS, ScanSettings, load, save, scan_tensor

__all__ = [
    "NETWORKS",
    "BackboneFeatures",
    "MinkUNet",
    "MinkUNet42",
    "Network",
    "ScanSettings",
    "SparseConvNetUNet",
    "VoxelBackBone8x",
    "VoxelResBackBone8x",
    "load",
    "save",
    "scan_tensor",
]
