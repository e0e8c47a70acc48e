"""The error for what a person can put right, and how a full disk and a read-only folder are told from a defect."""

import errno

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


class InputError(Exception):
    """A message for the person who started the command.

    It names the file, row or parameter, what was expected, what was found and what to do.
    """


def failure(error: Exception) -> str:
    """An exception in one line, without the text that may have caused it."""
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}".rstrip(": ")
