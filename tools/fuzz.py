#!/usr/bin/env python3
"""Spoil small files of every kind that spcy reads, and look how its readers end.

    python tools/fuzz.py [--seconds N] [--seed S] [--target NAME ..] [--jobs J] [--keep FOLDER]

A reader may give a result, or raise ValueError or OSError with a message that names the file. Anything else
is a fault: another exception, a crash, a hang, and more than 2 GB of memory for files of some kilobytes. Each
target runs in a process of its own, which tells each case before it reads it. The first input of every kind
of fault is kept; the exit status is then 1. A seed gives the same cases; how many depends on the machine.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import random
import re
import shutil
import struct
import sys
import tempfile
import threading
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
ROOM = 2 << 30  # bytes of memory for a case
PATIENCE = 20  # seconds for a case
MOST_KINDS = 20  # of faults in a target, which is then given up

Seeds = dict[str, bytes]  # name of a file to its content


# Good files, small


def _points(num: int = 60) -> np.ndarray:
    """Return x, y, z and two more columns."""
    rng = np.random.default_rng(0)
    return np.column_stack([rng.uniform(-20, 20, (num, 3)), rng.integers(0, 32, (num, 2))]).astype("<f4")


def _bytes_of(write: Callable[[Any], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def _file_of(suffix: str, write: Callable[[Path], object]) -> bytes:
    """Return what a library writes that must have a path."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"seed{suffix}"
        write(path)
        return path.read_bytes()


def _bin() -> Seeds:
    return {"a.bin": _points().tobytes(), "b.bin": _points(400)[:, :4].tobytes()}


def _npy() -> Seeds:
    arrays = [_points(), _points().astype(">f8"), np.asfortranarray(_points().astype("f2"))]
    return {f"{i}.npy": _bytes_of(lambda file, a=a: np.save(file, a)) for i, a in enumerate(arrays)}


def _npz() -> Seeds:
    def write(save: Callable[..., None], **arrays: np.ndarray) -> bytes:
        return _bytes_of(lambda file: save(file, **arrays))

    labels = np.array(["a", "b"])
    return {
        "one.npz": write(np.savez, cloud=_points()),
        "two.npz": write(np.savez, points=_points(), labels=labels),
        "small.npz": write(np.savez_compressed, points=_points(), labels=labels),
    }


def _ply() -> Seeds:
    names = ("x", "y", "z", "red", "alpha")
    header = "".join(f"property float {name}\n" for name in names)

    def ply(encoding: str, body: bytes, after: str = "") -> bytes:
        head = f"ply\nformat {encoding} 1.0\ncomment c\nelement vertex 60\n{header}{after}end_header\n"
        return head.encode() + body

    faces = "element face 2\nproperty list uchar int vertex_indices\n"
    face = b"".join(struct.pack("<B3i", 3, *corners) for corners in ((0, 1, 2), (3, 4, 5)))
    text = _text(" ").encode()
    return {
        "ascii.ply": ply("ascii", text),
        "faces.ply": ply("ascii", text + b"3 0 1 2\n3 3 4 5\n", faces),
        "little.ply": ply("binary_little_endian", _points().tobytes() + face, faces),
        "big.ply": ply("binary_big_endian", _points().astype(">f4").tobytes()),
    }


def _pcd() -> Seeds:
    from pypcd4 import Encoding, PointCloud

    cloud = PointCloud.from_points(_points(), ("x", "y", "z", "intensity", "ring"), (np.float32,) * 5)
    return {
        f"{encoding.value}.pcd": _file_of(".pcd", lambda path, e=encoding: cloud.save(path, encoding=e))
        for encoding in (Encoding.ASCII, Encoding.BINARY, Encoding.BINARY_COMPRESSED)
    }


def _text(mark: str, heading: str = "") -> str:
    return heading + "".join(mark.join(f"{value:g}" for value in row) + "\n" for row in _points())


def _csv() -> Seeds:
    return {
        "a.csv": _text(",", "x,y,z,i,ring\n").encode(),
        "b.csv": ('\ufeff"name";"x";"y";"z"\r\n' + "car;1;2;3\r\n" * 9).encode(),
        "a.txt": _text(" ", "//X Y Z R I\n60\n").encode(),
        "a.xyz": _text("\t").encode(),
    }


def _las(suffix: str) -> Seeds:
    import laspy

    def write(path: Path, version: str, point_format: int) -> None:
        header = laspy.LasHeader(version=version, point_format=point_format)
        header.scales, header.offsets = (0.01,) * 3, (0.0,) * 3
        header.vlrs.append(laspy.VLR("spcy", 7, "a record", b"12345"))
        cloud = laspy.LasData(header)
        cloud.x, cloud.y, cloud.z, cloud.intensity = _points()[:, :4].T
        cloud.write(str(path))

    kinds = (("1.2", 1), ("1.2", 3), ("1.4", 6))
    return {f"{v}{suffix}": _file_of(suffix, lambda p, v=v, f=f: write(p, v, f)) for v, f in kinds}


def _parquet() -> Seeds:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(dict(zip(("x", "y", "z", "i", "ring"), _points().T, strict=True)))
    table = table.append_column("name", pyarrow.array(["car", None] * 30))

    def write(**options: Any) -> bytes:
        return _bytes_of(lambda file: parquet.write_table(table, file, **options))

    return {
        "plain.parquet": write(compression="none", use_dictionary=False),
        "snappy.parquet": write(compression="snappy", row_group_size=25),
        "zstd.parquet": write(compression="zstd", data_page_version="2.0", write_page_index=True),
    }


def _e57() -> Seeds:
    import pye57

    def write(path: Path) -> None:
        file = pye57.E57(str(path), mode="w")
        columns = {f"cartesian{axis}": _points()[:, i].astype(np.float64) for i, axis in enumerate("XYZ")}
        for _ in range(2):
            file.write_scan_raw(columns | {"intensity": _points()[:, 3]})
        file.close()

    return {"a.e57": _file_of(".e57", write)}


def _weights() -> dict[str, np.ndarray]:
    return {"conv.weight": _points(27).reshape(3, 3, 3, 5), "conv.bias": np.zeros(5), "n": np.array(3)}


def _safetensors() -> Seeds:
    from safetensors.numpy import save

    return {"a.safetensors": save(_weights(), {"made": "by a test"})}


def _weights_npz() -> Seeds:
    return {
        f"{s.__name__}.npz": _bytes_of(lambda file, s=s: s(file, **_weights()))
        for s in (np.savez, np.savez_compressed)
    }


def _checkpoints() -> Seeds:
    folder = ROOT / "tests" / "data"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.pth"))}


def _models() -> Seeds:
    from spcy import models

    nets = (
        (models.SparseConvNetUNet(4, 3, [2, 3], rng=0), None),
        (models.VoxelBackBone8x(4, rng=0), ((0, -40, -3), (70.4, 40, 1))),
    )
    out = {}
    for net, bounds in nets[:1]:
        settings = models.ScanSettings((0.1, 0.1, 0.2), bounds, (0, 1, 2, 3), 5)
        out[f"{type(net).__name__}.npz"] = _file_of(".npz", lambda p, n=net, s=settings: models.save(p, n, s))
    return out


# How files are spoiled

_NUMBERS = (0, 1, -1, 2, 3, 127, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1)
_WORDS = (
    b"",
    b"-1",
    b"0",
    b"1e999",
    b"nan",
    b"-",
    b"99999999999",
    b"9" * 400,
    b"1" * 19,
    b"\xff\xfe",
    b"\0",
    b"{}",
    b"[]",
)


def _place(rng: random.Random, size: int) -> int:
    """Return a place in a file, often near an end, where headers are."""
    near, size = rng.random(), max(1, size)
    if near < 0.35:
        return rng.randrange(min(size, 400))
    if near < 0.5:
        return size - 1 - rng.randrange(min(size, 400))
    return rng.randrange(size)


def _flip(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[_place(rng, len(data))] ^= 1 << rng.randrange(8)


def _fill(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    start, count = _place(rng, len(data)), rng.choice((1, 2, 4, 8, 64))
    run = rng.randbytes(count) if rng.random() < 0.5 else bytes([rng.choice((0, 255, 48, 128))]) * count
    data[start : start + count] = run[: len(data) - start]


def _cut(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    del data[_place(rng, len(data)) :]


def _shift(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    """Take bytes out, or put some twice."""
    start = _place(rng, len(data))
    part = data[start : start + rng.choice((1, 4, 20, 300))]
    if rng.random() < 0.5:
        del data[start : start + len(part)]
    else:
        data[start:start] = part


def _splice(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    other = rng.choice(others)
    data[_place(rng, len(data)) :] = other[_place(rng, len(other)) :]


def _number(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    """Write a number that is at the edge of something."""
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "little", "big"))
    start = _place(rng, len(data)) // size * size
    number = rng.choice(_NUMBERS) % (1 << 8 * size)
    data[start : start + size] = number.to_bytes(size, order)[: len(data) - start]


def _word(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    """Write another word for one of a text or a textual header."""
    found = [*re.finditer(rb"[0-9]+" if rng.random() < 0.6 else rb"[A-Za-z_]{2,}", data[:4000])]
    if found:
        word = rng.choice(found)
        instead = rng.choice(
            (*_WORDS, *(other[0] for other in found[:40]), str(rng.choice(_NUMBERS)).encode())
        )
        data[slice(*word.span())] = instead


def _line(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    """Move, drop or repeat a line."""
    lines = bytes(data[:4000]).split(b"\n")
    i, line = rng.randrange(len(lines)), rng.choice(lines)
    lines[i : i + rng.choice((0, 1, 1, 3))] = [line] * rng.choice((0, 1, 2))
    data[:4000] = b"\n".join(lines)


_SPOIL = (_flip, _fill, _cut, _shift, _splice, _number, _word, _line)


def _spoiled(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if data:
            rng.choice(_SPOIL)(rng, data, others)
    return bytes(data)


def _spoiled_zip(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Spoil an archive: its bytes, or its members within good ones."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(record.filename, archive.read(record)) for record in archive.infolist()]
    except zipfile.BadZipFile:
        return _spoiled(rng, content, others)
    if rng.random() < 0.4 or not members:
        return _spoiled(rng, content, others)
    for _ in range(rng.choice((1, 1, 2))):
        i = rng.randrange(len(members))
        name, data = members[i]
        action = rng.randrange(8)
        if action < 4:
            members[i] = name, _spoiled(rng, data, [data for _, data in members])
        elif action == 4:
            members[i] = (
                bytes(_spoiled(rng, name.encode(), [b"points.npy"])).decode(errors="replace")[:300] or "n",
                data,
            )
        elif action == 5:
            members.insert(rng.randrange(len(members)), (name, data))
        elif action == 6:
            members.append(
                (rng.choice(("a.txt", "points", "x.npy", "d/", "../a.npy")), rng.randbytes(rng.randrange(40)))
            )
        elif len(members) > 1:
            del members[i]
    stored = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that occur twice
        with zipfile.ZipFile(file, "w", stored) as archive:
            for name, data in members:
                archive.writestr(zipfile.ZipInfo(name.replace("\0", "?")), data, stored)
    out = bytearray(file.getvalue())
    if rng.random() < 0.2:  # lie about sizes and places
        records = [match.start() for match in re.finditer(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06", out)]
        start = rng.choice(records) + rng.randrange(4, 44)
        out[start : start + 4] = (rng.choice(_NUMBERS) % (1 << 32)).to_bytes(4, "little")
    return bytes(out)


def _spoiled_e57(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Spoil pages and, mostly, write checksums that fit."""
    page = 1024
    pages = [bytearray(content[i : i + page]) for i in range(0, len(content), page)]
    body = b"".join(p[:-4] for p in pages)
    xml = body.find(b"<?xml")
    if rng.random() < 0.5 and xml > 0:  # the part in which everything is described
        body = body[:xml] + _spoiled(rng, body[xml:], [body])
    else:
        body = _spoiled(rng, body, [body])
    if rng.random() < 0.1:
        return _spoiled(rng, content, others)
    out = b""
    for i in range(0, len(body), page - 4):
        part = body[i : i + page - 4].ljust(page - 4, b"\0")
        out += part + _crc32c(part).to_bytes(4, "big")
    return out


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _crc_table()


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


# What is read


def _read_scan(path: Path) -> None:
    from spcy.scan import read_scan

    read_scan(path)


def _load_weights(path: Path, key: str | None = None) -> None:
    import spcy

    for array in spcy.load_weights(path, key).values():
        array.tobytes()


def _load_checkpoint(path: Path) -> None:
    """Read what these files have: arrays, or a part under a key."""
    for key in (None, "model_state", "model"):
        try:
            _load_weights(path, key)
            return
        except ValueError:
            if key == "model":
                raise


def _load_model(path: Path) -> None:
    from spcy import models

    models.load(path)


@dataclass(frozen=True)
class Target:
    """A reader, good files for it, and how they are spoiled."""

    seeds: Callable[[], Seeds]
    read: Callable[[Path], None] = _read_scan
    spoil: Callable[[random.Random, bytes, list[bytes]], bytes] = _spoiled


TARGETS: dict[str, Target] = {
    "safetensors": Target(_safetensors, _load_weights),
    "weights-npz": Target(_weights_npz, _load_weights, _spoiled_zip),
    "checkpoint": Target(_checkpoints, _load_checkpoint, _spoiled_zip),
    "model": Target(_models, _load_model, _spoiled_zip),
    "bin": Target(_bin),
    "npy": Target(_npy),
    "npz": Target(_npz, spoil=_spoiled_zip),
    "ply": Target(_ply),
    "pcd": Target(_pcd),
    "text": Target(_csv),
    "las": Target(lambda: _las(".las")),
    "laz": Target(lambda: _las(".laz")),
    "parquet": Target(_parquet),
    "e57": Target(_e57, spoil=_spoiled_e57),
}


# The process of a target


def cases(name: str, seeds: Seeds, seed: int, first: int) -> Iterator[tuple[int, str, bytes]]:
    """Yield the number, the suffix and the content of each case."""
    target, contents, number = TARGETS[name], [*seeds.values()], first
    while True:
        rng = random.Random(f"{seed}/{name}/{number}")
        file = rng.choice([*seeds])
        yield number, Path(file).suffix, target.spoil(rng, seeds[file], contents)
        number += 1


def _fault(path: Path, read: Callable[[Path], None]) -> str | None:
    """Read a file; return "" for a result, None for a good refusal, else what is wrong with it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} in {Path(where.filename).name}, {where.name}"
        chain: list[BaseException] = []
        inner: BaseException | None = error
        while inner is not None:
            if isinstance(inner, MemoryError):
                return f"more than 2 GB of memory wanted ({place})"
            if inner in chain:
                return f"an error that is its own cause ({place})"
            chain.append(inner)
            inner = inner.__cause__ or inner.__context__
        if not isinstance(error, ValueError | OSError):
            return f"{place}: {str(error)[:100]}"
        if str(path) not in str(error):
            return f"a message without the file's name ({place}): {str(error)[:100]}"
        return None
    return ""


def _child(name: str, seed: int, first: int, seconds: float, folder: Path, pipe: Any) -> None:
    """Read cases until the time is over. Tell the number of each before it is read, and how it ended."""
    os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    target = TARGETS[name]
    try:
        seeds = target.seeds()
        for file, content in seeds.items():
            (folder / file).write_bytes(content)
            target.read(folder / file)
    except ImportError as error:
        pipe.send(("skipped", str(error)))
        return
    _limit_memory()
    pipe.send(("ready", len(seeds)))
    end = time.monotonic() + seconds
    for number, suffix, content in cases(name, seeds, seed, first):
        if time.monotonic() > end:
            break
        path = folder / f"case{suffix}"
        path.write_bytes(content)
        pipe.send(("case", number, path))
        fault = _fault(path, target.read)
        pipe.send(("end", fault, path.rename(folder / f"fault{number}{suffix}") if fault else path))
    pipe.send(("done",))


def _limit_memory() -> None:
    """Allow so much more memory than the process has now."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):  # only Linux tells
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, most))


@dataclass
class Report:
    """What a target gave."""

    name: str
    runs: int = 0
    refusals: int = 0
    faults: int = 0
    kinds: dict[str, Path] = field(default_factory=dict)  # what was wrong, to the first input
    skipped: str | None = None

    def fault(self, reason: str, path: Path, number: int, keep: Path) -> None:
        """Count a fault; keep the input if it is the first of its kind."""
        self.faults += 1
        if reason not in self.kinds:
            keep.mkdir(parents=True, exist_ok=True)
            self.kinds[reason] = keep / f"{self.name}-{number}{path.suffix}"
            shutil.copyfile(path, self.kinds[reason])


_FORKING = threading.Lock()  # no other process must get the end of a pipe that tells us that this one ended


def run_target(name: str, seconds: float, seed: int, keep: Path) -> Report:
    """Run a target's process, and another one behind each that crashes or hangs."""
    report, first = Report(name), 0
    context = multiprocessing.get_context("fork")
    end = None
    while len(report.kinds) < MOST_KINDS:
        with tempfile.TemporaryDirectory() as folder:
            left = seconds if end is None else end - time.monotonic()
            if left <= 0:
                break
            with _FORKING:
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(name, seed, first, left, Path(folder), theirs))
                process.start()
                theirs.close()
            case = None
            try:
                while True:
                    if not ours.poll(PATIENCE + (60 if end is None else 0)):
                        raise TimeoutError
                    what, *rest = ours.recv()
                    if what == "skipped":
                        report.skipped = rest[0]
                        return report
                    if what == "done":
                        return report
                    if what == "ready":
                        end = end or time.monotonic() + seconds
                    elif what == "case":
                        case = rest
                    else:
                        report.runs += 1
                        report.refusals += rest[0] is None
                        if rest[0]:
                            report.fault(*rest, case[0], keep)
                        case = None
            except (EOFError, TimeoutError) as error:
                hang = isinstance(error, TimeoutError)
                if hang:
                    process.kill()
                process.join()
                said = (Path(folder) / "stderr").read_text(errors="replace").strip().splitlines()
                said = f": {said[-1][:150]}" if said else ""
                if case is None:
                    raise RuntimeError(f"{name}: the process ended between cases{said}") from error
                reason = (
                    f"a hang of {PATIENCE} s" if hang else f"a crash, exit status {process.exitcode}{said}"
                )
                report.runs += 1
                report.fault(reason, case[1], case[0], keep)
                first = case[0] + 1
            finally:
                process.kill()
                process.join()
    return report


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="of each target, default 60")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--target", nargs="+", choices=TARGETS, default=[*TARGETS], metavar="NAME", help=", ".join(TARGETS)
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="targets at a time, default one a core"
    )
    parser.add_argument(
        "--keep", type=Path, default=ROOT / "build" / "fuzz", help="where inputs of faults go"
    )
    args = parser.parse_args(argv)
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    with ThreadPoolExecutor(args.jobs) as pool:
        reports = [*pool.map(lambda name: run_target(name, args.seconds, args.seed, args.keep), args.target)]
    print(f"{'target':<12} {'runs':>8} {'refusals':>8} {'faults':>8}")
    for report in reports:
        skipped = f"  skipped: {report.skipped}" if report.skipped else ""
        print(f"{report.name:<12} {report.runs:>8} {report.refusals:>8} {report.faults:>8}{skipped}")
    for report in reports:
        for reason, path in report.kinds.items():
            print(f"{report.name}: {reason}\n    {path}")
    return 1 if any(report.faults for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
