"""What is checked of surveyors' files before laspy reads them.

It and its decompressor allocate what a header says, some of it in a library that ends the process if there is
not so much memory. So the numbers in the header are compared with the file's size first.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_LASZIP = b"laszip encoded", 22204  # who wrote a record, and what is in it
_MOST_POINTS = 1 << 24  # of chunks, in small files too; 50,000 are usual
_LAYERED = 3  # the compressor of point formats 6 and up: the numbers of a chunk lie field by field
_LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}  # by the kind of a part; else one for each byte


def check_las(path: Path) -> None:
    """Raise ValueError unless a file has room for what it says that it holds."""
    with path.open("rb") as file:
        _check(file, path.stat().st_size)


def _check(file: BinaryIO, size: int) -> None:
    head = file.read(375)
    if head[:4] != b"LASF":
        raise ValueError("not a LAS file")
    header, start, num_records, kind, row, points = struct.unpack_from("<HIIBHI", head, 94)
    long_records, num_long = 0, 0
    if head[25] >= 4:  # the minor version
        long_records, num_long, points = struct.unpack_from("<QIQ", head, 235)
    if start > size:
        raise ValueError(f"points from byte {start} on, of {size}")
    laszip = b""
    file.seek(header)
    for _ in range(num_records):
        user, number, length = struct.unpack("<2x16sHH32x", _exactly(file, 54))
        content = _exactly(file, length)
        if (user.split(b"\0")[0], number) == _LASZIP:
            laszip = content
    if num_long:
        file.seek(min(long_records, size))
    for _ in range(num_long):
        (length,) = struct.unpack("<20xQ32x", _exactly(file, 60))
        if length > size - file.tell():
            raise ValueError(f"a record of {length} bytes in a file of {size}")
        file.seek(length, 1)
    if kind & 0xC0 == 0x80:  # LAZ
        _check_compressed(file, size, start, row, points, laszip)
    elif points * row > size - start:
        raise ValueError(f"{points} points of {row} bytes in a file of {size}")


def _check_compressed(file: BinaryIO, size: int, start: int, row: int, points: int, laszip: bytes) -> None:
    """Check the sizes of a point's parts, and of the chunks, each of which begins with a point as it is."""
    if not points:
        return
    parts = [*struct.iter_unpack("<HHH", laszip[34:])]  # kind, bytes, version
    if sum(length for _, length, _ in parts) != row or len(parts) != struct.unpack_from("<H", laszip, 32)[0]:
        raise ValueError(f"points of {row} bytes, compressed as parts of {[part[1] for part in parts[:8]]}")
    file.seek(start)
    (table,) = struct.unpack("<q", _exactly(file, 8))
    if table == -1:  # whoever wrote it could not go back
        file.seek(size - 8)
        (table,) = struct.unpack("<q", _exactly(file, 8))
    if not start <= table < size:
        raise ValueError(f"a table of chunks at byte {table} of {size}")
    file.seek(table + 4)
    (number,) = struct.unpack("<I", _exactly(file, 4))
    if number * row > size:
        raise ValueError(f"{number} chunks of points in a file of {size} bytes")
    try:
        import lazrs
    except ImportError:  # laspy can have another decompressor
        return
    file.seek(start)
    counts, chunks = zip(*lazrs.read_chunk_table(file, lazrs.LazVlr(laszip)), strict=True)
    if max(counts) > max(points, _MOST_POINTS):  # the last of many is not full, nor is an only one
        raise ValueError(f"chunks of {max(counts)} points for {points} points")
    if sum(chunks) > size:
        raise ValueError(f"chunks of {sum(chunks)} bytes in a file of {size}")
    if struct.unpack_from("<H", laszip)[0] != _LAYERED:
        return
    layers = sum(_LAYERS.get(kind, length) for kind, length, _ in parts)
    place = start + 8
    for length in chunks:
        file.seek(place + row + 4)
        layered = sum(struct.unpack(f"<{layers}I", _exactly(file, 4 * layers)))
        if row + 4 + 4 * layers + layered > length:
            raise ValueError(f"layers of {layered} bytes in a chunk of {length}")
        place += length


def _exactly(file: BinaryIO, count: int) -> bytes:
    """Read so many bytes."""
    content = file.read(count)
    if len(content) < count:
        raise ValueError(f"its header wants {count} bytes at {file.tell() - len(content)}, behind the end")
    return content
