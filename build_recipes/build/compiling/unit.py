"""Compiler launcher: asks the broker for leave, runs one compiler, reports what it cost.

CMake puts this before every compiler command. It starts for every unit, so it imports little and runs as
``python -I -S unit.py compiler...``. Outside of a build (``ARMORY_BROKER`` unset) it becomes the compiler.
If the broker goes away while the compiler runs (a kill -9, a power button), the compiler is ended too: nothing
is left behind that writes into the build tree.
"""

import json
import os
import select
import signal
import socket
import sys
import time


def main() -> int:
    argv = sys.argv[1:]
    address = os.environ.get("ARMORY_BROKER")
    output = argv[argv.index("-o") + 1] if "-o" in argv[:-1] else ""
    if not address or not output.endswith(".o"):
        os.execvp(argv[0], argv)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # a socket's path has at most 107 bytes; by way of the folder's descriptor a tree may be anywhere
        folder = os.open(os.path.dirname(address), os.O_RDONLY | os.O_DIRECTORY)
        link.connect(f"/proc/self/fd/{folder}/{os.path.basename(address)}")
        os.close(folder)
    except OSError:
        return 75  # the build has ended: to compile now, unasked, would be a compiler too many
    _send(link, {"ask": output, "pid": os.getpid()})
    if not link.recv(16):  # blocks until there is room; empty when the broker is gone or wants no more
        return 75
    statistics = f"{output}.{os.getpid()}.ccache"
    environment = dict(os.environ, CCACHE_STATSLOG=os.path.join(os.getcwd(), statistics))
    started = time.monotonic()
    pid = os.posix_spawnp(argv[0], argv, environment)
    _wait(link, pid)
    _, status, usage = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    report = {
        "done": output,
        "code": code,
        "wall_s": round(time.monotonic() - started, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "rss_kib": usage.ru_maxrss,
        "cached": _was_cached(statistics),
        **(_evidence(output) if code == 0 else {}),
    }
    try:
        _send(link, report)
        link.recv(16)  # the report is on disk before ninja hears that the unit is done
    except OSError:
        pass
    return code if code >= 0 else 128 - code


def _send(link: socket.socket, message: "dict[str, object]") -> None:
    link.sendall(json.dumps(message).encode() + b"\n")


def _wait(link: socket.socket, pid: int) -> None:
    """Wait for the child's end; end everything if the broker closes the connection first."""
    child = os.pidfd_open(pid)
    readable, _, _ = select.select([link.fileno(), child], [], [])
    os.close(child)
    if child not in readable:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        time.sleep(1)
        os.killpg(0, signal.SIGKILL)


def _evidence(output: str) -> "dict[str, object]":
    """Size and hash of what the compiler wrote: before a link, the object must still have them."""
    import hashlib

    digest = hashlib.sha256()
    size = 0
    try:
        with open(output, "rb", buffering=0) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
    except OSError:
        return {}
    return {"output": output, "size": size, "sha256": digest.hexdigest()}


def _was_cached(statistics: str) -> bool:
    """Whether ccache answered from its cache (its own per-call statistics say so)."""
    try:
        with open(statistics) as lines:
            text = lines.read()
        os.unlink(statistics)
    except OSError:
        return False
    return "cache_hit" in text


if __name__ == "__main__":
    sys.exit(main())
