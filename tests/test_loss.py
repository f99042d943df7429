"""Cross entropy and its gradient, beside NumPy in float64."""

import numpy as np
import pytest
from helpers import get, put

import spcy
from spcy import _threads
from spcy.nn import softmax_cross_entropy

pytestmark = pytest.mark.usefixtures("backend")


def expected(logits, labels, share):
    """The loss and its gradient in float64."""
    x = logits.astype(np.float64)
    power = np.exp(x - x.max(axis=1, keepdims=True))
    softmax = power / power.sum(axis=1, keepdims=True)
    rows = np.arange(len(x))
    entropy = np.log(power.sum(axis=1)) - (x - x.max(axis=1, keepdims=True))[rows, labels]
    softmax[rows, labels] -= 1
    return (entropy * share).sum(), softmax * share[:, None]


def epsilon(dtype):
    return 2.0**-8 if dtype.itemsize == 2 else np.finfo(dtype).eps


@pytest.mark.paired("classes", "dtype", backend="cuda-emulated")
@pytest.mark.paired("classes", "threads")
@pytest.mark.parametrize("classes", [1, 2, 15, 16, 20, 33, 70])
def test_loss_and_gradient(classes, dtype, simd, threads, rng):
    logits = (rng.standard_normal((600, classes)) * 5).astype(dtype)
    labels = rng.integers(0, classes, 600)
    ignored = rng.random(600) < 0.2
    weight = rng.uniform(0.5, 2, classes)
    share = np.where(ignored, 0, weight[labels])
    share /= share.sum()
    loss, gradient = expected(logits, labels, share)
    found, dlogits = softmax_cross_entropy(
        put(logits), put(np.where(ignored, -1, labels)), weight=weight, ignore_index=-1
    )
    small = np.finfo(np.float32).eps if dtype.itemsize == 2 else epsilon(dtype)
    assert abs(found - loss) <= 20 * small * (1 + abs(loss))
    assert dlogits.dtype == dtype
    dlogits = get(dlogits).astype(np.float64)
    assert (np.abs(dlogits - gradient) <= 8 * epsilon(dtype) * share[:, None]).all()
    np.testing.assert_array_equal(dlogits[ignored], 0)


def test_any_number_of_threads_gives_the_same_bits(dtype, simd, rng, monkeypatch):
    if spcy.get_backend() != "cpu":
        pytest.skip("a GPU has no threads of the host")
    monkeypatch.setattr(_threads, "GRAIN", 1)
    logits, labels = rng.standard_normal((3000, 21)).astype(dtype), rng.integers(0, 21, 3000)
    results = []
    for threads in (1, 2, 4):
        spcy.set_num_threads(threads)
        results.append(softmax_cross_entropy(logits, labels))
    spcy.set_num_threads(None)
    for loss, gradient in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(gradient.view(np.uint8), results[0][1].view(np.uint8))


def test_special_logits(dtype, simd):
    """Large ones do not overflow; what is no number stays in its row."""
    large = 6e4 if dtype == np.float16 else 3e38
    logits = np.array([[large, 0, -large], [np.nan, 0, 1], [np.inf, 0, 1], [-np.inf, 0, 0]], dtype)
    for rows, finite in (([0], True), ([0, 3], True), ([0, 1], False), ([0, 2], False)):
        loss, gradient = softmax_cross_entropy(put(logits[rows]), put(np.array([0, 1][: len(rows)])))
        assert np.isfinite(loss) == finite
        assert np.isfinite(get(gradient).astype(np.float64)[0]).all()
        assert np.isfinite(get(gradient).astype(np.float64)[-1]).all() == finite


@pytest.mark.parametrize("shape", [(0, 3), (0, 0), (4, 0)], ids=str)
def test_nothing_to_learn_from(shape):
    logits = put(np.empty(shape, np.float32))
    loss, gradient = softmax_cross_entropy(logits, put(np.full(shape[0], -100)))
    assert loss == 0
    assert gradient.shape == shape
