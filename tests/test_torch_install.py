"""spcy under the names of other libraries, for code that nobody edits."""

import subprocess
import sys
import types

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
import spcy.torch  # noqa: E402
from spcy.torch.__main__ import main as run_script  # noqa: E402

pytestmark = pytest.mark.torch

SPCONV = """
import spconv, spconv.pytorch as sp, spconv.utils, spconv.constants, spconv.core
import cumm.tensorview as tv
from cumm import tensorview
from spconv.core import AlgoHint, ConvAlgo
from spconv.constants import ALL_WEIGHT_IS_KRSC, SAVED_WEIGHT_LAYOUT, SPCONV_DEBUG_WEIGHT
from spconv.cppconstants import CPU_ONLY_BUILD
from spconv.debug_utils import spconv_save_debug_data
from spconv.tools import CUDAKernelTimer
from spconv.pytorch.constants import PYTORCH_VERSION
from spconv.pytorch.hash import HashTable
from spconv.pytorch import functional as Fsp, ops, SparseConv3d, SparseConvTensor
from spconv.pytorch.conv import SparseConvolution, DEFAULT_SPARSE_CONV_TYPES
from spconv.pytorch.core import ImplicitGemmIndiceData, IndiceData
from spconv.pytorch.modules import SparseModule, is_spconv_module
from spconv.pytorch.utils import PointToVoxel, gather_features_by_pc_voxel_id
from spconv.utils import Point2VoxelCPU3d, VoxelGeneratorV2
assert float(spconv.__version__[2:]) >= 2.2
spconv.constants.SPCONV_USE_DIRECT_TABLE = False
assert sp.conv.SparseConvolution is SparseConvolution and tv is tensorview
assert CPU_ONLY_BUILD and PYTORCH_VERSION >= [1, 6, 0] and sp.hash.HashTable is HashTable
with CUDAKernelTimer(False).namespace("layer"):
    assert Fsp.indice_subm_conv and ops.indice_conv and ops.indice_maxpool
assert sp.SubMConv3d.__module__ == "spcy.torch.spconv.conv", sp.SubMConv3d.__module__
"""
MINKOWSKI = """
import MinkowskiEngine as ME, MinkowskiEngine.MinkowskiFunctional as MF, MinkowskiEngine.MinkowskiOps as me
from MinkowskiEngine import SparseTensor, MinkowskiNetwork, utils
from MinkowskiEngine.modules.resnet_block import BasicBlock, Bottleneck
from MinkowskiEngine.utils.quantization import sparse_quantize
from MinkowskiEngineBackend._C import CoordinateMapKey, RegionType
from MinkowskiCommon import convert_to_int_list
from MinkowskiPooling import MinkowskiMaxPooling
assert ME.SparseTensor is SparseTensor and MF.relu and me.cat is ME.cat
assert ME.MinkowskiConvolution(1, 1, 3, dimension=1)
assert MinkowskiMaxPooling.__module__ == "spcy.torch.minkowski.pool" and ME.__version__ == "0.5.4"
"""
TORCHSPARSE = """
import torch, torchsparse
import torchsparse.nn as spnn
import torchsparse.nn.functional as F
import torchsparse.backbones
from torchsparse import PointTensor, SparseTensor, nn as again
from torchsparse.utils.quantize import sparse_quantize
from torchsparse.utils.collate import sparse_collate, sparse_collate_fn
from torchsparse.nn.utils import get_kernel_offsets, fapply
from torchsparse.nn.functional.devoxelize import calc_ti_weights
from torchsparse.utils.tensor_cache import TensorCache
from torchsparse.tensor import PointTensor
from torchsparse.utils import *
from torchsparse.nn.utils import *
torchsparse.backends.allow_tf32 = False
torchsparse.backends.hash_rsv_ratio = 4
torchsparse.backends.benchmark = True
assert again is spnn and spnn.functional is F and make_ntuple(1, 2) == (1, 1)
assert SparseTensor is torchsparse.tensor.SparseTensor is torchsparse.SparseTensor
assert F.calc_ti_weights is calc_ti_weights and spnn.Conv3d is spnn.modules.conv.Conv3d
coords = torch.tensor([[2, 3, 4, 0]], dtype=torch.int32)
y = spnn.Conv3d(1, 2, 2, stride=2)(SparseTensor(torch.ones(1, 1), coords))
print(torchsparse.__version__, y.C.tolist(), spnn.Conv3d.__module__)
"""


def python(*arguments, cwd=None):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd)


def test_install():
    """What is there under each name; some of it twice.

    PyTorch's compiler, which takes as long to import as PyTorch, is left alone. Loaders of data have the
    `next` of MinkowskiEngine's time.
    """
    code = f"""
import doctest, sys, torch, spcy.torch
assert doctest.testmod(spcy.torch._install) == (0, 4)
for _ in range(2): spcy.torch.install()
{SPCONV}
loader = torch.utils.data.DataLoader([3, 4])
assert not hasattr(iter(loader), "next")
for _ in range(2): spcy.torch.install("MinkowskiEngine")
rows = iter(loader)
assert rows.next() == torch.tensor([3]) and rows.next() == torch.tensor([4])
try: rows.next()
except StopIteration: print("end")
{MINKOWSKI}
for version in (None, "2.1", "1.4"):
    spcy.torch.install("torchsparse", version)
    exec({TORCHSPARSE!r}, {{}})
assert "torch._dynamo" not in sys.modules
"""
    out = python("-W", "error", "-c", code)
    two = "2.1.0 [[2, 1, 2, 0]] spcy.torch.torchsparse.nn.modules.conv"
    one = "1.4.0 [[2, 2, 4, 0]] spcy.torch.torchsparse.v1"
    assert out.stdout.splitlines() == ["end", two, two, one], out.stderr


def test_a_script_runs_on_spcy(tmp_path):
    (tmp_path / "helper.py").write_text("import spconv.pytorch\n")
    code = f"import helper, sys\n{SPCONV}{MINKOWSKI}print(*sys.argv[1:])"
    (tmp_path / "train.py").write_text(code)
    out = python("-m", "spcy.torch", str(tmp_path / "train.py"), "--epochs", "3")
    assert out.stdout == "--epochs 3\n", out.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["none.py"], "python -m spcy.torch: SCRIPT must be a file, got none.py"), ([], 2), (["--help"], 0)],
    ids=["no file", "nothing", "help"],
)
def test_what_no_script_can_be_run_of(arguments, code, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["spcy.torch", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_script()
    assert ended.value.code == code
    assert ("usage: python -m spcy.torch SCRIPT" in capsys.readouterr().out) == (code in (0, 2))


def test_install_refuses_what_is_imported(monkeypatch):
    theirs = types.ModuleType("spconv")
    theirs.__file__ = "/here/spconv/__init__.py"
    monkeypatch.setitem(sys.modules, "spconv", theirs)
    before = sys.modules.get("cumm")  # the real one, where another test has imported it
    with pytest.raises(RuntimeError, match=r"spconv is imported already, from .*/here.*anything imports it"):
        spcy.torch.install()
    assert sys.modules.get("cumm") is before


def test_install_refuses_other_versions():
    with pytest.raises(ValueError, match=r"version must be one of '2\.1', '1\.4', got '0\.9'"):
        spcy.torch.install("torchsparse", version="0.9")
    with pytest.raises(ValueError, match="version must be left out for 'spconv'"):
        spcy.torch.install("spconv", version="1.2")
