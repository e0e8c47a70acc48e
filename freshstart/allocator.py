"""Keep what the C library's allocator gave back: large arrays of every step then lie in memory that is already mapped.

By default glibc asks the system for each large array anew and gives it back when it is freed; its pages are
then faulted in again, which took a third of a step of a small model on a CPU. Costs the memory of the largest step.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE = (1 << 30, 32 << 20)  # older versions of glibc take 32 MiB at most


def keep_memory() -> None:
    """Set the thresholds for this process; does nothing where the C library is another one."""
    try:
        library = ctypes.CDLL("libc.so.6")
        mallopt = library.mallopt
    except (OSError, AttributeError):
        return
    for most in _LARGE:
        if mallopt(_MMAP_THRESHOLD, most):
            break
    mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
