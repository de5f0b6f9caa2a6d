"""Memory of large tensors that the process keeps for the next ones, where the C library is glibc."""

import ctypes
import os

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # parameters of glibc's mallopt
_LARGE, _LARGEST = 1 << 30, 2**31 - 1  # bytes
_OLDER = 1 << 25  # the most that glibc before 2.35 takes as the first of them


def keep_memory() -> None:
    """For the whole process: blocks of up to a gigabyte are used again instead of going back to the system.

    Otherwise glibc asks the system for each block above 32 MB anew, and touching its new pages takes up to a third of
    an evaluation. Changes no number. Does nothing with another C library, or where the environment has settings of
    glibc's malloc (MALLOC_..., GLIBC_TUNABLES).
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    try:
        libc = ctypes.CDLL(None)
        set_option, _ = libc.mallopt, libc.gnu_get_libc_version
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    if not set_option(_MMAP_THRESHOLD, _LARGE):
        set_option(_MMAP_THRESHOLD, _OLDER)
    set_option(_TRIM_THRESHOLD, _LARGEST)
