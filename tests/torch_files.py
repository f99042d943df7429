"""Files as torch.save writes them, operation by operation of their pickle: also such as it never would."""

import pickle
import struct
import zipfile

import numpy as np

STORAGES = {
    "float16": "HalfStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
}


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    return pickle.dumps(value, 2)[2:-1]


def tup(*items):
    return b"(" + b"".join(items) + b"t"


def name(module, attribute):
    return b"c" + f"{module}\n{attribute}\n".encode()


def call(function, *arguments):
    return function + tup(*arguments) + b"R"


def storage(kind=("torch", "FloatStorage"), key="0", num_items=6):
    return tup(text("storage"), name(*kind), text(key), text("cpu"), number(num_items)) + b"Q"


def tensor(size=(2, 3), stride=(3, 1), offset=0, of=None):
    numbers = [tup(*map(number, value)) for value in (size, stride)]
    function = name("torch._utils", "_rebuild_tensor_v2")
    hooks = call(name("collections", "OrderedDict"))
    return call(function, storage() if of is None else of, number(offset), *numbers, b"\x89", hooks)


def dictionary(items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def archive(path, content, records, root="archive", compression=zipfile.ZIP_STORED):
    """Write a checkpoint of a pickle's operations and records."""
    with zipfile.ZipFile(path, "w", compression) as file:
        if content is not None:
            file.writestr(f"{root}/data.pkl", b"\x80\x02" + content + b".")
        for record, data in records.items():
            file.writestr(f"{root}/{record}", data)


def plain(path, content, keys, storages, version=1001):
    """Write a checkpoint of the format before PyTorch 1.6: five pickles, and the storages behind them."""
    pickles = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(version, 2)]
    pickles += [pickle.dumps({"little_endian": True}, 2), b"\x80\x02" + content + b".", pickle.dumps(keys, 2)]
    path.write_bytes(b"".join(pickles) + storages)


def save(path, content):
    """Write dicts in dicts of arrays and numbers."""
    records = {"version": b"3\n", "byteorder": b"little"}

    def written(value):
        if isinstance(value, dict):
            return dictionary({key: written(inner) for key, inner in value.items()})
        if not isinstance(value, np.ndarray):
            return number(value)
        key = str(len(records))
        records[f"data/{key}"] = value.astype(value.dtype.newbyteorder("<")).tobytes()
        strides = [step // value.itemsize for step in value.copy().strides]
        kind = "torch", STORAGES[value.dtype.name]
        return tensor(value.shape, strides, of=storage(kind, key, value.size))

    archive(path, written(content), records)
