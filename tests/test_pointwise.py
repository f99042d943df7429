"""Activations and their gradients, beside NumPy in float64."""

import math

import machine
import numpy as np
import pytest
from helpers import get, put

import spcy
from spcy import _threads, nn
from spcy._width import rounded, widened
from spcy.pointwise import ADD, MULTIPLY, activate, activation_gradient, activation_of, combine

pytestmark = pytest.mark.usefixtures("backend")
NAMES = ["relu", ("leaky_relu", 0.2), ("leaky_relu", -0.5), "gelu", "gelu_tanh", "silu"]
names = pytest.mark.parametrize("name", NAMES, ids=str)
SCALE, CUBIC = math.sqrt(8 / math.pi), 0.044715


def normal_share(x):
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.ravel()]).reshape(x.shape)


def sigmoid(x):
    less = np.exp(-np.abs(x))
    return np.where(x < 0, less, 1) / (1 + less)


def value(name, x):
    """The function in float64."""
    if name == "relu":
        return np.where(x < 0, 0, x)
    if name == "gelu":
        return x * normal_share(x)
    if name == "gelu_tanh":
        return x * sigmoid(SCALE * x * (1 + CUBIC * x * x))
    if name == "silu":
        return x * sigmoid(x)
    return np.where(x > 0, x, x * name[1])


def slope(name, x):
    """Its derivative in float64."""
    if name == "relu":
        return np.where(x <= 0, 0.0, 1.0)
    if name == "gelu":
        return normal_share(x) + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    if name == "gelu_tanh":
        inner = SCALE * x * (1 + CUBIC * x * x)
        return sigmoid(inner) * (1 + x * sigmoid(-inner) * SCALE * (1 + 3 * CUBIC * x * x))
    if name == "silu":
        return sigmoid(x) * (1 + x * sigmoid(-x))
    return np.where(x > 0, 1, name[1])


def condition(name, x, dtype):
    """By how much the last bit of an exponent, ours or the reference's, changes the value."""
    if name == "gelu_tanh":
        return np.abs(SCALE * x * (1 + CUBIC * x * x))
    exact = name != "gelu" or (dtype == np.float32 and spcy.get_backend() == "cpu")
    return 0 if exact else x * x


def epsilon(dtype):
    return {"bfloat16": 2.0**-8, "float16": 2.0**-11}.get(dtype.name) or np.finfo(dtype).eps


def least(dtype):
    """How much a result may be off that is near 0: a float16 is subnormal early."""
    return 2.0**-24 if dtype == np.float16 else 1e-37


def numbers(rng, dtype, size=3001):
    """Numbers of all magnitudes that the functions tell apart."""
    scales = np.array([1e-30, 1e-3, 0.5, 2, 6, 20])[rng.integers(0, 6, size)]
    return (rng.standard_normal(size) * scales).astype(dtype)


@pytest.mark.paired("name", "threads")
@names
def test_values_and_gradients(name, dtype, simd, threads, rng):
    x, dy = numbers(rng, dtype), rng.standard_normal(3001).astype(dtype)
    wide, activation = x.astype(np.float64), activation_of(name)
    expected = value(name, wide)
    bound = 5 * epsilon(dtype) * np.abs(expected) * (1 + condition(name, wide, dtype))
    y = get(activate(put(x), activation)).astype(np.float64)
    assert (np.abs(y - expected) <= bound + least(dtype)).all()
    dx = get(activation_gradient(put(x), put(dy), activation)).astype(np.float64)
    expected = slope(name, wide) * dy.astype(np.float64)
    bound = 8 * epsilon(dtype) * np.abs(dy.astype(np.float64))
    assert (np.abs(dx - expected) <= bound + least(dtype)).all()


@pytest.mark.paired("name", "dtype", backend="cuda-emulated")
@names
def test_special_numbers(name, dtype, simd):
    small, large = (1e-7, 6e4) if dtype == np.float16 else (1e-40, 3e38)
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, small, -small, large, -large], dtype)
    wide = x.astype(np.float64)
    y = get(activate(put(x), activation_of(name))).astype(np.float64)
    assert np.isnan(y[4])
    np.testing.assert_array_equal(y[:2], 0)
    assert y[2] == np.inf
    assert y[7] == wide[7]
    if not isinstance(name, tuple):
        assert y[8] == 0
        assert y[3] == 0 if name == "relu" else np.isnan(y[3])  # inf * 0, as everywhere
    else:
        assert y[3] == -math.copysign(np.inf, name[1])
    ones = np.ones(9, dtype)
    dx = get(activation_gradient(put(x), put(ones), activation_of(name))).astype(np.float64)
    left = name[1] if isinstance(name, tuple) else 0
    np.testing.assert_allclose(dx[[2, 3, 7, 8]], [1, left, 1, left], rtol=2 * epsilon(dtype))
    smooth = not isinstance(name, tuple) and name != "relu"
    np.testing.assert_allclose(dx[[0, 1]], 0.5 if smooth else left, rtol=2 * epsilon(dtype))
    dy = np.full(9, np.nan, dtype)
    dx = get(activation_gradient(put(np.ones(9, dtype)), put(dy), activation_of(name)))
    assert np.isnan(dx.astype(np.float64)).all()


@pytest.mark.paired("name", "dtype", backend="cuda-emulated")
@names
def test_any_length_and_number_of_threads_gives_the_same_bits(name, dtype, simd, rng, monkeypatch):
    monkeypatch.setattr(_threads, "GRAIN", 1)
    x = numbers(rng, dtype, 30_000)
    dy = numbers(rng, dtype, 30_000)
    activation = activation_of(name)
    results = []
    for threads in (1, 3):
        spcy.set_num_threads(threads)
        results.append((activate(put(x), activation), activation_gradient(put(x), put(dy), activation)))
    spcy.set_num_threads(None)
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(get(first).view(np.uint8), get(second).view(np.uint8))
    for size in (0, 1, 5, 17, 63):
        part = get(activate(put(x[:size]), activation))
        np.testing.assert_array_equal(part.view(np.uint8), get(results[0][0])[:size].view(np.uint8))
        part = get(activation_gradient(put(x[:size]), put(dy[:size]), activation))
        np.testing.assert_array_equal(part.view(np.uint8), get(results[0][1])[:size].view(np.uint8))


HALVES = [np.dtype(np.float16)]
if machine.ml_dtypes:
    HALVES.append(np.dtype(machine.ml_dtypes.bfloat16))
halves = pytest.mark.parametrize("half", HALVES, ids=str)


def same_numbers(one, other):
    """Check that they are the same bits, but for those of NaN."""
    assert one.dtype == other.dtype
    with np.errstate(invalid="ignore"):  # a signalling NaN
        numbers = ~np.isnan(one.astype(np.float64))
        np.testing.assert_array_equal(np.isnan(other.astype(np.float64)), ~numbers)
    bits = f"u{one.dtype.itemsize}"
    np.testing.assert_array_equal(one.view(bits)[numbers], other.view(bits)[numbers])


@pytest.mark.parametrize("operation", [ADD, MULTIPLY])
def test_sums_and_products(operation, dtype, simd, threads, rng):
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-7, -1e-40, 6e4, 1e38]
    with np.errstate(over="ignore"):
        x = np.concatenate([numbers(rng, dtype, 4000), np.repeat(special, 9).astype(dtype)]).reshape(1, -1)
        y = np.concatenate([numbers(rng, dtype, 4000), np.tile(special, 9).astype(dtype)]).reshape(1, -1)
    ufunc = np.multiply if operation else np.add
    for other in (y, dtype.type(0.3), dtype.type(-0.0), dtype.type(np.inf)):
        with np.errstate(all="ignore"):
            wide = np.float32 if dtype.itemsize == 2 else dtype  # of which the sum or product is rounded
            expected = ufunc(x.astype(wide), other.astype(wide)).astype(dtype)
        number = None if other is y else float(other)
        for size in (0, 1, 5, 17, x.size):
            if number is None:
                got = combine(operation, put(x[:, :size]), put(other[:, :size]))
            else:
                got = combine(operation, put(x[:, :size]), None, number)
            same_numbers(get(got), expected[:, :size])


@halves
def test_numbers_of_16_bits_are_widened(half, simd, threads):
    every = np.arange(2**16, dtype=np.uint16).view(half)
    with np.errstate(invalid="ignore"):
        expected = every.astype(np.float32)
    for size in (0, 1, 5, 17, 2**16):
        same_numbers(get(widened(put(every[:size]))), expected[:size])
    assert widened(put(expected)).dtype == np.float32


@halves
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_numbers_are_rounded_to_16_bits_once(half, real, simd, threads, rng):
    """To the nearest, and of two to the even; beside the middles too, where rounding twice goes wrong."""
    with np.errstate(invalid="ignore"):
        every = np.arange(2**16, dtype=np.uint16).view(half).astype(np.float64)
    every = np.sort(every[np.isfinite(every)])
    middles = (every[1:] + every[:-1]) / 2
    size = np.finfo(real).nmant + 1
    bits = rng.integers(0, 2 ** (8 * real().itemsize), 3000, np.uint64)
    parts = [every, middles, middles * (1 + 2.0 ** (1 - size)), middles * (1 - 2.0**-size)]
    special = np.array([np.inf, -np.inf, np.nan, -0.0, every[-1] * 2, -every[-1] * 2, 1e300, 1e-300])
    with np.errstate(all="ignore"):
        x = np.concatenate([*parts, special]).astype(real)
        x = np.concatenate([x, bits.astype(f"u{real().itemsize}").view(real)])
        nearest = x.astype(half)
    got = get(rounded(put(x), half))
    finite = np.isfinite(x) & np.isfinite(got.astype(float)) & np.isfinite(nearest.astype(float))
    same_numbers(got[~finite], nearest[~finite])
    got, x, nearest = got[finite], x[finite].astype(np.float64), nearest[finite]
    np.testing.assert_array_equal(np.signbit(got), np.signbit(x))
    places = nearest.view(np.uint16).astype(int) & 0x7FFF
    places = np.clip(places + np.array([[-1], [0], [1]]), 0, int(every[-1:].astype(half).view(np.uint16)[0]))
    distance = np.abs(places.astype(np.uint16).view(half).astype(np.float64) - np.abs(x))
    best = np.lexsort([places % 2, distance], axis=0)[0]
    expected = np.take_along_axis(places, best[None], axis=0)[0]
    np.testing.assert_array_equal(got.view(np.uint16).astype(int) & 0x7FFF, expected)


def test_errors_over_all_exponents(simd, rng):
    """What docstrings say, in units in the last place."""
    if spcy.get_backend() != "cpu":
        pytest.skip("a GPU has functions of its own")
    exponents = np.ldexp(np.float32(1), np.arange(-126, 7))
    x = np.concatenate([s * exponents * m for s in (-1, 1) for m in np.float32([1, 1.3, 1.7])])
    x = np.concatenate([x, rng.uniform(-13, 10, 200_000).astype(np.float32)])
    for name, worst in (("silu", 4), ("gelu", 6)):
        wide = x.astype(np.float64)
        expected = value(name, wide)
        normal = (np.abs(expected) > 1e-37) & (wide > (-87 if name == "silu" else -13))
        y = get(activate(put(x), activation_of(name)))
        units = np.abs(y - expected) / np.spacing(np.abs(expected).astype(np.float32))
        assert units[normal].max() <= worst


def test_layers_take_rows_of_any_strides(rng):
    x = rng.standard_normal((6, 10))
    for layer in (nn.ReLU(), nn.LeakyReLU(0.3), nn.GELU(), nn.GELU("tanh"), nn.SiLU()):
        y, vjp = layer.vjp(put(np.ascontiguousarray(x[::2, 1::3])))
        dx = vjp(y)[0]
        if spcy.get_backend() == "cpu":
            again, pull = layer.vjp(x[::2, 1::3])
            np.testing.assert_array_equal(again, y)
            np.testing.assert_array_equal(pull(y[:, ::-1][:, ::-1])[0], dx)
            np.testing.assert_array_equal(layer(x[::2, 1::3].astype(">f8")), y)


BAD = [
    ("softplus", ValueError, "^activation .*got 'softplus'"),
    ("leaky_relu", ValueError, "^activation .*slope.*got 'leaky_relu'"),
    (("leaky_relu", "steep"), TypeError, "^activation .*number as its slope, got 'steep'"),
    (("gelu", 1.0), ValueError, "^activation "),
    (3, ValueError, "^activation .*got 3"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD, ids=str)
def test_bad_activations(bad, error, message):
    x = spcy.SparseTensor([[0, 4]], put(np.ones((1, 1))))
    with pytest.raises(error, match=message):
        spcy.subm_conv(x, put(np.ones((3, 1, 1))), activation=bad)


def test_bad_approximation():
    with pytest.raises(ValueError, match=r"^approximate must be 'none' or 'tanh', got 'erf'"):
        nn.GELU("erf")
