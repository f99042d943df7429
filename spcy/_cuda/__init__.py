"""The CUDA stages: the functions of `spcy._cpu` on device arrays. Imported only where CuPy is in use."""
