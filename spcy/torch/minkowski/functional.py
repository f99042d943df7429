"""The functions of ``MinkowskiEngine.MinkowskiFunctional``: PyTorch's, on the features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from .tensor import Kind, Tensor, wrapped


class _OnFeatures(Protocol):
    """A function from a tensor or a field to one; what follows are the arguments of PyTorch's."""

    def __call__(self, input: Kind, *args: Any, **kwargs: Any) -> Kind:
        """Return the tensor or field with what the function makes of its features."""


class _Loss(Protocol):
    """A loss of a tensor or a field and a target; what follows are the arguments of PyTorch's."""

    def __call__(self, input: Tensor, target: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the loss."""


def _of_features(function: Callable[..., torch.Tensor]) -> _OnFeatures:
    """Return a function of PyTorch from a tensor or a field to one."""

    def on_features(input: Kind, *args: Any, **kwargs: Any) -> Kind:
        return wrapped(input, lambda features: function(features, *args, **kwargs))

    _name(on_features, function)
    return on_features


def _loss(function: Callable[..., torch.Tensor]) -> _Loss:
    """Return a loss of PyTorch of a tensor or a field, and a target."""

    def of_features(input: Tensor, target: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return function(input.F, target, *args, **kwargs)

    _name(of_features, function)
    return of_features


def _name(wrapper: Callable[..., Any], function: Callable[..., Any]) -> None:
    """Give a function the name of PyTorch's."""
    wrapper.__name__ = wrapper.__qualname__ = function.__name__
    wrapper.__doc__ = f"`torch.nn.functional.{function.__name__}` on the features."


threshold = _of_features(F.threshold)
relu = _of_features(F.relu)
hardtanh = _of_features(F.hardtanh)
hardswish = _of_features(F.hardswish)
relu6 = _of_features(F.relu6)
elu = _of_features(F.elu)
selu = _of_features(F.selu)
celu = _of_features(F.celu)
leaky_relu = _of_features(F.leaky_relu)
prelu = _of_features(F.prelu)
rrelu = _of_features(F.rrelu)
glu = _of_features(F.glu)
gelu = _of_features(F.gelu)
logsigmoid = _of_features(F.logsigmoid)
hardshrink = _of_features(F.hardshrink)
tanhshrink = _of_features(F.tanhshrink)
softsign = _of_features(F.softsign)
softplus = _of_features(F.softplus)
softmin = _of_features(F.softmin)
softmax = _of_features(F.softmax)
softshrink = _of_features(F.softshrink)
gumbel_softmax = _of_features(F.gumbel_softmax)
log_softmax = _of_features(F.log_softmax)
tanh = _of_features(F.tanh)
sigmoid = _of_features(F.sigmoid)
hardsigmoid = _of_features(F.hardsigmoid)
silu = _of_features(F.silu)
batch_norm = _of_features(F.batch_norm)
normalize = _of_features(F.normalize)
linear = _of_features(F.linear)
dropout = _of_features(F.dropout)
alpha_dropout = _of_features(F.alpha_dropout)

binary_cross_entropy = _loss(F.binary_cross_entropy)
binary_cross_entropy_with_logits = _loss(F.binary_cross_entropy_with_logits)
poisson_nll_loss = _loss(F.poisson_nll_loss)
cross_entropy = _loss(F.cross_entropy)
hinge_embedding_loss = _loss(F.hinge_embedding_loss)
kl_div = _loss(F.kl_div)
l1_loss = _loss(F.l1_loss)
mse_loss = _loss(F.mse_loss)
multilabel_margin_loss = _loss(F.multilabel_margin_loss)
multilabel_soft_margin_loss = _loss(F.multilabel_soft_margin_loss)
multi_margin_loss = _loss(F.multi_margin_loss)
nll_loss = _loss(F.nll_loss)
smooth_l1_loss = _loss(F.smooth_l1_loss)
soft_margin_loss = _loss(F.soft_margin_loss)
