"""Arrays of other libraries: their sparse ones to and from tensors, columns of tables as arrays."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import random_tensor

import spcy


def library(name):
    return pytest.importorskip(name, reason=f"{name} is not installed here")


# scipy.sparse


@pytest.fixture
def scipy_sparse():
    library("scipy")
    import scipy.sparse

    return scipy.sparse


@pytest.mark.parametrize("kind", ["coo", "csr", "csc", "lil", "dok", "bsr", "dia"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_from_scipy_has_the_sites_of_the_dense_matrix(kind, dtype, rng, scipy_sparse):
    dense = rng.standard_normal((7, 5)).astype(dtype) * (rng.random((7, 5)) < 0.4)
    matrix = scipy_sparse.coo_array(dense).asformat(kind)
    x = spcy.SparseTensor.from_scipy(matrix)
    expected = spcy.SparseTensor.from_dense(dense[None, :, :, None])
    if kind not in ("bsr", "dia"):  # whose blocks and diagonals store zeros
        np.testing.assert_array_equal(x.indices, expected.indices)
        np.testing.assert_array_equal(x.features, expected.features)
    assert (x.shape, x.batch_size, x.dtype) == ((7, 5), 1, dtype)
    np.testing.assert_array_equal(x.to_dense()[0, :, :, 0], dense)


def test_from_scipy_sums_entries_of_a_cell_and_leaves_the_matrix(scipy_sparse):
    matrix = scipy_sparse.coo_matrix(([1.0, 2.0, 4.0, 0.0], ([3, 0, 3, 1], [1, 2, 1, 1])), shape=(4, 3))
    x = spcy.SparseTensor.from_scipy(matrix)
    assert x.indices.tolist() == [[0, 0, 2], [0, 1, 1], [0, 3, 1]]
    assert x.features[:, 0].tolist() == [2, 0, 5]
    assert matrix.nnz == 4
    rows = scipy_sparse.csr_array(([1.0, 2.0], [2, 0], [0, 2]), shape=(1, 3))
    assert spcy.SparseTensor.from_scipy(rows).indices[:, 2].tolist() == [0, 2]
    assert rows.indices.tolist() == [2, 0]


def test_to_scipy_keeps_rows_and_zeros(scipy_sparse):
    x = spcy.SparseTensor([[0, 3, 1], [0, 0, 2]], np.array([[0.0], [2.0]]), shape=(4, 3))
    matrix = x.to_scipy()
    assert isinstance(matrix, scipy_sparse.coo_array)
    assert (matrix.row.tolist(), matrix.col.tolist(), matrix.data.tolist()) == ([3, 0], [1, 2], [0, 2])
    np.testing.assert_array_equal(matrix.toarray(), x.to_dense()[0, :, :, 0])
    back = spcy.SparseTensor.from_scipy(matrix)
    assert back.indices.tolist() == [[0, 0, 2], [0, 3, 1]]


def test_scipy_of_no_sites(scipy_sparse):
    x = spcy.SparseTensor.from_scipy(scipy_sparse.csr_array((4, 3)))
    assert (x.num_sites, x.shape, x.num_channels) == (0, (4, 3), 1)
    assert x.to_scipy().nnz == 0


def test_from_scipy_refuses(scipy_sparse):
    from_scipy = spcy.SparseTensor.from_scipy
    with pytest.raises(TypeError, match=r"array must be a scipy\.sparse array or matrix, got ndarray"):
        from_scipy(np.eye(3))
    with pytest.raises(TypeError, match=r"array must have dtype float32, .*, got int64"):
        from_scipy(scipy_sparse.csr_array(np.eye(3, dtype=np.int64)))
    with pytest.raises(ValueError, match=r"array must have two axes, none of length 0, got shape \(0, 3\)"):
        from_scipy(scipy_sparse.csr_array((0, 3)))


@pytest.mark.usefixtures("scipy_sparse")
@pytest.mark.parametrize(
    ("indices", "channels", "options", "message"),
    [
        ([[0, 1, 2, 3]], 1, {"shape": (4, 4, 4)}, "2 axes, 1 batch and 1 channel, got 3, 1 and 1"),
        ([[1, 1, 2]], 1, {"shape": (4, 4)}, "got 2, 2 and 1"),
        ([[0, 1, 2]], 8, {"shape": (4, 4)}, "got 2, 1 and 8"),
        ([[0, -1, 2]], 1, {}, "to_scipy needs a shape, and this tensor's grid is unbounded"),
    ],
)
def test_to_scipy_refuses(indices, channels, options, message):
    x = spcy.SparseTensor(indices, np.ones((1, channels)), **options)
    with pytest.raises(ValueError, match=message):
        x.to_scipy()


@pytest.mark.usefixtures("scipy_sparse")
def test_to_scipy_refuses_16_bits():
    x = spcy.SparseTensor([[0, 1, 2]], np.ones((1, 1), np.float16), shape=(4, 4))
    with pytest.raises(TypeError, match="features must have dtype float32 or float64, got float16"):
        x.to_scipy()


# sparse.COO


@pytest.mark.parametrize("box", [(9,), (6, 5), (4, 5, 3), (3, 2, 4, 3)], ids=len)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_coo_and_back(box, dtype, rng):
    sparse = library("sparse")
    x = random_tensor(rng, 20, box, 3, dtype, batch_size=2)
    coo = x.to_coo()
    assert isinstance(coo, sparse.COO)
    assert coo.dtype == dtype
    np.testing.assert_array_equal(coo.todense(), x.to_dense())
    back = spcy.SparseTensor.from_coo(coo)
    assert (back.shape, back.batch_size) == (box, 2)
    np.testing.assert_array_equal(back.features, x.features[x.rows_of(back.indices)])
    assert back.num_sites == x.num_sites


def test_from_coo_fills_channels_and_sums_entries_of_a_cell():
    sparse = library("sparse")
    entries = np.array([[0, 0, 0], [3, 1, 3], [1, 2, 1]])  # (batch, cell, channel): (0, 3, 1) twice
    x = spcy.SparseTensor.from_coo(sparse.COO(entries, np.array([1.0, 2.0, 4.0]), shape=(2, 5, 3)))
    assert x.indices.tolist() == [[0, 1], [0, 3]]
    assert x.features.tolist() == [[0, 0, 2], [0, 5, 0]]
    assert x.batch_size == 2


def test_coo_keeps_sites_of_zeros_and_no_sites():
    library("sparse")
    x = spcy.SparseTensor([[0, 2]], np.zeros((1, 2)), shape=(4,))
    assert spcy.SparseTensor.from_coo(x.to_coo()).indices.tolist() == [[0, 2]]
    none = spcy.SparseTensor(np.empty((0, 2), int), np.empty((0, 2)), shape=(4,))
    assert spcy.SparseTensor.from_coo(none.to_coo()).num_sites == 0


def test_coo_refuses():
    sparse = library("sparse")
    from_coo = spcy.SparseTensor.from_coo
    with pytest.raises(TypeError, match=r"array must be a sparse.COO, got ndarray"):
        from_coo(np.ones((1, 3, 1)))
    with pytest.raises(TypeError, match=r"array must have dtype float32, .*, got int64"):
        from_coo(sparse.COO(np.ones((1, 3, 1), np.int64)))
    with pytest.raises(ValueError, match=r"array must have shape \(B, \*shape, C\) .* got \(3, 3\)"):
        from_coo(sparse.COO(np.eye(3)))
    with pytest.raises(ValueError, match=r"array must have no axis of length 0, got shape \(0, 3, 1\)"):
        from_coo(sparse.COO(np.ones((0, 3, 1))))
    with pytest.raises(ValueError, match=r"array must have fill_value 0, got 1.0"):
        from_coo(sparse.COO(np.ones((1, 3, 1)), fill_value=1.0))
    with pytest.raises(ValueError, match="to_coo needs a shape"):
        spcy.SparseTensor([[0, -1]], np.ones((1, 1))).to_coo()


@pytest.mark.parametrize("name", ["scipy", "sparse"])
def test_a_missing_library_is_named_with_its_extra(name):
    code = f"""
import sys; sys.modules["{name}"] = None
import spcy
for use in ("from_{{}}", "to_{{}}"):
    use = use.format("{name}".replace("sparse", "coo"))
    x = spcy.SparseTensor([[0, 1, 1]], [[1.0]], shape=(2, 2))
    try:
        getattr(x, use)(*[None] * use.startswith("from"))
    except ImportError as error:
        assert str(error) == f'{{use}} needs {name}: pip install "spcy[{name}]"', error
    else:
        raise SystemExit(use)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_tensor_on_a_gpu_must_be_moved_first(backend):
    if backend == "cpu":
        pytest.skip("is about tensors on a GPU")
    library("scipy")
    x = spcy.SparseTensor([[0, 1, 1]], np.ones((1, 1)), shape=(2, 2))
    with pytest.raises(TypeError, match=r"to_scipy needs a tensor on the CPU, got one on 'cuda': x.to\('cpu"):
        x.to_scipy()
    assert spcy.SparseTensor.from_scipy(x.to("cpu").to_scipy()).backend == "cuda"  # enters as arrays do


# PyTorch's


@pytest.mark.torch
def test_torch_coo_and_back(rng):
    torch = library("torch")
    import spcy.torch as st

    dense = torch.from_numpy(rng.standard_normal((2, 4, 5, 3)) * (rng.random((2, 4, 5, 1)) < 0.4))
    x = st.SparseTensor.from_coo(dense.to_sparse(3))
    np.testing.assert_array_equal(x.indices, spcy.SparseTensor.from_dense(dense.numpy()).indices)
    assert (x.shape, x.batch_size) == ((4, 5), 2)
    coo = x.to_coo()
    assert coo.is_coalesced()
    assert torch.equal(coo.to_dense(), dense)
    assert torch.equal(st.SparseTensor.from_coo(coo).features, x.features)


@pytest.mark.torch
def test_torch_coo_sums_entries_of_a_cell_and_has_gradients():
    torch = library("torch")
    import spcy.torch as st

    values = torch.tensor([[1.0], [2.0], [4.0]], requires_grad=True)
    coo = torch.sparse_coo_tensor([[0, 0, 0], [3, 1, 3]], values, (1, 5, 1), check_invariants=True)
    x = st.SparseTensor.from_coo(coo)
    assert x.indices.tolist() == [[0, 1], [0, 3]]
    (x.features * torch.tensor([[1.0], [10.0]])).sum().backward()
    assert values.grad.flatten().tolist() == [10, 1, 10]

    features = torch.tensor([[1.0], [2.0]], requires_grad=True)
    back = st.SparseTensor(torch.tensor([[0, 3], [0, 1]]), features, shape=(5,)).to_coo()
    assert not back.is_coalesced()
    assert back.to_dense()[0, :, 0].tolist() == [0, 2, 0, 1, 0]
    (back.to_dense() ** 2).sum().backward()
    assert features.grad.flatten().tolist() == [2, 4]


@pytest.mark.torch
def test_torch_coo_refuses():
    torch = library("torch")
    import spcy.torch as st

    from_coo = st.SparseTensor.from_coo
    with pytest.raises(TypeError, match=r"layout torch.sparse_coo, got torch.strided"):
        from_coo(torch.ones(1, 3, 1))
    with pytest.raises(TypeError, match="got ndarray"):
        from_coo(np.ones((1, 3, 1)))
    with pytest.raises(ValueError, match=r"got shape \(1, 3, 1\) with 0 dense axes"):
        from_coo(torch.ones(1, 3, 1).to_sparse())
    with pytest.raises(ValueError, match=r"no axis of length 0, got shape \(1, 0, 1\)"):
        from_coo(torch.ones(1, 0, 1).to_sparse(2))
    with pytest.raises(TypeError, match=r"features must have dtype float32, .* got torch.int64"):
        from_coo(torch.ones(1, 3, 1, dtype=torch.int64).to_sparse(2))
    with pytest.raises(ValueError, match="to_coo needs a shape"):
        st.SparseTensor(torch.tensor([[0, -1]]), torch.ones(1, 1)).to_coo()


# Columns of tables


def pandas_frame(values, names):
    return library("pandas").DataFrame(values, columns=names)


def nullable_frame(values, names):
    kind = {"f": "Float64", "i": "Int64", "b": "boolean"}[values.dtype.kind]
    return pandas_frame(values, names).astype(kind)


def arrow_frame(values, names):
    library("pyarrow")
    kind = {"f": "double", "i": "int64", "b": "bool"}[values.dtype.kind]
    return pandas_frame(values, names).astype(f"{kind}[pyarrow]")


def arrow_table(values, names):
    return library("pyarrow").table(dict(zip(names, values.T, strict=True)))


def xarray_array(values, names):
    return library("xarray").DataArray(values, dims=("row", "column"), coords={"column": names})


TABLES = [pandas_frame, nullable_frame, arrow_frame, arrow_table, xarray_array]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_tables_enter_as_arrays_do(table, rng):
    points = rng.uniform(0, 5, (200, 3))
    values = rng.standard_normal((200, 2))
    batch = rng.integers(0, 2, 200)
    x, rows, counts = spcy.voxelize(
        table(points, list("xyz")),
        1.0,
        features=table(values, ["a", "b"]),
        batch=column(table(batch[:, None], ["sweep"])),
    )
    expected = spcy.voxelize(points, 1.0, features=values, batch=batch)
    np.testing.assert_array_equal(x.indices, expected.tensor.indices)
    np.testing.assert_array_equal(x.features, expected.tensor.features)
    np.testing.assert_array_equal(rows, expected.rows)
    np.testing.assert_array_equal(counts, expected.counts)

    names = ["batch", *"xyz"]
    indices, features = table(x.indices.astype(np.int64), names), table(x.features, ["a", "b"])
    y = spcy.SparseTensor(indices, features)
    np.testing.assert_array_equal(y.indices, x.indices)
    np.testing.assert_array_equal(y.features, x.features)
    assert spcy.prune(y, column(table((x.features > 0)[:, :1], ["a"]))).num_sites < len(y.features)
    at = spcy.devoxelize(y, table(points, list("xyz")), batch=column(table(batch[:, None], ["sweep"])))
    assert at.shape == (200, 2)
    np.testing.assert_array_equal(y.rows_of(indices), np.arange(y.num_sites))


def column(table):
    """The only column of a table."""
    if hasattr(table, "isel"):
        return table.isel(column=0)
    return table[next(iter(getattr(table, "column_names", table.columns)))]


def test_missing_values_are_named_by_row():
    frame = nullable_frame(np.ones((3, 2)), list("xy"))
    frame.iloc[1, 0] = None
    with pytest.raises(ValueError, match=r"points must be finite, got \[nan, 1.0\] in row 1"):
        spcy.voxelize(frame, 1.0)


def test_columns_that_are_no_numbers_are_refused():
    frame = library("pandas").DataFrame({"x": [1.0, 2.0], "name": ["a", "b"]})
    with pytest.raises(TypeError, match="points must have dtype float32 or float64, got object"):
        spcy.voxelize(frame, 1.0)
    table = library("pyarrow").table({"x": [1.0, 2.0], "name": ["a", "b"]})
    with pytest.raises(TypeError, match="points must have dtype float32 or float64, got object"):
        spcy.voxelize(table, 1.0)
