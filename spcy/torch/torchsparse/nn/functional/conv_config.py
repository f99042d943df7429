"""How layers choose their windows, and settings that have no effect here."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Literal, get_args

from ..... import _check

__all__ = [
    "ConvMode",
    "Dataflow",
    "clear_global_conv_config",
    "get_conv_mode",
    "get_default_conv_config",
    "get_downsample_mode",
    "get_global_conv_config",
    "get_kmap_mode",
    "set_conv_mode",
    "set_downsample_mode",
    "set_global_conv_config",
    "set_kmap_mode",
]

KmapMode = Literal["hashmap_on_the_fly", "hashmap"]
DownsampleMode = Literal["spconv", "minkowski"]


class Dataflow(enum.Enum):
    """Dataflows of TorchSparse: accepted, without effect."""

    ImplicitGEMM = 0
    GatherScatter = 1
    FetchOnDemand = 2
    CodedCSR = 3


class ConvMode(enum.Enum):
    """Modes of TorchSparse's kernels: accepted, without effect."""

    mode0 = 0
    mode1 = 1
    mode2 = 2


class ConvConfig(dict[str, Any]):
    """A dict whose names are attributes too.

    Two have an effect: `downsample_mode` ("spconv", "minkowski") and `kmap_mode` ("hashmap_on_the_fly",
    "hashmap"). See `torchsparse.nn.Conv3d`.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def copy(self) -> ConvConfig:
        """Return a config of its own with the same values."""
        return ConvConfig(self)


_conv_mode = ConvMode.mode0
_kmap_mode: KmapMode = "hashmap_on_the_fly"
_downsample_mode: DownsampleMode = "spconv"
_global_config: ConvConfig | None = None


def get_default_conv_config(conv_mode: ConvMode = ConvMode.mode0, training: bool = False) -> ConvConfig:
    """Return what layers go by that have no config; a new one each time."""
    return ConvConfig(
        dataflow=Dataflow.ImplicitGEMM,
        ifsort=conv_mode is not ConvMode.mode0,
        kmap_mode="hashmap_on_the_fly",
        downsample_mode=_downsample_mode,
        split_mask_num=3 if conv_mode is ConvMode.mode2 else 1,
        split_mask_num_bwd=3,
        epsilon=0.0,
        mm_thresh=0,
        FOD_fusion=True,
    )


def complete(config: Mapping[str, Any]) -> ConvConfig:
    """Return a config with the defaults for what it leaves out, checked."""
    config = ConvConfig({**get_default_conv_config(), **config})
    _check.choice(config.kmap_mode, get_args(KmapMode), "kmap_mode")
    _check.choice(config.downsample_mode, get_args(DownsampleMode), "downsample_mode")
    return config


def get_global_conv_config() -> ConvConfig | None:
    """Return the config of layers that have none of their own, if one was set."""
    return _global_config


def set_global_conv_config(conv_config: Mapping[str, Any]) -> None:
    """Set the config of layers that have none of their own."""
    global _global_config
    _global_config = complete(conv_config)


def clear_global_conv_config() -> None:
    """Take back what `set_global_conv_config` set."""
    global _global_config
    _global_config = None


def get_conv_mode() -> ConvMode:
    """Return what `set_conv_mode` set."""
    return _conv_mode


def set_conv_mode(conv_mode: int | ConvMode) -> None:
    """Set the mode of TorchSparse's kernels: accepted, without effect."""
    global _conv_mode
    _conv_mode = ConvMode(conv_mode)


def get_kmap_mode() -> KmapMode:
    """Return what `set_kmap_mode` set."""
    return _kmap_mode


def set_kmap_mode(kmap_mode: KmapMode) -> None:
    """Set the way kernel maps are built: accepted, without effect, as in TorchSparse; a config's has one."""
    global _kmap_mode
    _check.choice(kmap_mode, get_args(KmapMode), "kmap_mode")
    _kmap_mode = kmap_mode


def get_downsample_mode() -> DownsampleMode:
    """Return what `set_downsample_mode` set."""
    return _downsample_mode


def set_downsample_mode(downsample_mode: DownsampleMode) -> None:
    """Set how strided layers choose their outputs where no config says it: "spconv" or "minkowski"."""
    global _downsample_mode
    _check.choice(downsample_mode, get_args(DownsampleMode), "downsample_mode")
    _downsample_mode = downsample_mode
