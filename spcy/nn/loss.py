"""Losses, each with its gradient."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .. import _check
from .._backend import array_module, as_bits, kernels_for
from .._memory import empty
from .._threads import threads_for
from ..tensor import SparseTensor
from .module import features_of

_WORK = 1.5  # nanoseconds for a logit, about


def softmax_cross_entropy(
    logits: SparseTensor | np.ndarray,
    labels: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
) -> tuple[float, np.ndarray]:
    """Return the mean cross entropy of labels, and its gradient: ``torch.nn.functional.cross_entropy``.

    Parameters
    ----------
    logits : SparseTensor or ndarray of shape (N, C)
    labels : array_like of shape (N,), integer
        Class of each row, 0 .. C - 1, or `ignore_index`.
    weight : array_like of shape (C,), optional
        Of each class; the mean is then weighted.
    ignore_index : int
        Rows with this label do not count.

    Returns
    -------
    loss : float
        0 if no row counts.
    dlogits : ndarray of shape (N, C)
        What the network's vjp takes.

    Raises
    ------
    ValueError
        If a label is no class (the message names the row), or shapes do not fit.
    TypeError
        If the labels are not integers.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> loss, dlogits = spcy.nn.softmax_cross_entropy(np.zeros((1, 2)), [1])
    >>> round(loss, 4), dlogits
    (0.6931, array([[ 0.5, -0.5]]))
    """
    features = features_of(logits)
    xp = array_module(features)
    num, classes = features.shape
    labels = _check.labels(labels, features, ignore_index)
    counts = labels != ignore_index
    target = xp.where(counts, labels, 0)
    share = counts.astype(np.float64)
    if weight is not None:
        share = share * xp.asarray(_check.class_weight(weight, classes))[target]
    total = float(share.sum())
    if total > 0:
        share = share / total
    gradient = empty(xp, features.shape, features.dtype)
    if not features.size:
        return 0.0, gradient
    kernels = kernels_for(features).loss
    losses = empty(xp, -(-num // kernels.BLOCK), np.float64)
    logits, out = as_bits(features, gradient)
    target = target.astype(np.int32)
    kernels.cross_entropy(logits, target, share, losses, out, threads_for(_WORK * features.size))
    return float(losses.sum()), gradient
