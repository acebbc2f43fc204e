"""PEM text as a file that OpenSSL can open, since `ssl` loads private keys from paths only."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

from .errors import PEMError

__all__ = ["openable"]


@contextlib.contextmanager
def openable(data: bytes, path: str | None, what: str) -> Iterator[str]:
    """Yield the path of a file that holds `data`, in memory if that is possible.

    Otherwise it is `path`, from which `data` was just read, or without one a file in a private
    folder. Raises `PEMError`, which names `what`, if nothing can be written anywhere.
    """
    descriptor = _in_memory(data)
    if descriptor is not None:
        try:
            yield _path_of(descriptor)
        finally:
            os.close(descriptor)
    elif path is not None:  # do not copy a key to another file
        yield path
    else:
        with contextlib.ExitStack() as stack:
            try:
                folder = tempfile.TemporaryDirectory(prefix="sealwire-")  # mode 0700
                path = os.path.join(stack.enter_context(folder), "identity.pem")
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(data)
            except OSError as error:
                raise PEMError(
                    f"cannot use {what}: OpenSSL reads it from a file, which can be written "
                    f"neither in memory nor in a temporary folder ({error.strerror or error}); "
                    "mount /proc, set TMPDIR to a folder that can be written to, and do not limit "
                    "the size of files (ulimit -f)"
                ) from error
            yield path


def _path_of(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _in_memory(data: bytes) -> int | None:
    try:
        # Fails if the kernel or the C library is too old, or /proc is not mounted.
        descriptor = os.memfd_create("sealwire", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        return None
    try:
        with open(descriptor, "wb", closefd=False) as memory:
            memory.write(data)
        if os.path.exists(_path_of(descriptor)):
            return descriptor
    except OSError:  # `ulimit -f` counts for memory, too
        pass
    os.close(descriptor)
    return None
