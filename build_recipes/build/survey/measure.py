"""Run a command, and write what it took: ``python -I -S measure.py FILE COMMAND...``.

FILE gets CPU seconds and peak memory, KiB. Linux counts as a process's peak also what its parent held when it was
started: so it is this one, which is small, that starts the compiler.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
    _, status, usage = os.wait4(pid, 0)
    Path(sys.argv[1]).write_text(f"{usage.ru_utime + usage.ru_stime} {usage.ru_maxrss}")
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)
