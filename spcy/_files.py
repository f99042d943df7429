"""Files that appear whole or not at all.

Here, and where files are read, larger modules of Python are imported where they are used: importing spcy
would take a third longer.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system name what was asked for, not a hidden file beside it."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # NumPy's, of a write that ended early
            raise error if str(path) in str(error) else type(error)(f"{path}: {error}") from None
        raise OSError(error.errno, error.strerror, str(path)) from error


def require_writable(path: Path) -> None:
    """Raise OSError where no file can be made beside a path, before the work for it."""
    import tempfile

    with naming(path), tempfile.TemporaryFile(dir=path.parent):
        pass


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Give the path of a draft beside a file's place, which is moved there if all went well, else removed."""
    # threads and processes each have their own
    draft = path.with_name(f".{os.urandom(8).hex()}{path.suffix}")
    try:
        with naming(path):
            yield draft
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray], compressed: bool = False) -> None:
    """Write arrays to an npz file, whole or not at all."""
    with drafted(path) as draft, draft.open("xb") as file:
        write: Callable[..., None] = np.savez_compressed if compressed else np.savez
        write(file, **arrays)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with drafted(path) as draft:
        draft.write_bytes(content)


def is_panic(error: BaseException) -> bool:
    """Return whether an error is what libraries in Rust raise where they are wrong, which is no Exception."""
    return type(error).__name__ == "PanicException"
