"""What a compiler reads: installed as `spcy._native`, for the kernels compiled at run time."""
