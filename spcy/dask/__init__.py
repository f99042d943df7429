"""Networks over points that do not fit one machine: tiles on Dask's workers, with the bits of the whole.

``pip install "spcy[dask]"``.
"""

try:
    from .files import LabelledFiles, label_files
    from .predict import predict
    from .volume import label_volume
except ImportError as error:
    raise ImportError(f'spcy.dask needs Dask: pip install "spcy[dask]" ({error})') from error

__all__ = ["LabelledFiles", "label_files", "label_volume", "predict"]
