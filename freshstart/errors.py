"""The error for what a person can put right, and how a full disk is told apart from a defect."""

import errno

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class InputError(Exception):
    """A message for the person who started the command.

    It names the file, row or parameter, what was expected, what was found and what to do.
    """
