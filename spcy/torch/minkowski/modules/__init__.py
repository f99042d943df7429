"""The blocks of ``MinkowskiEngine.modules``."""

from . import resnet_block, senet_block

__all__ = ["resnet_block", "senet_block"]
