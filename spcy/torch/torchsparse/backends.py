"""Flags that code sets: accepted, without effect."""

import torch

benchmark = False
allow_tf32 = True
allow_fp16 = True
hash_rsv_ratio = 2
device_capability = 0


def init() -> None:
    """Look at the GPU, if there is one."""
    global device_capability
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        device_capability = 100 * major + 10 * minor
