"""Ends what Ray leaves behind where its driver was killed: agents that live on for a minute, with memory and ports.

    python -m freshstart.reaper <folder of Ray's session>

Waits for the end of its standard input, a pipe that the driver alone holds open, then ends the processes of Ray that
have a file of the session open, their logs.
"""

import sys
from contextlib import suppress

import psutil


def main() -> None:
    session = f"{sys.argv[1]}/"
    sys.stdin.read()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.name().startswith("ray::") and any(
                file.path.startswith(session) for file in process.open_files()
            ):
                process.kill()


if __name__ == "__main__":
    main()
