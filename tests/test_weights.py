"""Weights from files: what PyTorch wrote is read right, and what is no weights is refused and never run."""

import io
import os
import pickle
import struct
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from torch_files import archive, call, dictionary, name, number, plain, save, storage, tensor, text, tup

import spcy
from spcy import _checkpoint, _unpickle, weights
from spcy._files import write_npz

DATA = Path(__file__).parent / "data"  # files that torch.save of PyTorch 2.13 wrote


def dictionary_of(**items):
    return dictionary(items)


RECORDS = {"data/0": np.arange(6, dtype="<f4").tobytes(), "version": b"3\n"}


@pytest.fixture
def write(tmp_path):
    """Write a checkpoint of a pickle's operations and records; return its path."""

    def write(content, records=RECORDS, **options):
        archive(tmp_path / "model.pth", content, records, **options)
        return tmp_path / "model.pth"

    return write


# Good files


@pytest.mark.parametrize("dtype", _unpickle.DTYPES.values())
def test_every_dtype_of_pytorch(dtype):
    array = spcy.load_weights(DATA / "torch_dtypes.pth")[dtype]
    if dtype == "bool":
        assert array.tolist() == [False, True] * 3
    else:
        assert array.astype(np.float64).tolist() == [0, 1, 2, 3, 4, 5]
    assert array.dtype == _checkpoint.numpy_dtype(dtype)


def test_views_of_one_storage():
    state = spcy.load_weights(DATA / "torch_dtypes.pth")
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = {
        "base": base,
        "transposed": base.T,
        "part": base[1:3, ::2],
        "expanded": np.ones(3, np.float32),
        "scalar": np.float32(7),
        "empty": np.zeros((0, 5), np.float32),
        "parameter": base[3],
        "permuted": base.reshape(2, 2, 6).transpose(2, 0, 1),
    }
    for key, array in expected.items():
        assert state[key].dtype == np.float32
        assert state[key].shape == np.shape(array)
        np.testing.assert_array_equal(state[key], array)
        assert not state[key].flags.writeable
    for key in ("transposed", "part", "parameter"):
        assert np.shares_memory(state[key], state["base"])
    assert list(state)[-len(expected) :] == list(expected)


NET = {
    "0.weight": [[0, 1], [2, 3], [4, 5]],
    "0.bias": [10, 11, 12],
    "1.weight": [20, 21, 22],
    "1.bias": [30, 31, 32],
    "1.running_mean": [40, 41, 42],
    "1.running_var": [50, 51, 52],
    "1.num_batches_tracked": 60,
}


def test_a_part_of_a_checkpoint_is_chosen_by_its_key():
    path = DATA / "torch_checkpoint.pth"
    state = spcy.load_weights(path, key="model_state")
    assert {key: array.tolist() for key, array in state.items()} == NET
    assert list(spcy.load_weights(path, key="model_state.0")) == ["weight", "bias"]
    moments = spcy.load_weights(path, key="optimizer_state.state.0")
    assert list(moments) == ["step", "exp_avg", "exp_avg_sq"]


def test_a_part_is_never_guessed():
    path = DATA / "torch_checkpoint.pth"
    with pytest.raises(
        ValueError, match=r"checkpoint\.pth: .*'optimizer_state.param_groups' is of type list; "
    ) as e:
        spcy.load_weights(path)
    assert str(e.value).endswith("choose a part of it: key='model_state' (7 arrays)")
    with pytest.raises(
        ValueError, match=r"key='model'.*start with \['model_state', 'optimizer_state', 'epoch',"
    ):
        spcy.load_weights(path, key="model")
    with pytest.raises(ValueError, match=r"'optimizer_state.param_groups' is of type list"):
        spcy.load_weights(path, key="optimizer_state")


def test_dicts_of_dicts_have_dotted_names(write):
    path = write(dictionary_of(a=dictionary_of(w=tensor(), b=tensor((3,), (1,), 3)), c=tensor((), (), 5)))
    state = spcy.load_weights(path)
    assert {key: array.tolist() for key, array in state.items()} == {
        "a.w": [[0, 1, 2], [3, 4, 5]],
        "a.b": [3, 4, 5],
        "c": 5,
    }


def test_the_other_ways_to_write_a_tensor(write):
    v1 = name("torch._utils", "_rebuild_tensor")
    v3 = name("torch._utils", "_rebuild_tensor_v3")
    raw = storage(("torch.storage", "UntypedStorage"), "1", num_items=24)
    sizes = (tup(number(2), number(3)), tup(number(3), number(1)))
    hooks = call(name("collections", "OrderedDict"))
    parameter = name("torch._utils", "_rebuild_parameter")
    path = write(
        dictionary_of(
            v1=call(v1, storage(), number(0), *sizes),
            v3=call(v3, raw, number(0), *sizes, b"\x89", hooks, name("torch", "float32")),
            half=call(v3, raw, number(6), *sizes, b"\x89", hooks, name("torch", "float16")),
            parameter=call(parameter, tensor(), b"\x88", hooks),
        ),
        {**RECORDS, "data/1": RECORDS["data/0"]},
    )
    state = spcy.load_weights(path)
    expected = np.arange(6, dtype=np.float32)
    for key in ("v1", "v3", "parameter"):
        np.testing.assert_array_equal(state[key], expected.reshape(2, 3))
    np.testing.assert_array_equal(state["half"], expected.view(np.float16)[6:].reshape(2, 3))


def test_bytes_of_the_other_order(write):
    other = ">f4" if sys.byteorder == "little" else "<f4"
    records = {
        "data/0": np.arange(6, dtype=other).tobytes(),
        "byteorder": {"little": b"big", "big": b"little"}[sys.byteorder],
    }
    state = spcy.load_weights(write(dictionary_of(w=tensor()), records))
    np.testing.assert_array_equal(state["w"], np.arange(6).reshape(2, 3))


def test_the_format_before_pytorch_1_6():
    path = DATA / "torch_legacy.pth"
    state = spcy.load_weights(path, key="model")
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = {
        "base": base,
        "transposed": base.T,
        "parameter": base[1],
        "half": np.arange(3, dtype=np.float16),
        "bfloat16": np.arange(5).astype(ml_dtypes.bfloat16),
        "count": np.array(7),
        "flags": np.array([True, False, True]),
        "empty": np.zeros((0, 2), np.float32),
    }
    assert list(state) == list(expected)
    for key, array in expected.items():
        assert (state[key].dtype, state[key].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(state[key], array)
        assert not state[key].flags.writeable
    assert np.shares_memory(state["transposed"], state["base"])
    with pytest.raises(
        ValueError, match=r"'epoch' is of type int; choose a part of it: key='model' \(8 arrays\)"
    ):
        spcy.load_weights(path)


PLAIN = {"content": None, "keys": ["0"], "storages": struct.pack("<q", 6) + RECORDS["data/0"]}
BAD_PLAIN = {
    "call": ({"content": dictionary_of(w=call(name("posix", "system"), text("true")))}, r"posix\.system"),
    "missing_storage": ({"keys": [], "storages": b""}, "not those that its tensors want"),
    "other_storage": ({"keys": ["1"]}, "not those that its tensors want"),
    "twice": ({"keys": ["0", "0"]}, "not those that its tensors want"),
    "keys": ({"keys": [["0"]]}, "not those that its tensors want"),
    "count": ({"storages": struct.pack("<q", 7) + bytes(28)}, "record 0 must hold 6 items, got 7"),
    "negative_count": ({"storages": struct.pack("<q", -6) + bytes(24)}, "record 0 must hold 6 items"),
    "short": ({"storages": struct.pack("<q", 6) + bytes(20)}, "must end with the file"),
    "long": ({"storages": struct.pack("<q", 6) + bytes(28)}, "must end with the file"),
    "huge": (
        {
            "content": dictionary_of(w=tensor((2**50,), (1,), of=storage(num_items=2**50))),
            "storages": struct.pack("<q", 2**50) + bytes(24),
        },
        "must end with the file",
    ),
    "part": (
        {
            "content": dictionary_of(
                w=tensor(
                    of=tup(
                        text("storage"),
                        name("torch", "FloatStorage"),
                        text("0"),
                        text("cpu"),
                        number(6),
                        tup(number(0)),
                    )
                    + b"Q"
                )
            )
        },
        "part of another",
    ),
    "version": ({"version": 1002}, "version must be 1001"),
}


@pytest.mark.parametrize("case", ["good", *BAD_PLAIN])
def test_a_bad_file_of_the_old_format_is_refused(case, tmp_path):
    changes, message = BAD_PLAIN.get(case, ({}, None))
    options = {**PLAIN, "content": dictionary_of(w=tensor()), **changes}
    plain(tmp_path / "model.pth", **options)
    if message is None:
        assert spcy.load_weights(tmp_path / "model.pth")["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    else:
        with pytest.raises(ValueError, match=rf"model\.pth: .*{message}"):
            spcy.load_weights(tmp_path / "model.pth")


def test_a_lone_array_is_refused(write):
    for content, kind in ((tensor(), "Tensor"), (b"]" + tensor() + b"a", "list")):
        with pytest.raises(ValueError, match=f"holds an object of type {kind}, expected a dict of arrays"):
            spcy.load_weights(write(content))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
def test_nested_arrays_come_back(dtype, tmp_path):
    arrays = {"a": {"w": np.arange(24).reshape(2, 3, 4).astype(dtype), "n": np.array(3, dtype)}, "epoch": 3}
    save(tmp_path / "model.pt", arrays)
    state = spcy.load_weights(tmp_path / "model.pt", key="a")
    assert list(state) == ["w", "n"]
    for key, array in state.items():
        assert (array.dtype, array.shape) == (dtype, arrays["a"][key].shape)
        np.testing.assert_array_equal(array, arrays["a"][key])


def test_only_what_is_asked_for_is_read(write, monkeypatch):
    path = write(dictionary_of(a=dictionary_of(w=tensor()), b=dictionary_of(w=tensor(of=storage(key="1")))))
    read = []
    monkeypatch.setattr(
        _checkpoint._ZipCheckpoint,
        "_read",
        lambda self, name, real=_checkpoint._ZipCheckpoint._read: read.append(name) or real(self, name),
    )
    assert list(spcy.load_weights(path, key="a")) == ["w"]  # record 1 is not even there
    assert read == ["data.pkl", "data/0"]


def test_npz_and_safetensors(tmp_path):
    arrays = {
        "conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "conv.bias": np.arange(3.0),
        "half": np.ones((2, 1), np.float16),
        "count": np.array(3),
        "flag": np.array([True, False]),
        "none": np.zeros((0, 4), np.float32),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    files = ["a.npz", "b.npz"]
    numpy = pytest.importorskip("safetensors.numpy")
    arrays["bfloat16"] = np.arange(4).astype(ml_dtypes.bfloat16)
    numpy.save_file(arrays, tmp_path / "c.safetensors")
    files.append("c.safetensors")
    for file in files:
        state = spcy.load_weights(tmp_path / file)
        assert set(state) == set(arrays) - ({"bfloat16"} if file != "c.safetensors" else set())
        for key, array in state.items():
            assert (array.dtype, array.shape) == (arrays[key].dtype, arrays[key].shape)
            np.testing.assert_array_equal(array, arrays[key])
            assert not array.flags.writeable
        assert list(spcy.load_weights(tmp_path / file, key="conv")) in (
            ["weight", "bias"],
            ["bias", "weight"],
        )


# Pickles that want more than weights: refused by the name of what they want, and nothing is run.

RAN = []  # what a pickle would have to call to be noticed


def ran(*arguments):
    RAN.append(arguments)
    return ran


class Evil:
    """Its pickle calls a function, however it is looked at."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


HERE = (__name__, "ran")
MALICIOUS = {
    "reduce": (call(name("posix", "system"), text("true")), r"posix\.system"),
    "eval": (call(name("builtins", "eval"), text("1")), r"builtins\.eval"),
    "builtin_py2": (call(name("__builtin__", "exec"), text("1")), r"__builtin__\.exec"),
    "getattr": (call(name("builtins", "getattr"), text("a"), text("b")), r"builtins\.getattr"),
    "here": (call(name(*HERE)), rf"{__name__}\.ran"),
    "stack_global": (text(HERE[0]) + text(HERE[1]) + b"\x93)R", rf"{__name__}\.ran"),
    "dotted": (text("torch._utils") + text("os.system") + b"\x93)R", r"torch\._utils\.os\.system"),
    "inst": (b"(" + text("true") + b"iposix\nsystem\n", r"posix\.system"),
    "inst_of_a_known_name": (b"(icollections\nOrderedDict\n", "operation INST"),
    "obj": (b"(" + name(*HERE) + b"o", rf"{__name__}\.ran"),
    "obj_of_a_known_name": (b"(" + name("collections", "OrderedDict") + b"o", "operation OBJ"),
    "newobj": (name("collections", "OrderedDict") + b")\x81", "operation NEWOBJ"),
    "newobj_ex": (name("collections", "OrderedDict") + b")}\x92", "operation NEWOBJ_EX"),
    "extension_1": (b"\x82\x01", "operation EXT1"),
    "extension_4": (b"\x84\x01\x00\x00\x00", "operation EXT4"),
    "in_a_persistent_id": (call(name(*HERE)) + b"Q", rf"{__name__}\.ran"),
    "persistent_text": (b"P0\n", "operation PERSID"),
    "storage_of_another_class": (storage(HERE), rf"{__name__}\.ran"),
    "in_a_tensor": (tensor(of=call(name(*HERE))), rf"{__name__}\.ran"),
    "in_the_memo": (name(*HERE) + b"q\x00h\x00)R", rf"{__name__}\.ran"),
    "in_a_part_not_asked_for": (dictionary_of(w=tensor(), other=call(name(*HERE))), rf"{__name__}\.ran"),
    "in_an_attribute": (b"}" + dictionary_of(x=call(name(*HERE))) + b"b", rf"{__name__}\.ran"),
    "popped": (name(*HERE) + b"0N", rf"{__name__}\.ran"),
    "numpy": (call(name("numpy.core.multiarray", "scalar")), r"numpy\.core\.multiarray\.scalar"),
    "a_set": (b"\x8f", "operation EMPTY_SET"),
    "bytes": (b"C\x01a", "operation SHORT_BINBYTES"),
    "module": (call(name("torch.nn.modules.linear", "Linear")), r"torch\.nn\.modules\.linear\.Linear"),
    "sparse": (call(name("torch._utils", "_rebuild_sparse_tensor")), "_rebuild_sparse_tensor"),
    "argparse": (call(name("argparse", "Namespace")), r"argparse\.Namespace"),
}


@pytest.mark.parametrize("case", MALICIOUS)
@pytest.mark.parametrize("key", [None, "w"])
def test_code_is_refused_by_name_and_not_run(case, key, write):
    content, message = MALICIOUS[case]
    RAN.clear()
    with pytest.raises(ValueError, match=rf"model\.pth: .*{message}.*it was not run"):
        spcy.load_weights(write(content), key)
    assert not RAN


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_calls_are_not_run(protocol, write):
    """The same by Python's own pickler, which writes each protocol in its own way."""
    RAN.clear()
    content = pickle.dumps({"w": [Evil(ran, 1)]}, protocol)
    pickle.loads(content)
    assert RAN  # the pickle is a working one
    RAN.clear()
    with pytest.raises(ValueError, match=r"it was not run"):
        spcy.load_weights(write(content[:-1]))
    assert not RAN


def test_attributes_of_a_dict_are_passed_over(write):
    content = dictionary_of(w=tensor()) + dictionary_of(__class__=number(1), _metadata=b"}") + b"b"
    state = spcy.load_weights(write(content))
    assert type(state) is dict
    assert list(state) == ["w"]


# Pickles and tensors that say wrong things of themselves

BAD_TENSORS = {
    "beyond": tensor((2, 4), (3, 1)),
    "offset": tensor(offset=1),
    "offset_of_nothing": tensor((), (), 6),
    "stride": tensor((2, 3), (4, 1)),
    "negative_stride": tensor((2, 3), (-3, 1), 3),
    "negative_offset": tensor(offset=-1),
    "negative_size": tensor((-2, 3)),
    "huge": tensor((2**40, 2**40), (0, 1)),
    "huge_number": tensor((2**70,), (1,)),
    "no_item": tensor(of=storage(num_items=0)),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_a_tensor_outside_its_storage_is_refused(case, write):
    with pytest.raises(
        ValueError, match=r"model\.pth: a tensor of size .* not lie in its storage of \d items"
    ):
        spcy.load_weights(write(dictionary_of(w=BAD_TENSORS[case])))


MALFORMED = {
    "empty": b"",
    "two_objects": b"NN",
    "no_stack": b"u",
    "no_mark": b"}u",
    "tuple_of_nothing": b"\x87",
    "memo": b"h\x07",
    "odd_items": b"}(Nu",
    "not_a_function": number(1) + b")R",
    "storage_as_function": call(name("torch", "FloatStorage"), number(6)),
    "dtype_as_function": call(name("torch", "float32")),
    "not_arguments": name("collections", "OrderedDict") + b"NR",
    "persistent_number": number(1) + b"Q",
    "persistent_other": tup(text("module")) + b"Q",
    "persistent_tag": tup(text("module"), *[number(0)] * 4) + b"Q",
    "storage_key": tup(text("storage"), name("torch", "FloatStorage"), number(0), text(""), number(6)) + b"Q",
    "storage_items": storage(num_items=-1),
    "storage_float": storage(num_items=6.0),
    "tensor_of_a_number": tensor(of=number(3)),
    "tensor_size": tensor((True, 3)),
    "tensor_float": tensor((2.0, 3)),
    "tensor_strides": tensor((2, 3), (1,)),
    "tensor_axes": tensor((1,) * 40, (1,) * 40),
    "tensor_arguments": call(name("torch._utils", "_rebuild_tensor_v2"), storage()),
    "parameter_of_a_number": call(name("torch._utils", "_rebuild_parameter"), number(1)),
    "size_of_a_number": call(name("torch", "Size"), number(1)),
    "ordered_dict_of_items": call(name("collections", "OrderedDict"), b"]"),
    "two_storages_of_one_key": tup(storage(), storage(("torch", "IntStorage"))),
    "dtype_of_another_storage": call(
        name("torch._utils", "_rebuild_tensor_v3"),
        *(storage(), number(0), tup(number(2)), tup(number(1)), b"\x89", b"N", name("torch", "int32")),
    ),
    "unknown_operation": b"\xff",
    "text_beyond_the_end": b"X\xff\xff\xff\x7fab",
    "long_beyond_the_end": b"\x8b\xff\xff\xff\x7fab",
    "text_of_other_bytes": b"X\x02\x00\x00\x00\xff\xff",
    "build_on_a_list": b"]}b",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_pickle_is_refused(case, write):
    with pytest.raises(ValueError, match=r"model\.pth: malformed pickle"):
        spcy.load_weights(write(MALFORMED[case]))


def test_dicts_that_hold_themselves_are_refused(write):
    content = b"}q\x00(" + text("a") + b"h\x00" + text("w") + tensor() + b"u"
    with pytest.raises(ValueError, match="more than 32 deep"):
        spcy.load_weights(write(content))


def test_dicts_that_double_are_refused(write, monkeypatch):
    """Thirty dicts that each hold the one before twice: a billion entries."""
    monkeypatch.setattr(weights, "_MAX_ENTRIES", 1000)
    levels = {"level": tensor() + b"q\x00"}
    for place in range(30):
        below = b"h" + bytes([place])
        levels[f"level{place}"] = dictionary_of(a=below, b=below) + b"q" + bytes([place + 1])
    with pytest.raises(ValueError, match="more than 1000 entries"):
        spcy.load_weights(write(dictionary(levels)))


def test_long_names_of_nested_dicts_are_refused(write):
    content = dictionary({"x" * 600: dictionary({"x" * 600: tensor()})})
    with pytest.raises(ValueError, match="has more than 1024 characters"):
        spcy.load_weights(write(content))


def test_long_numbers_are_refused_at_once(write):
    long = b"\x8b" + struct.pack("<i", 1 << 18) + b"\x7f" * (1 << 18)
    sizes = tup(long, long)
    function = name("torch._utils", "_rebuild_tensor")
    with pytest.raises(ValueError, match="more than 128 bits"):
        spcy.load_weights(write(call(function, storage(), number(0), sizes, sizes)))
    kind = name("torch", "FloatStorage")
    with pytest.raises(ValueError, match="a storage of fewer items than none, or more than any"):
        spcy.load_weights(write(tup(text("storage"), kind, text("0"), text("cpu"), long) + b"Q"))


def test_keys_that_hash_or_compare_slowly_are_refused(write):
    alike = number(2**61 - 1)
    for content, message in (
        (b"}(" + alike + b"Nu", "a number of 61 bits where 32 are the most"),
        (b"}p%d\n" % (2**61 - 1), "a number of 61 bits where 32 are the most"),
        (dictionary({"x" * 1025: b"N"}), r"xxx'\.\. has more than 1024 characters"),
        (tensor(of=storage(key="x" * 1025)), r"xxx'\.\. has more than 1024 characters"),
        (b"}(" + tup(number(1)) + b"Nu", "a dict with a key of type tuple"),
    ):
        with pytest.raises(ValueError, match=message) as e:
            spcy.load_weights(write(content))
        assert len(str(e.value)) < 400


def test_calls_with_more_arguments_than_there_are_end_at_the_first(write):
    function = name("torch._utils", "_rebuild_parameter")
    with pytest.raises(ValueError, match="positional arguments"):
        spcy.load_weights(write(call(function, tensor(), *[b"N"] * 1000)))


def test_values_that_pytorch_negates_are_refused(write):
    function = name("torch._utils", "_rebuild_tensor_v2")
    arguments = storage(), number(0), tup(number(2)), tup(number(1)), b"\x89", b"N"
    path = write(dictionary_of(w=call(function, *arguments, dictionary_of(neg=b"\x88"))))
    with pytest.raises(ValueError, match=r"a tensor with the metadata \['neg'\].*resolve_neg"):
        spcy.load_weights(path)
    path = write(dictionary_of(w=call(function, *arguments, dictionary_of(neg=b"\x89"))))
    assert spcy.load_weights(path)["w"].tolist() == [0, 1]


def test_buffers_and_tensors_with_attributes(write):
    rebuild, function = (
        name("torch._tensor", "_rebuild_from_type_v2"),
        name("torch._utils", "_rebuild_tensor_v2"),
    )
    arguments = tup(storage(), number(0), tup(number(2)), tup(number(1)), b"\x89", b"N")
    types = name("torch", "Tensor"), name("torch.nn.parameter", "Buffer")
    for kind in types:
        path = write(dictionary_of(w=call(rebuild, function, kind, arguments, b"}")))
        assert spcy.load_weights(path)["w"].tolist() == [0, 1]
    for parts in ((types[0], types[0]), (function, function), (rebuild, types[0])):
        with pytest.raises(ValueError, match="a tensor of the type"):
            spcy.load_weights(write(dictionary_of(w=call(rebuild, *parts, arguments, b"}"))))


def test_keys_that_are_no_strings(write):
    path = write(dictionary_of(w=b"}(" + number(0) + tensor() + b"\x88" + tensor() + b"N" + tensor() + b"u"))
    assert list(spcy.load_weights(path)) == ["w.0", "w.True", "w.None"]


# Archives that say wrong things of themselves


def test_records_that_do_not_hold_what_the_pickle_says(write):
    content = dictionary_of(w=tensor())
    for data, message in ((b"1234", "6 float32, got 4 bytes"), (b"1" * 28, "6 float32, got 28 bytes")):
        with pytest.raises(ValueError, match=rf"record data/0 must hold {message}"):
            spcy.load_weights(write(content, {"data/0": data}))
    with pytest.raises(ValueError, match="record data/0 is missing"):
        spcy.load_weights(write(content, {}))
    for key in ("../0", "/etc/passwd", "0/../0"):
        with pytest.raises(ValueError, match=rf"record data/{key} is missing"):
            spcy.load_weights(write(dictionary_of(w=tensor(of=storage(key=key)))))


def test_repeated_items_are_bounded_by_the_file(write):
    path = write(dictionary_of(w=tensor((100, 3), (0, 1))))
    assert spcy.load_weights(path)["w"].tolist() == [[0, 1, 2]] * 100
    path = write(dictionary_of(w=tensor((10**8, 3), (0, 1))))
    with pytest.raises(ValueError, match=r"size \(100000000, 3\) is larger than the file"):
        spcy.load_weights(path)


GOOD = dictionary_of(w=tensor())
ARCHIVES = {
    "compressed": ({"content": GOOD, "compression": zipfile.ZIP_DEFLATED}, "compressed"),
    "no_pickle": ({"content": None}, "no data.pkl"),
    "deep": ({"content": GOOD, "root": "a/b"}, "no data.pkl"),
    "two_pickles": ({"content": GOOD, "records": {"x/data.pkl": b"", **RECORDS}}, "or several"),
    "torchscript": ({"content": GOOD, "records": {"constants.pkl": b""}}, "TorchScript"),
    "byteorder": ({"content": GOOD, "records": {"byteorder": b"middle"}}, "byteorder .*'middle'"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_of_other_kinds(case, write):
    arguments, message = ARCHIVES[case]
    with pytest.raises(ValueError, match=rf"model\.pth: .*{message}"):
        spcy.load_weights(write(**arguments))


def test_files_of_other_kinds(tmp_path):
    path = tmp_path / "model.pth"
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("tensors"))
    cases = {
        tar.getvalue(): "tar archive",
        b"": "not a checkpoint",
        pickle.dumps({"w": 1}): "not a checkpoint",
        b"PK\3\4" + bytes(100): "damaged file .*not a zip file",
        (DATA / "torch_dtypes.pth").read_bytes()[:-30]: "damaged file .*not a zip file",
    }
    for content, message in cases.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"model\.pth: .*({message})"):
            spcy.load_weights(path)


def test_a_flipped_byte_is_seen(tmp_path):
    content = bytearray((DATA / "torch_dtypes.pth").read_bytes())
    with zipfile.ZipFile(DATA / "torch_dtypes.pth") as archive:
        record = next(r for r in archive.infolist() if r.filename.endswith("/data/0"))
    lengths = struct.unpack_from("<HH", content, record.header_offset + 26)
    content[record.header_offset + 30 + sum(lengths)] ^= 1
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.pth: damaged file .*CRC-32"):
        spcy.load_weights(tmp_path / "model.pth")


def test_records_that_overlap_or_say_to_be_larger_than_the_file_are_refused(write):
    """Their lengths in the central directory are changed to a gigabyte."""
    path = write(GOOD)
    content = path.read_bytes()
    start = content.index(b"PK\1\2")
    sizes = struct.pack("<II", 24, 24)
    assert content.count(sizes, start) == 1
    path.write_bytes(content[:start] + content[start:].replace(sizes, struct.pack("<II", 1 << 30, 1 << 30)))
    with pytest.raises(ValueError, match="more bytes than the file"):
        spcy.load_weights(path)


def test_records_of_one_name_are_refused(tmp_path):
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + GOOD + b".")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", b"\x80\x02N.")
    with pytest.raises(ValueError, match="have the name of another"):
        spcy.load_weights(path)


def test_a_large_pickle_is_refused(write, monkeypatch):
    monkeypatch.setattr(_checkpoint, "MAX_PICKLE", 100)
    with pytest.raises(ValueError, match=r"data\.pkl has more than 100 bytes"):
        spcy.load_weights(write(dictionary_of(w=tensor())))


# npz and safetensors that say wrong things of themselves


def npz(path, records, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for record, data in records.items():
            archive.writestr(record, data)
    return path


def npy(array, shape=None):
    file = io.BytesIO()
    np.save(file, array)
    data = file.getvalue()
    if shape is not None:
        now, then = f"{array.shape},".encode(), f"{shape},".encode()
        assert len(then) > len(now)
        data = data.replace(now + b" }" + b" " * (len(then) - len(now)), then + b" }")
    return data


NPZ = {
    "not_a_zip": (lambda path: path.write_bytes(b"abc"), "damaged file .*not a zip"),
    "not_npy": (lambda path: npz(path, {"a.npy": b"abc"}), "magic"),
    "huge": (
        lambda path: npz(path, {"a.npy": npy(np.ones(3), (10**12,))}),
        r"a\.npy must have 8000000000128 bytes",
    ),
    "objects": (
        lambda path: np.savez(path, a=np.array([Evil(ran, 1)], object)),
        r"a\.npy must be .* numbers",
    ),
    "records": (lambda path: np.savez(path, a=np.zeros(2, "i4,f4")), r"a\.npy must be .* numbers"),
    "no_size": (
        lambda path: npz(path, {"a.npy": npy(np.zeros((3,), "U1")).replace(b"<U1", b"<U0")[:128]}),
        "dtype <U0",
    ),
    "bomb": (
        lambda path: npz(path, {"a.npy": npy(np.zeros(1 << 24))}, zipfile.ZIP_DEFLATED),
        "are said to unpack to 134217856",
    ),
    "packed": (
        lambda path: npz(path, {"a.npy": npy(np.ones(1))}, zipfile.ZIP_LZMA),
        r"a\.npy is packed in a way that NumPy never does",
    ),
    "twins": (lambda path: npz(path, {"a": npy(np.ones(1)), "a.npy": npy(np.ones(1))}), "'a' occurs twice"),
}


@pytest.mark.parametrize("case", NPZ)
def test_a_bad_npz_is_refused(case, tmp_path):
    make, message = NPZ[case]
    RAN.clear()
    make(tmp_path / "model.npz")
    with pytest.raises(ValueError, match=rf"model\.npz: .*{message}"):
        spcy.load_weights(tmp_path / "model.npz")
    assert not RAN


def test_a_bad_safetensors_is_refused(tmp_path):
    pytest.importorskip("safetensors")
    header = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    for content in (b"", b"abc", b"\xff" * 64, struct.pack("<Q", len(header)) + header + bytes(8)):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors: damaged file"):
            spcy.load_weights(tmp_path / "model.safetensors")


def test_threads_that_write_one_file_leave_a_whole_one(tmp_path):
    path = tmp_path / f"{'n' * 240}.npz"
    arrays = [{"a": np.full(100_000, value)} for value in range(4)]
    with ThreadPoolExecutor() as pool:
        for _ in range(4):
            list(pool.map(write_npz, [path] * 4, arrays))
            assert len(set(spcy.load_weights(path)["a"])) == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for load in (spcy.load_weights, spcy.models.load):
        with pytest.raises(ValueError, match=r"pipe\.npz: is a pipe or a device, expected a file"):
            load(tmp_path / "pipe.npz")


def test_paths_and_packages(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"model\.npz: no such file"):
        spcy.load_weights(tmp_path / "model.npz")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        spcy.load_weights(tmp_path / "folder.pth")
    with pytest.raises(
        ValueError, match=r"unknown kind of weights '\.onnx', expected \.safetensors, \.npz, \.pth"
    ):
        spcy.load_weights(tmp_path / "model.onnx")
    for key in ("", 3):
        with pytest.raises(TypeError, match=r"^key "):
            spcy.load_weights(DATA / "torch_dtypes.pth", key=key)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ImportError, match=r'safetensors: pip install "spcy\[weights\]"'):
        spcy.load_weights(tmp_path / "model.safetensors")
    with pytest.raises(ImportError, match=r'torch_dtypes\.pth: bfloat16 .*pip install "spcy\[weights\]"'):
        spcy.load_weights(DATA / "torch_dtypes.pth")
    assert list(spcy.load_weights(DATA / "torch_checkpoint.pth", key="model_state")) == list(NET)


@pytest.mark.parametrize(
    ("file", "key"), [("torch_checkpoint.pth", "model_state"), ("torch_legacy.pth", "model")]
)
def test_spoiled_files_are_read_or_refused(file, key, tmp_path, rng):
    good = (DATA / file).read_bytes()
    results = []
    for _ in range(300):
        content = np.frombuffer(good, np.uint8).copy()
        content[rng.integers(0, len(content), 3)] = rng.integers(0, 256, 3)
        (tmp_path / "model.pth").write_bytes(content)
        try:
            results.append(len(spcy.load_weights(tmp_path / "model.pth", key=key)))
        except ValueError as error:
            results.append(str(error).startswith(f"{tmp_path}/model.pth: "))
    assert False not in results
    assert 30 < results.count(True) < 300
