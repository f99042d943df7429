"""Constants that code for spconv reads or sets."""

import os
from pathlib import Path

import torch

PACKAGE_NAME = "spconv"
PACKAGE_ROOT = Path(__file__).parent
PYTORCH_VERSION = [int(n) for n in torch.__version__.partition("+")[0].split(".")[:3] if n.isdigit()]
NDIM_DONT_CARE = 3
SPCONV_DEBUG_WEIGHT = False
CPU_ONLY_BUILD = True
"""That of ``spconv.cppconstants``: algorithms have no effect here, and "Native" is what code then takes."""
SAVED_WEIGHT_LAYOUT = os.environ.get("SPCONV_SAVED_WEIGHT_LAYOUT", "")
"""Layout of the weights in checkpoints that are loaded: "KRSC", that of 2.2 and later, if empty; "RSKC" of
2.0 and 2.1; "RSCK" of 1.x."""
ALL_WEIGHT_IS_KRSC = True
FILTER_HWIO = False
# Read or set by public code, without effect here:
SPCONV_USE_DIRECT_TABLE = True
SPCONV_ALLOW_TF32 = False
SPCONV_FX_TRACE_MODE = False
SPCONV_DO_SORT = True
SPCONV_INT8_DEBUG = False

if SAVED_WEIGHT_LAYOUT not in ("", "KRSC", "RSKC", "RSCK"):
    raise ValueError(
        "SPCONV_SAVED_WEIGHT_LAYOUT must be KRSC, RSKC or RSCK in the environment, "
        f"got {SAVED_WEIGHT_LAYOUT!r}"
    )
