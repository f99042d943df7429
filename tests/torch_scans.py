"""A data set that computes in its worker, importable there."""

import torch
from torch import nn

import spcy
import spcy.torch.spconv as spconv


class Scans(torch.utils.data.Dataset):
    """Voxels and a convolution, made in the worker."""

    def __init__(self):
        self.layer = spconv.SubMConv3d(3, 4, 3, indice_key="a")

    def __len__(self):
        return 4

    def __getitem__(self, item):
        points = torch.rand(200, 3, generator=torch.Generator().manual_seed(item))
        voxels, indices, counts = spconv.utils.PointToVoxel([0.1] * 3, [0, 0, 0, 1, 1, 1], 3, 500, 4)(points)
        indices = nn.functional.pad(indices, (1, 0))
        x = spconv.SparseConvTensor(voxels.sum(1) / counts[:, None], indices, [10] * 3, 1)
        with torch.no_grad():
            return self.layer(x).features, spcy.get_num_threads()
