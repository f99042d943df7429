import numpy as np
import pytest
from helpers import get, put

import spcy

pytestmark = pytest.mark.usefixtures("backend")


def find_in_a_dict(keys, queries):
    first = {}
    for row, key in enumerate(keys.tolist()):
        first.setdefault(key, row)
    return np.array([first.get(key, -1) for key in queries.tolist()], np.int32)


KEYS = {
    "one": np.array([7], np.uint64),
    "ends": np.array([0, 1, 2**63, 2**64 - 2], np.uint64),
    "sequence": np.arange(3000, dtype=np.uint64),
    "descending": np.arange(3000, dtype=np.uint64)[::-1],
    "same_low_bits": np.arange(3000, dtype=np.uint64) << np.uint64(40),
    "multiples_of_1024": np.arange(3000, dtype=np.uint64) << np.uint64(10),
    "duplicates": np.arange(3000, dtype=np.uint64)[::-1] // np.uint64(7),
    "all_equal": np.full(500, 12345, np.uint64),
    "random": np.random.default_rng(5).integers(0, 2**64 - 2, 40_000, np.uint64),
}


@pytest.mark.parametrize("name", KEYS)
def test_find_is_a_dict(name, threads):
    keys = KEYS[name]
    queries = np.concatenate([keys[::-1], keys + np.uint64(1), keys ^ np.uint64(1 << 63)])
    queries = np.append(queries, np.uint64(2**64 - 1))
    table = spcy.HashMap(put(keys))
    rows = get(table.find(put(queries)))
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(rows, find_in_a_dict(keys, queries))
    assert len(table) in (len(keys), len(set(keys.tolist())))
    assert repr(table)


def test_the_smallest_row_of_a_duplicate_wins():
    keys = np.array([9, 4, 9, 4, 4, 1], np.uint64)
    np.testing.assert_array_equal(get(spcy.HashMap(put(keys)).find(put(keys))), [0, 1, 0, 1, 1, 5])


def test_no_keys_and_no_queries():
    nothing = put(np.empty(0, np.uint64))
    table = spcy.HashMap(nothing)
    assert len(table) == 0
    np.testing.assert_array_equal(get(table.find(put(np.arange(3, dtype=np.uint64)))), [-1, -1, -1])
    assert spcy.HashMap(put(np.ones(1, np.uint64))).find(nothing).shape == (0,)


@pytest.mark.parametrize("view", ["strided", "readonly", "swapped"])
def test_any_layout_of_keys(view):
    keys = np.arange(100, dtype=np.uint64) * np.uint64(977)
    given = {"strided": np.repeat(keys, 3)[::3], "readonly": keys.copy(), "swapped": keys.astype(">u8")}[view]
    given.setflags(write=False)
    np.testing.assert_array_equal(get(spcy.HashMap(put(given)).find(put(given))), np.arange(100))


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        (np.zeros((2, 2), np.uint64), ValueError, r"^keys .*\(2, 2\)"),
        (np.zeros(2), TypeError, "^keys .*uint64.*float64"),
        (np.zeros(2, np.int64), TypeError, "^keys .*uint64.*int64"),
        (np.array([1, 2**64 - 1], np.uint64), ValueError, "^keys .*row 1"),
    ],
)
def test_bad_keys(keys, error, message):
    with pytest.raises(error, match=message):
        spcy.HashMap(put(keys))
