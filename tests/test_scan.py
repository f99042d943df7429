"""Scan files: every kind is read, and whatever is wrong with one is said."""

import io
import re
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from spcy.demo.scene import CLASSES, generate_scene
from spcy.scan import label_scan, open_scan, read_scan

KITTI = Path(__file__).parents[2] / "shared" / "data" / "kitti_000008.bin"
POINTS = np.array(
    [[1.5, -2.25, 0.5], [3.0, 4.0, -1.75], [-8.5, 0.0, 2.0], [10.0, 20.0, 30.0], [0.5, 0.25, 0.125]],
    np.float32,
)
XYZ = "property float x\nproperty float y\nproperty float z\n"


def text_rows(points):
    return "".join(" ".join(f"{value:g}" for value in row) + "\n" for row in points).encode()


def ply(body, encoding="ascii", count=5, properties=XYZ, after=""):
    header = (
        f"ply\nformat {encoding} 1.0\ncomment made by a test\nelement vertex {count}\n{properties}{after}"
    )
    return header.encode() + b"end_header\n" + body


def pcd(body, encoding="ascii", count=5, width=None, fields="x y z", kind="F"):
    number = len(fields.split())
    lines = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        f"FIELDS {fields}",
        "SIZE" + " 4" * number,
        "TYPE" + f" {kind}" * number,
        "COUNT" + " 1" * number,
        f"WIDTH {count if width is None else width}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {count}",
        f"DATA {encoding}",
    ]
    return "".join(line + "\n" for line in lines).encode() + body


def kitti(points=POINTS):
    return np.column_stack([points, np.full(len(points), 0.5)]).astype("<f4").tobytes()


def npy_bytes(array, tmp_path):
    np.save(tmp_path / "array.npy", array)
    return (tmp_path / "array.npy").read_bytes()


def compressed_pcd(tmp_path):
    pypcd4 = pytest.importorskip("pypcd4")
    cloud = pypcd4.PointCloud.from_xyz_points(POINTS)
    cloud.save(tmp_path / "compressed.pcd", encoding=pypcd4.Encoding.BINARY_COMPRESSED)
    return (tmp_path / "compressed.pcd").read_bytes()


WITH_INTENSITY = np.rec.fromarrays([*POINTS.T, np.arange(5, dtype="u1")], names="x,y,z,i")
GOOD = {
    "kitti.bin": kitti(),
    "ascii.ply": ply(text_rows(POINTS)),
    "crlf.ply": ply(text_rows(POINTS)).replace(b"\n", b"\r\n"),
    "little.ply": ply(POINTS.tobytes(), "binary_little_endian"),
    "big.ply": ply(POINTS.astype(">f4").tobytes(), "binary_big_endian"),
    "double.ply": ply(
        POINTS.astype("<f8").tobytes(), "binary_little_endian", properties=XYZ.replace("float", "double")
    ),
    "intensity.ply": ply(
        WITH_INTENSITY.tobytes(), "binary_little_endian", properties=XYZ + "property uchar i\n"
    ),
    "faces.ply": ply(
        text_rows(POINTS) + b"3 0 1 2\n", after="element face 1\nproperty list uchar int vertex_indices\n"
    ),
    "ascii.pcd": pcd(text_rows(POINTS)),
    "binary.pcd": pcd(POINTS.tobytes(), "binary"),
    "UPPER.PCD": pcd(POINTS.tobytes(), "binary"),
    "reordered.pcd": pcd(
        np.column_stack([np.ones(5), POINTS[:, ::-1]]).astype("<f4").tobytes(),
        "binary",
        fields="intensity z y x",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_reads(name, tmp_path):
    (tmp_path / name).write_bytes(GOOD[name])
    scan = read_scan(tmp_path / name)
    assert scan.name == name
    assert scan.points.dtype == (np.float64 if "double" in name else np.float32)
    assert scan.points.flags.c_contiguous
    assert scan.left_out == 0
    assert scan.truth is None
    np.testing.assert_array_equal(scan.points, POINTS)


def test_reads_compressed_pcd(tmp_path):
    compressed_pcd(tmp_path)
    np.testing.assert_array_equal(read_scan(tmp_path / "compressed.pcd").points, POINTS)


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8"])
@pytest.mark.parametrize("columns", [3, 5])
def test_reads_npy(dtype, columns, tmp_path):
    array = np.zeros((5, columns), dtype)
    array[:, :3] = POINTS
    np.save(tmp_path / "a.npy", array)
    scan = read_scan(str(tmp_path / "a.npy"))
    assert scan.points.dtype == (np.float64 if dtype == "f8" else np.float32)
    assert scan.points.dtype.isnative
    np.testing.assert_array_equal(scan.points, POINTS)


@pytest.mark.parametrize("arrays", [{"pc": POINTS}, {"points": POINTS, "labels": np.arange(5)}])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_npz(arrays, save, tmp_path):
    save(tmp_path / "a.npz", **arrays)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.npz").points, POINTS)


@pytest.mark.parametrize("save", ["npy", "npz"])
@pytest.mark.parametrize("shape", [(5,), (1, 5)])  # (1, 5) as of a sensor that keeps its rows
def test_reads_records(save, shape, tmp_path):
    fields = [("Z", "<f4"), ("ring", "u2"), ("x", "<f4"), ("y", "<f4"), ("name", "U3"), ("rgb", "u1", (3,))]
    records = np.zeros(shape, fields)
    records["x"], records["y"], records["Z"] = POINTS.T.reshape(3, *shape)
    records["ring"] = np.arange(5).reshape(shape)
    path = tmp_path / f"a.{save}"
    (np.save if save == "npy" else np.savez)(path, records)
    scan = read_scan(path)
    assert scan.names == ("x", "y", "z", "ring")
    np.testing.assert_array_equal(scan.columns, np.column_stack([POINTS, range(5)]))
    assert read_scan(path, "x,y,z").names == ("x", "y", "z")
    with pytest.raises(ValueError, match=r"columns must be of the file's, .*, got 'i'"):
        read_scan(path, "i")


@pytest.mark.parametrize("name", ["a.npy", "a.bin", "ascii.pcd", "ascii.ply", "binary.pcd"])
def test_points_that_are_not_finite_are_left_out_and_counted(name, tmp_path):
    points = POINTS.copy()
    points[1, 2], points[3, 0] = np.nan, np.inf
    content = {
        "a.npy": lambda: npy_bytes(points, tmp_path),
        "a.bin": lambda: kitti(points),
        "ascii.pcd": lambda: pcd(text_rows(points)),
        "ascii.ply": lambda: ply(text_rows(points)),
        "binary.pcd": lambda: pcd(points.tobytes(), "binary"),
    }
    (tmp_path / name).write_bytes(content[name]())
    scan = read_scan(tmp_path / name)
    assert scan.left_out == 2
    np.testing.assert_array_equal(scan.points, POINTS[[0, 2, 4]])


def test_one_ascii_point(tmp_path):
    (tmp_path / "a.pcd").write_bytes(pcd(text_rows(POINTS[:1]), count=1))
    np.testing.assert_array_equal(read_scan(tmp_path / "a.pcd").points, POINTS[:1])


def ring(columns, num=400, shuffled=True):
    """Return points 20 m away, with intensities or colours, and the number of the ring."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, num)
    angle = angle if shuffled else np.sort(angle)
    xyz = np.stack([20 * np.cos(angle), 20 * np.sin(angle), rng.uniform(-2, 1, num)], 1)
    rest = rng.integers(0, [256] * (columns - 4) + [32], (num, columns - 3)) if columns == 5 else None
    if rest is None:
        rest = rng.integers(0, 256, (num, columns - 3))
    return np.concatenate([xyz, rest], 1).astype("<f4")


def normals(num=400):
    rng = np.random.default_rng(0)
    n = rng.normal(size=(num, 3))
    return np.concatenate([rng.uniform(-1, 1, (num, 3)), n / np.linalg.norm(n, axis=1)[:, None]], 1)


def firing(num=2000):
    """Return what a sensor of 16 rings sees of the ground, firing up and down by turns."""
    i = np.arange(num)
    angle, up = i // 16 * 0.0035, np.radians(np.where(i % 2, 1, -15) + i % 16 // 2 * 2)
    reach = np.where(up < 0, 1.7 / np.maximum(np.sin(-up), 1e-3), 40)
    flat = np.stack([np.cos(angle) * np.cos(up), np.sin(angle) * np.cos(up), np.sin(up)], 1)
    return np.column_stack([reach[:, None] * flat, i % 7])


BARE = {
    **{f"{n} columns": ring(n) for n in range(3, 9)},
    **{f"{n} columns, turning": ring(n, shuffled=False) for n in range(3, 9)},
    "a room's colours": np.random.default_rng(0).uniform(0, [4, 5, 2.5, 1, 1, 1], (840, 6)),
    "normals": np.concatenate([normals()[:, :3] ** 3, normals()[:, 3:]], 1),
    "not finite": np.where(np.arange(400)[:, None] % 9 == 0, np.nan, ring(5)),
    "two rows": ring(7)[:2],
}


@pytest.mark.parametrize("name", BARE)
def test_columns_of_bare_numbers_are_found(name, tmp_path):
    rows = BARE[name].astype("<f4")
    (tmp_path / "a.bin").write_bytes(rows.tobytes())
    scan = read_scan(tmp_path / "a.bin")
    np.testing.assert_array_equal(scan.columns, rows[np.isfinite(rows).all(1)])
    assert scan.names[:3] == ("x", "y", "z")


@pytest.mark.skipif(not KITTI.exists(), reason=f"{KITTI} is not there")
def test_columns_of_a_real_scan_are_found(tmp_path):
    rows = np.fromfile(KITTI, "<f4").reshape(-1, 4)
    assert read_scan(KITTI).names == ("x", "y", "z", "intensity")
    five = np.column_stack([rows[:17000], np.arange(17000) % 32])
    for wide in (rows[:17000, :3], five, np.concatenate([five, rows[:17000, 3:]], 1)):
        (tmp_path / "a.bin").write_bytes(wide.astype("<f4").tobytes())
        np.testing.assert_array_equal(read_scan(tmp_path / "a.bin").columns, wide.astype("<f4"))


DOUBTFUL = {
    "by turns": (np.column_stack([ring(4)[:, :2], np.arange(400) % 2 * 6.0, ring(4)[:, 2]]), "4 or 8"),
    "two rows": (ring(4)[:2], "4 or 8"),
    "16 rings": (firing(), "4, 8 or 16"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_columns_in_doubt_must_be_given(name, tmp_path):
    rows, likely = DOUBTFUL[name]
    rows = rows.astype("<f4")
    (tmp_path / "a.bin").write_bytes(rows.tobytes())
    with pytest.raises(ValueError, match=rf"a\.bin: columns must be given: rows of {likely} float32 are"):
        read_scan(tmp_path / "a.bin")
    for columns in (4, "4", "x,y,z,i", ["x", "y", "z", "i"]):
        scan = read_scan(tmp_path / "a.bin", columns)
        np.testing.assert_array_equal(scan.columns, rows)
    assert scan.names == ("x", "y", "z", "i")


@pytest.mark.parametrize("name", [name for name, rows in BARE.items() if len(rows) > 50])
def test_a_row_that_is_cut_is_seen(name, tmp_path):
    """Numbers of 7 columns less some are whole rows of others, in which nothing is a coordinate."""
    rows = BARE[name].astype("<f4")
    width = rows.shape[1]
    for num in range(len(rows) - 8, len(rows)):
        for cut in range(1, width):
            if (width, cut) == (8, 4):  # two columns of numbers like any: it may be rows of 4, by turns
                continue
            (tmp_path / "a.bin").write_bytes(rows.tobytes()[: 4 * (num * width - cut)])
            with pytest.raises(ValueError, match=r"a\.bin: (truncated, or|columns must be given: rows of)"):
                read_scan(tmp_path / "a.bin")


def test_a_cut_row_and_a_number_of_columns(tmp_path):
    rows = ring(4)
    (tmp_path / "a.bin").write_bytes(rows.tobytes()[: 4 * 1500])
    assert len(read_scan(tmp_path / "a.bin").points) == 375
    (tmp_path / "a.bin").write_bytes(rows.tobytes()[: 4 * 1497])  # which 3 divides
    with pytest.raises(ValueError, match="rows of 4 float32 are likely, and 5988 bytes are no whole number"):
        read_scan(tmp_path / "a.bin")
    assert len(read_scan(tmp_path / "a.bin", 3).points) == 499  # who says so is believed


@pytest.mark.parametrize("num", [1999, 1997])
def test_rows_by_turns_are_not_taken_for_cut_ones(num, tmp_path):
    rows = firing()[:num].astype("<f4")
    (tmp_path / "a.bin").write_bytes(rows.tobytes())
    np.testing.assert_array_equal(read_scan(tmp_path / "a.bin").columns, rows)


def test_columns_in_any_order(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(20.0).reshape(5, 4))
    scan = read_scan(tmp_path / "a.npy", "t, z, y, x")
    assert scan.names == ("x", "y", "z", "t")
    np.testing.assert_array_equal(scan.columns[0], [3, 2, 1, 0])


@pytest.mark.parametrize(
    ("name", "columns", "error", "message"),
    [
        ("a.bin", 7, ValueError, "8000 bytes are not whole rows of 7 float32"),
        ("a.bin", 2, ValueError, "not whole rows of 2 float32, 3 or more"),
        ("a.bin", "x,y,i,ring", ValueError, "columns must have x, y and z, and each name once"),
        ("a.bin", "x,y,z,i,i", ValueError, "each name once, got x,y,z,i,i"),
        ("a.bin", [0, 1, 2], TypeError, "columns must be a number or names"),
        ("a.npy", 4, ValueError, "columns must be those of the file, which has 5, got 4"),
        ("a.npy", "x,y,z", ValueError, "which has 5, got 3"),
        ("a.csv", 5, ValueError, "columns must be names, as the file has some, got 5"),
        ("a.csv", "x,y,z,ring", ValueError, "columns must be of the file's, x, y, z, i, got 'ring'"),
        ("ascii.pcd", "i", ValueError, "columns must be of the file's, x, y, z, got 'i'"),
    ],
)
def test_refuses_columns(name, columns, error, message, tmp_path):
    np.save(tmp_path / "a.npy", ring(5))
    (tmp_path / "a.bin").write_bytes(ring(5).tobytes())
    (tmp_path / "a.csv").write_text("x,y,z,i\n1,2,3,4\n")
    (tmp_path / "ascii.pcd").write_bytes(GOOD["ascii.pcd"])
    with pytest.raises(error, match=message):
        read_scan(tmp_path / name, columns)


TEXTS = {
    "bare.xyz": ("1 2 3 4\n5 6 7 8\n", ("x", "y", "z", "3")),
    "named.csv": ("x,y,z,i\n1,2,3,4\n5,6,7,8\n", ("x", "y", "z", "i")),
    "words.csv": ("name;X;Y;Z;i\ncar;1;2;3;4\nbus;5;6;7;8\n", ("x", "y", "z", "i")),
    "cloudcompare.txt": ("//X Y Z R\n2\n1 2 3 4\n5 6 7 8\n", ("x", "y", "z", "R")),
    "remarks.txt": ("# made by a test of ours\n\n1\t2\t3\t4\n5\t6\t7\t8\n", ("x", "y", "z", "3")),
    "quoted.csv": ('\ufeff"x","y","z","i"\r\n"1","2","3","4"\r\n"5","6","7","8"\r\n', ("x", "y", "z", "i")),
    "reordered.csv": ("i,z,y,x\n4,3,2,1\n8,7,6,5\n", ("x", "y", "z", "i")),
}


@pytest.mark.parametrize("name", TEXTS)
def test_reads_text(name, tmp_path):
    text, names = TEXTS[name]
    (tmp_path / name).write_bytes(text.encode())
    scan = read_scan(tmp_path / name)
    assert scan.names == names
    np.testing.assert_array_equal(scan.columns, [[1, 2, 3, 4], [5, 6, 7, 8]])
    assert read_scan(tmp_path / name, names).names == names


EMPTY = {
    "first.csv": "x,y,z,i\n,2,3,4\n5,6,7,8\n",
    "later.csv": "x,y,z,i\n5,6,7,8\n1,,3,4\n",
    "index.csv": ",x,y,z,i\n0,5,6,7,8\n1,1,2,,4\n",
    "bare.csv": ",2,3,4\n5,6,7,8\n",
    "semicolons.txt": 'x;y;z;i\r\n"5";"6";"7";"8"\r\n1; ;3;4\r\n',
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_cells_are_nan(name, tmp_path):
    """As pandas writes NaN; the row is left out and counted, as of other kinds of files."""
    (tmp_path / name).write_bytes(EMPTY[name].encode())
    scan = read_scan(tmp_path / name)
    assert scan.left_out == 1
    np.testing.assert_array_equal(scan.points, [[5, 6, 7]])


def test_a_column_that_is_empty_all_along_is_none_of_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,z,i\n" + "1,2,3,\n" * 1200)
    assert read_scan(tmp_path / "a.csv").names == ("x", "y", "z")
    (tmp_path / "a.csv").write_text("x,y,z,i\n" + ",2,3,4\n" * 1200)
    with pytest.raises(ValueError, match="columns of numbers must have x, got y, z, i"):
        read_scan(tmp_path / "a.csv")


def test_text_keeps_far_coordinates(tmp_path):
    (tmp_path / "utm.xyz").write_text("500000.001 5400000.0005 100\n500000.002 5400000.0015 nan\n")
    scan = read_scan(tmp_path / "utm.xyz")
    assert scan.points.tolist() == [[500000.001, 5400000.0005, 100]]
    assert scan.left_out == 1


def test_reads_e57(tmp_path):
    pye57 = pytest.importorskip("pye57")
    points = POINTS.astype(np.float64) + 1e6
    with pye57.E57(str(tmp_path / "a.e57"), mode="w") as file:
        for part in (points[:2], points[2:]):
            columns = {f"cartesian{axis}": column for axis, column in zip("XYZ", part.T, strict=True)}
            file.write_scan_raw(columns | {"intensity": np.arange(len(part), dtype=np.float32)})
    scan = read_scan(tmp_path / "a.e57")
    np.testing.assert_allclose(scan.points, points, atol=1e-9)
    assert scan.names == ("x", "y", "z", "intensity")
    assert scan.columns[:, 3].tolist() == [0, 1, 0, 1, 2]
    part = open_scan(tmp_path / "a.e57").read(1, 4, ["z", "intensity"])
    np.testing.assert_array_equal(part, scan.columns[1:4, 2:])
    (tmp_path / "cut.e57").write_bytes((tmp_path / "a.e57").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut\.e57: truncated or malformed \.e57"):
        read_scan(tmp_path / "cut.e57")


BAD = {
    # name: content, what the message says
    "empty.bin": (b"", "the file is empty"),
    "empty.ply": (b"", "the file is empty"),
    "points.abc": (b"1 2 3\n", "unknown kind of scan '.abc', expected .bin, .npy, .npz, .pcd, .ply"),
    "noextension": (b"1 2 3\n", "the name says no kind of scan, expected .bin, .npy"),
    "truncated.bin": (kitti()[:-5], "75 bytes are not whole rows of 3 .. 8 float32"),
    "text.bin": (b"this is no scan!" * 8, "not a coordinate in metres"),
    "bytes.bin": (b"13 bytes long", "13 bytes are not whole rows of 3 .. 8 float32"),
    "two.bin": (kitti(POINTS[:2]), "columns must be given: rows of 4 or 8 float32 are likely; write"),
    "prime.bin": (bytes(4 * 11), "44 bytes are not whole rows of 3 .. 8 float32"),
    "one.xyz": (b"5\n", r"truncated or malformed .xyz \(ValueError: no line of numbers\)"),
    "words.csv": (b"hello,world\nfoo,bar\n", "neither names nor numbers in line 2: foo,bar"),
    "ragged.txt": (b"1 2 3\n4 5\n", "truncated or malformed .txt"),
    "word.txt": (b"1 2 3\n4 x 6\n", "truncated or malformed .txt"),
    "bytes.txt": (b"\xff\xfe\x00", "truncated or malformed .txt"),
    "xy.csv": (b"x,y\n1,2\n", "columns of numbers must have z, got x, y"),
    "names.csv": (b"x,y,z\n1,2,3,4\n", "3 names above 4 columns"),
    "flat.txt": (b"1 2\n3 4\n", r"expected an array of shape \(M, >= 3\), got \(2, 2\)"),
    "text.npy": (b"this is no array", "not a .npy file"),
    "text.npz": (b"this is no archive", "not a .npz file"),
    "broken.npz": (b"PK\x03\x04 and then nothing of use", "truncated or malformed .npz"),
    "text.ply": (b"this is no ply", "not a .ply file with an 'element vertex'"),
    "headless.ply": (ply(b"")[:-11], "not a .ply file with an 'element vertex'"),
    "none.ply": (ply(b"", count=0), "the file holds no point"),
    "rows.ply": (ply(text_rows(POINTS), count=7), "the header says 7 vertices, 5 were found"),
    "cut.ply": (ply(text_rows(POINTS)[:-12]), "vertices of unequal length"),
    "comma.ply": (ply(text_rows(POINTS).replace(b" ", b",")), "truncated or malformed .ply"),
    "word.ply": (ply(text_rows(POINTS).replace(b"-2.25", b"minus")), "truncated or malformed .ply"),
    "xy.ply": (
        ply(text_rows(POINTS), properties=XYZ.replace(" z", " w")),
        r"malformed .ply \(KeyError: 'z'\)",
    ),
    "short.ply": (ply(POINTS.tobytes()[:-12], "binary_little_endian"), "truncated or malformed .ply"),
    "integer.ply": (
        ply(b"1 2 3\n" * 5, properties=XYZ.replace("float", "int")),
        "coordinates must be float32 or float64, got int32",
    ),
    "nan.ply": (ply(b"nan nan nan\n" * 5), "none of the 5 points has finite coordinates"),
    "text.pcd": (b"this is no pcd", "the header has no DATA line"),
    "none.pcd": (pcd(b"", count=0), "the file holds no point"),
    "rows.pcd": (pcd(text_rows(POINTS), count=7), "the header says 7 points, 7 x 1, and 5 were found"),
    "more.pcd": (pcd(text_rows(POINTS), count=4), "the header says 4 points, 4 x 1, and 5 were found"),
    "norows.pcd": (pcd(b""), "the header says 5 points, 5 x 1, and 0 were found"),
    "cut.pcd": (pcd(text_rows(POINTS)[:-12]), "truncated or malformed .pcd"),
    "word.pcd": (pcd(text_rows(POINTS).replace(b"-2.25", b"minus")), "could not convert string 'minus'"),
    "width.pcd": (pcd(POINTS.tobytes(), "binary", width=4), "the header says 5 points, 4 x 1"),
    "wholerow.pcd": (
        pcd(POINTS.tobytes()[:-12], "binary"),
        "the header says 5 points, 5 x 1, and 4 were found",
    ),
    "short.pcd": (pcd(POINTS.tobytes()[:-3], "binary"), "truncated or malformed .pcd"),
    "long.pcd": (pcd(POINTS.tobytes() + bytes(12), "binary"), "72 bytes of points, expected 60"),
    "integer.pcd": (pcd(b"1 2 3\n" * 5, kind="I"), "coordinates must be float32 or float64, got int32"),
    "xy.pcd": (pcd(text_rows(POINTS[:, :2]), fields="x y"), "truncated or malformed .pcd"),
    "far.bin": (kitti(POINTS * 1e9), "point 3 has z = 3e[+]10, not a coordinate in metres"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name, tmp_path):
    content, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match="^" + re.escape(str(path)) + ": .*" + message):
        read_scan(path)


@pytest.mark.parametrize("keep", [5, 40, -12, -1])
def test_refuses_truncated_numpy_files(keep, tmp_path):
    np.save(tmp_path / "whole.npy", POINTS)
    np.savez(tmp_path / "whole.npz", points=POINTS)
    for kind in ("npy", "npz"):
        path = tmp_path / f"cut.{kind}"
        path.write_bytes((tmp_path / f"whole.{kind}").read_bytes()[:keep])
        with pytest.raises(ValueError, match=rf"cut\.{kind}: (truncated or malformed|not a) \.{kind}"):
            read_scan(path)


@pytest.mark.parametrize("keep", [-1, -40])
def test_refuses_truncated_compressed_pcd(keep, tmp_path):
    path = tmp_path / "cut.pcd"
    path.write_bytes(compressed_pcd(tmp_path)[:keep])
    with pytest.raises(ValueError, match=r"cut\.pcd: truncated or malformed \.pcd"):
        read_scan(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 2), np.float32), r"expected an array of shape \(M, >= 3\), got \(5, 2\)"),
        (np.zeros(15, np.float32), r"expected an array of shape \(M, >= 3\), got \(15,\)"),
        (np.zeros((5, 3), np.int64), "coordinates must be float32 or float64, got int64"),
        (np.zeros((5, 3), complex), "coordinates must be float32 or float64, got complex128"),
        (np.zeros((5, 3), np.longdouble), "coordinates must be float32 or float64, got"),
        (np.full((5, 3), "a"), "coordinates must be float32 or float64, got <U1"),
        (np.full((5, 3), None), "Python objects in dtype"),
        (np.zeros((0, 3), np.float32), "the file holds no point"),
        (np.full((5, 3), np.nan), "none of the 5 points has finite coordinates"),
    ],
)
def test_refuses_arrays(array, message, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=r"a\.npy: .*" + message):
        read_scan(tmp_path / "a.npy")


def test_what_is_wrong_with_an_array_of_an_archive_is_not_the_archive_s(tmp_path):
    np.savez(tmp_path / "a.npz", points=np.float32(5))
    with pytest.raises(ValueError, match=r"a\.npz: expected an array of shape \(M, >= 3\), got \(\)$"):
        read_scan(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", points=np.zeros(3, [("x", "f4"), ("y", "f4")]))
    with pytest.raises(ValueError, match=r"a\.npz: columns of numbers must have z, got x, y$"):
        read_scan(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", points=np.zeros(3, [("x", "f4"), ("y", object)]))
    with pytest.raises(ValueError, match=r"a\.npz: .*points\.npy must be an array of numbers, got dtype"):
        read_scan(tmp_path / "a.npz")


def test_refuses_an_archive_of_several_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", first=POINTS, second=POINTS)
    with pytest.raises(
        ValueError, match=r"an array named 'points' or only one array, found 2: first, second$"
    ):
        read_scan(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"b\.npz: expected an array .* found none$"):
        read_scan(tmp_path / "b.npz")


def archive(members, packed=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packed) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return file.getvalue()


def npy(array, shape=None):
    """A .npy file's bytes; with a shape that is not its own."""
    file = io.BytesIO()
    np.save(file, array)
    data = file.getvalue()
    if shape is None:
        return data
    now, then = f"{array.shape},".encode(), f"{shape},".encode()
    return data.replace(now + b" }" + b" " * (len(then) - len(now)), then + b" }")


def lying_pcd(tmp_path):
    whole = compressed_pcd(tmp_path)
    body = whole.index(b"\n", whole.index(b"DATA")) + 1
    return whole[: body + 4] + struct.pack("<I", 2**32 - 1) + whole[body + 8 :]


LIES = {  # what would take much memory, or time, before somebody saw that it is not true
    "shape.npz": (
        lambda _: archive({"a.npy": npy(POINTS, (10**12, 3))}),
        r"a\.npy must have 12000000000128 bytes",
    ),
    "packed.npz": (
        lambda _: archive({"a.npy": npy(POINTS)}, zipfile.ZIP_LZMA),
        "packed in a way that NumPy never",
    ),
    "noarray.npz": (lambda _: archive({"points": b"no array"}), "points: the magic string is not correct"),
    "columns.pcd": (
        lambda _: pcd(text_rows(POINTS)).replace(b"COUNT 1", b"COUNT 999999999"),
        "its header wants",
    ),
    "unpacked.pcd": (lying_pcd, "its header wants 4294967295 bytes of points"),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_about_sizes_are_seen_first(name, tmp_path):
    make, message = LIES[name]
    (tmp_path / name).write_bytes(make(tmp_path))
    with pytest.raises(ValueError, match=re.escape(name) + ": .*" + message):
        read_scan(tmp_path / name)


def surveyed(path, version="1.4", point_format=6):
    laspy = pytest.importorskip("laspy")
    cloud = laspy.LasData(laspy.LasHeader(version=version, point_format=point_format))
    cloud.x, cloud.y, cloud.z = POINTS.T
    if version == "1.4":
        cloud.evlrs = laspy.vlrs.vlrlist.VLRList([laspy.VLR("spcy", 7, "a record", b"12345")])
    cloud.write(path)
    return bytearray(path.read_bytes())


def points_of(data):
    return struct.unpack_from("<I", data, 96)[0]


LAS_LIES = {  # suffix, where a number is, how it is written, the number, what is said
    "records": (".las", lambda _: 100, "<I", 2**32 - 1, "behind the end"),
    "a long record": (
        ".las",
        lambda data: struct.unpack_from("<Q", data, 235)[0] + 20,
        "<Q",
        2**60,
        "a record of",
    ),
    "long records": (".las", lambda _: 243, "<I", 2**32 - 1, "behind the end"),
    "a place of points": (".las", lambda _: 96, "<I", 2**32 - 1, "points from byte 4294967295 on"),
    "points": (".las", lambda _: 247, "<Q", 10**15, "1000000000000000 points of 30 bytes"),
    "packed points": (".laz", lambda _: 247, "<Q", 10**15, "fill whole buffer|not 5 as labels"),
    "bytes of a point": (
        ".laz",
        lambda _: 105,
        "<H",
        2**16 - 1,
        "points of 65535 bytes, compressed as parts of",
    ),
    "a place of chunks": (".laz", points_of, "<q", 10**12, "a table of chunks at byte 1000000000000"),
    "chunks": (
        ".laz",
        lambda data: struct.unpack_from("<q", data, points_of(data))[0] + 4,
        "<I",
        2**32 - 1,
        "chunks",
    ),
    "points of a chunk": (
        ".laz",
        lambda data: data.index(b"laszip encoded") + 52 + 12,
        "<I",
        2**31,
        "chunks of 2147",
    ),
    "a layer": (".laz", lambda data: points_of(data) + 8 + 30 + 4, "<I", 2**32 - 1, "layers of 42949"),
}


@pytest.mark.parametrize("lie", LAS_LIES)
def test_lies_of_surveyors_files_are_seen_first(lie, tmp_path):
    suffix, place, form, number, message = LAS_LIES[lie]
    path = tmp_path / f"a{suffix}"
    data = surveyed(path)
    struct.pack_into(form, data, place(data), number)
    assert len(read_scan(path).points) == 5
    path.write_bytes(data)
    for read in (read_scan, lambda path: label_scan(path, tmp_path / "out.las", [np.zeros(5, np.int16)])):
        with pytest.raises(ValueError, match=rf"a\{suffix}: .*({message})"):
            read(path)
    assert not (tmp_path / "out.las").exists()


@pytest.mark.parametrize(("version", "point_format"), [("1.2", 3), ("1.4", 6), ("1.4", 8)])
@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_surveyors_files_of_all_kinds_pass(suffix, version, point_format, tmp_path):
    surveyed(tmp_path / f"a{suffix}", version, point_format)
    np.testing.assert_allclose(read_scan(tmp_path / f"a{suffix}").points, POINTS, atol=0.01)


def test_a_panic_of_rust_is_an_error_of_the_file(tmp_path, monkeypatch):
    """It is no Exception, and the end of the process is none either."""
    laspy = pytest.importorskip("laspy")
    surveyed(tmp_path / "a.las")

    class PanicException(BaseException):
        pass

    for error, seen in ((PanicException("index out of bounds"), ValueError), (SystemExit(3), SystemExit)):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(laspy, "open", fail)
        with pytest.raises(seen, match=r"index out of bounds|3"):
            read_scan(tmp_path / "a.las")


def test_a_lack_of_memory_is_not_the_file_s(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    (tmp_path / "a.txt").write_text("1 2 3\n")
    monkeypatch.setattr(np, "loadtxt", fail)
    with pytest.raises(MemoryError):
        read_scan(tmp_path / "a.txt")


def test_an_error_is_not_its_own_cause(tmp_path):
    (tmp_path / "a.txt").write_text("1 2\n")
    with pytest.raises(ValueError, match=r"a\.txt: expected an array") as caught:
        read_scan(tmp_path / "a.txt")
    error, seen = caught.value, []
    while error is not None:
        assert error not in seen
        seen.append(error)
        error = error.__cause__


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.bin: no such file"):
        read_scan(tmp_path / "nowhere.bin")
    (tmp_path / "folder.bin").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder\.bin: is a folder"):
        read_scan(tmp_path / "folder.bin")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("a.pcd", "pypcd4", "scan"),
        ("a.ply", "trimesh.exchange.ply", "scan"),
        ("a.las", "laspy", "scan"),
        ("a.e57", "pye57", "e57"),
        ("a.parquet", "pyarrow.parquet", "dask"),
    ],
)
def test_missing_reader_says_what_to_install(name, package, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(
        ImportError, match=rf'needs {package.partition(".")[0]}: pip install "spcy\[{extra}\]"'
    ):
        read_scan(tmp_path / name)


def test_scene_is_a_street_and_always_the_same():
    scan = generate_scene()
    assert 60_000 < len(scan.points) < 120_000
    assert scan.points.dtype == np.float32
    assert np.isfinite(scan.points).all()
    assert (np.bincount(scan.truth, minlength=len(CLASSES)) > 500).all()
    again, other = generate_scene(), generate_scene(seed=1)
    np.testing.assert_array_equal(scan.points, again.points)
    assert other.points.shape != scan.points.shape or (other.points != scan.points).any()


def test_scene_classes_lie_where_they_should():
    scan = generate_scene()
    x, y, z = scan.points.T
    ground, wall, pole, car = (scan.truth == label for label in range(len(CLASSES)))
    np.testing.assert_allclose(z[ground], 0.02 * x[ground] - 1.73, atol=0.15)
    assert (np.abs(y[wall]) > 9.5).all()
    assert (np.abs(np.abs(y[pole]) - 7.5) < 0.4).all()
    assert (np.abs(y[car]) < 6.5).all()
    assert (z[car] - 0.02 * x[car] + 1.73 < 1.8).all()
