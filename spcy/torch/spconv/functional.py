"""Sums over the union of sites."""

from __future__ import annotations

from .. import functional
from .core import Level, SparseConvTensor


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
    total = tens[0].as_spcy()
    for other in tens[1:]:
        total = functional.add(total, other.as_spcy())
    for each in tens:
        if len(each.coords) == len(total.coords):
            rows = total.coords.rows_of(each.coords.indices)
            features = total.features
            if total.coords is not each.coords:
                features = features[_tensor(rows)]
            return each.replace_feature(features)
    out = tens[0].replace_feature(total.features)
    out._level, out.indice_dict = Level.on(total.coords), {}
    return out


sparse_add_hash_based = sparse_add


def _tensor(rows):
    from .._bridge import tensor_of

    return tensor_of(rows).long()
