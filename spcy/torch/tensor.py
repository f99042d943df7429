"""Coordinates and features that autograd knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import tensor
from ..coords import Coords, describe
from ._bridge import array_of, check_tensor, contiguous_array, entering, on_device, tensor_of


class SparseTensor(tensor.OnSites):
    """Features, a `torch.Tensor`, on the occupied sites of a grid.

    What `spcy.SparseTensor` is to NumPy. The functions of `spcy.torch` take and return it.

    Parameters
    ----------
    coords : spcy.Coords or torch.Tensor of shape (N, 1 + D), any integer dtype
        The sites; a tensor becomes `spcy.Coords`, on its device.
    features : torch.Tensor of shape (N, C), float32, float64, float16 or bfloat16
        Row i belongs to row i of the coords. On the coords' device.
    shape, batch_size
        As for `spcy.Coords`, when the coords are a tensor.

    Attributes
    ----------
    coords : spcy.Coords
    features : torch.Tensor of shape (N, C)

    Raises
    ------
    TypeError, ValueError
        If coords or features are not as above; the message names the row.

    Examples
    --------
    >>> import torch, spcy.torch
    >>> x = spcy.torch.SparseTensor(torch.tensor([[0, 4], [0, 5], [0, 9]]), torch.ones(3, 1))
    >>> weight = torch.ones(3, 1, 1, requires_grad=True)
    >>> spcy.torch.subm_conv(x, weight).features.sum().backward()
    >>> weight.grad.flatten()
    tensor([1., 3., 1.])
    """

    __slots__ = ()

    def __init__(
        self,
        coords: Coords | torch.Tensor,
        features: torch.Tensor,
        *,
        shape: Sequence[int] | None = None,
        batch_size: int | None = None,
    ):
        if isinstance(coords, Coords):
            if shape is not None or batch_size is not None:
                raise ValueError("shape and batch_size must be left out with Coords, which have their own")
        else:
            check_tensor(coords, "coords")
            check_tensor(features, "features", coords)
            with entering(coords.device), on_device(coords.device):
                coords = Coords(array_of(coords), shape, batch_size)
        check_features(features, coords)
        self._coords, self._features = coords, features

    @classmethod
    def from_coo(cls, tensor: torch.Tensor) -> SparseTensor:
        r"""Return the sites of a sparse COO tensor whose last axis, the channels, is dense.

        Parameters
        ----------
        tensor : torch.Tensor of shape (B, \*shape, C), layout torch.sparse_coo, one dense axis
            Entries of the same cell are summed, as PyTorch does. ``dense.to_sparse(dense.dim() - 1)``
            makes such a tensor of a dense one.

        Returns
        -------
        SparseTensor
            In ascending key order; gradients reach the tensor's values.

        Raises
        ------
        TypeError, ValueError
            If the tensor is not as above.

        Examples
        --------
        >>> import torch, spcy.torch
        >>> dense = torch.eye(3).reshape(1, 3, 3, 1)
        >>> spcy.torch.SparseTensor.from_coo(dense.to_sparse(3)).num_sites
        3
        """
        layout = getattr(tensor, "layout", type(tensor).__name__)
        if layout is not torch.sparse_coo:
            raise TypeError(f"tensor must be a torch.Tensor of layout torch.sparse_coo, got {layout}")
        if tensor.dense_dim() != 1 or not 2 <= tensor.sparse_dim() <= 5:
            raise ValueError(
                f"tensor must have shape (B, *shape, C) with 1 .. 4 spatial axes and the channels as its "
                f"only dense axis, got shape {tuple(tensor.shape)} with {tensor.dense_dim()} dense axes"
            )
        if min(tensor.shape) < 1:
            raise ValueError(f"tensor must have no axis of length 0, got shape {tuple(tensor.shape)}")
        tensor = tensor.coalesce()
        batch_size, *shape, _ = tensor.shape
        return cls(tensor.indices().T, tensor.values(), shape=shape, batch_size=batch_size)

    @property
    def features(self) -> torch.Tensor:
        """The features, a row for each site."""
        return self._features

    @property
    def indices(self) -> torch.Tensor:
        """The sites, (N, 1 + D) int32: a copy."""
        return indices_of(self._coords, self._features.device)

    def __repr__(self) -> str:
        words = f"{self.num_channels} channels, {self._features.dtype}, {self._features.device}"
        return f"SparseTensor({describe(self._coords)}, {words})"

    def replace(self, features: torch.Tensor) -> SparseTensor:
        """Return a tensor with the same coords and other features.

        Parameters
        ----------
        features : torch.Tensor of shape (N, any number of channels)

        Returns
        -------
        SparseTensor
        """
        return SparseTensor(self._coords, features)

    def to_coo(self) -> torch.Tensor:
        r"""Return the tensor as a sparse COO tensor whose last axis, the channels, is dense.

        Returns
        -------
        torch.Tensor of shape (B, \*shape, C), layout torch.sparse_coo
            Its values are the features, with their gradient.

        Raises
        ------
        ValueError
            If the grid is unbounded.

        Examples
        --------
        >>> import torch, spcy.torch
        >>> x = spcy.torch.SparseTensor(torch.tensor([[0, 2, 1]]), torch.ones(1, 8), shape=(4, 4))
        >>> x.to_coo().shape
        torch.Size([1, 4, 4, 8])
        """
        size = self.batch_size, *tensor.require_shape(self, "to_coo"), self.num_channels
        known: dict[str, Any] = {
            "is_coalesced": self._coords._sites.rows.order is None,
            "check_invariants": False,
        }
        return torch.sparse_coo_tensor(self.indices.T.long(), self._features, size, **known)


def check_features(features: Any, coords: Coords) -> None:
    """Raise unless features fit coords."""
    plain = type(features) is torch.Tensor and features.is_cpu and coords.backend == "cpu"
    if plain and features.dtype in FLOATS and features.dim() == 2:
        num, channels = features.shape
        if num == coords.num_sites and channels:
            return  # what they are most often: a call costs little
    check_tensor(features, "features")
    if features.device.type != coords.backend:
        raise ValueError(
            f"features must be on the device of the coords, {coords.backend!r}, got {features.device}"
        )
    if features.dim() != 2 or features.shape[1] < 1:
        raise ValueError(f"features must have shape (N, C) with C >= 1, got shape {tuple(features.shape)}")
    if len(features) != coords.num_sites:
        raise ValueError(f"features must have {coords.num_sites} rows, one per site, got {len(features)}")
    if features.dtype not in FLOATS:
        raise TypeError(
            f"features must have dtype float32, float64, float16 or bfloat16, got {features.dtype}"
        )


def array_tensor(x: SparseTensor) -> tensor.SparseTensor:
    """Return a tensor on the same memory that NumPy's functions take."""
    return tensor.SparseTensor._of(x.coords, contiguous_array(x.features))


def indices_of(coords: Coords, device: torch.device) -> torch.Tensor:
    """Return the sites as a tensor of its own memory."""
    with on_device(device), torch.inference_mode(False):  # one whose version counts
        return tensor_of(coords.indices.copy())


FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
