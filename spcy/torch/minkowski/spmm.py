"""Products of sparse and dense matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import functional
from .._bridge import check_tensor, opaque
from .tensor import weighted_rows


@opaque
def spmm(
    rows: torch.Tensor,
    cols: torch.Tensor,
    vals: torch.Tensor,
    size: Sequence[int],
    mat: torch.Tensor,
    is_sorted: bool = False,
    cuda_spmm_alg: int = 1,
) -> torch.Tensor:
    """Return the product of a sparse matrix and a dense one.

    Parameters
    ----------
    rows, cols : torch.Tensor of shape (N,), integer
    vals : torch.Tensor of shape (N,)
        The sparse matrix, of a shape `size`.
    size : sequence of two ints
    mat : torch.Tensor of shape (size[1], C)
    is_sorted, cuda_spmm_alg
        Accepted, without effect.

    Returns
    -------
    torch.Tensor of shape (size[0], C)

    Raises
    ------
    ValueError
        If the lengths, dtypes or sizes do not fit each other.
    """
    _check_entries(rows, cols, size, mat)
    check_tensor(vals, "vals", mat)
    if vals.shape != rows.shape or vals.dtype != mat.dtype:
        raise ValueError(
            f"vals must be {len(rows)} of {mat.dtype}, as rows and mat, got shape {tuple(vals.shape)} of "
            f"{vals.dtype}"
        )
    return weighted_rows(mat, cols, rows, vals, size[0])


def spmm_average(
    rows: torch.Tensor, cols: torch.Tensor, size: Sequence[int], mat: torch.Tensor, cuda_spmm_alg: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the mean of the rows of `mat` that each row has, the entries by row, and their weights."""
    _check_entries(rows, cols, size, mat)
    rows, cols = rows.long(), cols.long()
    order = torch.argsort(rows, stable=True)
    weights = 1 / torch.bincount(rows, minlength=size[0]).clamp(min=1).to(mat.dtype)
    total = functional.add_rows(functional.take_rows(mat, cols.int()), rows.int(), size[0])
    return (
        total * weights[:, None],
        torch.stack([rows[order], cols[order]]),
        weights[rows[order]],
    )


def _check_entries(rows: torch.Tensor, cols: torch.Tensor, size: Sequence[int], mat: torch.Tensor) -> None:
    if not isinstance(size, Sequence) or len(size) != 2:
        raise ValueError(f"size must be two ints, got {size!r}")
    check_tensor(mat, "mat")
    if mat.dim() != 2:
        raise ValueError(f"mat must have shape ({size[1]}, C), got shape {tuple(mat.shape)}")
    for name, each in (("rows", rows), ("cols", cols)):
        check_tensor(each, name, mat)
        whole = not each.is_floating_point() or bool((each == each.floor()).all())  # floats too, as there
        if each.dim() != 1 or not whole or each.dtype is torch.bool:
            raise ValueError(f"{name} must be ints of shape (N,), got {each.dtype} {tuple(each.shape)}")
    if len(rows) != len(cols):
        raise ValueError(f"cols must be {len(rows)}, as rows, got {len(cols)}")
    if len(mat) != size[1]:
        raise ValueError(f"mat must have {size[1]} rows, as size says, got {len(mat)}")
    for name, each, end in (("rows", rows, size[0]), ("cols", cols, size[1])):
        if len(each) and not 0 <= int(each.min()) <= int(each.max()) < end:
            raise ValueError(f"{name} must lie in [0, {end}), got {int(each.min())} .. {int(each.max())}")


class MinkowskiSPMMFunction:
    """The product of a sparse matrix and a dense one."""

    @staticmethod
    def apply(
        rows: torch.Tensor,
        cols: torch.Tensor,
        vals: torch.Tensor,
        size: Sequence[int],
        mat: torch.Tensor,
        cuda_spmm_alg: int = 1,
    ) -> torch.Tensor:
        """Return what `spmm` does."""
        return spmm(rows, cols, vals, size, mat)


class MinkowskiSPMMAverageFunction:
    """The mean of rows of a matrix."""

    @staticmethod
    @opaque
    def apply(
        rows: torch.Tensor,
        cols: torch.Tensor,
        size: Sequence[int],
        mat: torch.Tensor,
        cuda_spmm_alg: int = 1,
    ) -> torch.Tensor:
        """Return what `spmm_average` does first."""
        return spmm_average(rows, cols, size, mat)[0]
