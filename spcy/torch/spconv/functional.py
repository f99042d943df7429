"""Sums over the union of sites."""

from __future__ import annotations

from ...coords import Coords, same_grid
from .. import functional
from .._bridge import entering, opaque, tensor_of
from ..tensor import SparseTensor
from .core import Level, SparseConvTensor, require_sparse


@opaque
def sparse_add(*tens: SparseConvTensor) -> SparseConvTensor:
    """Return the sum of tensors over the union of their sites.

    Parameters
    ----------
    *tens : SparseConvTensor
        Of one grid and one number of channels.

    Returns
    -------
    SparseConvTensor
        On the sites of the first of them that has all, with its rows and `indice_dict`; else ascending, and
        no inverse convolution goes back from there.

    Raises
    ------
    ValueError
        If the grids or the numbers of channels differ.
    """
    if not tens:
        raise TypeError("tens must be at least one SparseConvTensor")
    for place, x in enumerate(tens):
        require_sparse(x, f"tens[{place}]")
    total, *others = [x.as_spcy() for x in tens]
    for other in others:
        if not same_grid(total.coords, other.coords):  # a level that was made, and one of a user's indices
            total, other = _of_indices(total), _of_indices(other)
        total = functional.add(total, other)
    for each in tens:
        if len(each.features) == total.num_sites:
            rows = total.coords.rows_of(each.coords.indices)
            features = total.features
            if total.coords is not each.coords:
                features = features[tensor_of(rows).long()]
            return each.with_features(features)
    out = tens[0].with_features(total.features)
    out._level, out.indice_dict = Level(coords=total.coords), {}
    return out


sparse_add_hash_based = sparse_add


def _of_indices(x: SparseTensor) -> SparseTensor:
    """Return a tensor that knows of no place in space."""
    with entering(x.features.device):
        return SparseTensor._of(Coords(x.coords.indices, x.coords.shape, x.coords.batch_size), x.features)
