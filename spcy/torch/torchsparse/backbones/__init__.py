"""Networks by TorchSparse's names, with the parameters of its checkpoints."""

from .resnet import SparseResNet, SparseResNet21D
from .unet import SparseResUNet, SparseResUNet42

__all__ = ["SparseResNet", "SparseResNet21D", "SparseResUNet", "SparseResUNet42"]
