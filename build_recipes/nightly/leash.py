"""Run as ``python leash.py RESULT PROGRAM WORDS...``: become PROGRAM, on a leash.

Two things a child of the night needs before it starts: its standard output (one JSON document) goes to the
file RESULT while its words stay on the pipe, and it gets Ctrl-C when the night dies in whatever way, so that
no build goes on unseen after a kill -9 and holds its tree.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind to the parent, send standard output to the file, and become the program."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job has it ignored, and hands that on
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != parent:  # the parent died before the leash was on
        raise SystemExit(130)
    result = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(result, 1)
    os.close(result)
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
