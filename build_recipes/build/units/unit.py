"""Compiler launcher: asks the broker for leave, runs one compiler, reports what it cost.

CMake puts this before every compiler command. It starts for every unit, so it imports little and runs as
``python -I -S unit.py compiler...``. Outside of a build (``ARMORY_BROKER`` unset) it becomes the compiler.
If the broker goes away while the compiler runs (a kill -9, a power button), the compiler is ended too: nothing
is left behind that writes into the build tree.

The compiler sees no path of the tree, only paths relative to it (`portable`): what it writes is then the same in every
folder, for every user, with a compiler cache or without one.
"""

import json
import os
import re
import select
import signal
import socket
import sys
import time

ENVIRONMENT = dict(os.environ, PWD="/proc/self/cwd")
"""GCC writes ``PWD`` into debug information, where it is this folder (as Bazel has it)."""


def portable(argv: "list[str]", tree: str) -> "list[str]":
    """A compiler's command with paths relative to this folder in place of those of the tree.

    nvcc makes the names of anonymous entities from the real path of the source, which it finds itself; cudafe++, which
    makes them, takes the last path that it is told.

    :param tree: the build tree; this folder is directly in it, else the command stays as it is.
    """
    if not os.path.samefile(tree, os.pardir):
        return argv
    here = "|".join(re.escape(path) for path in {tree, os.path.realpath(tree)})
    words = [re.sub(rf"(^|^-[A-Za-z]+|[=:,;])(?:{here})(?=[/:,;]|$)", r"\1..", word) for word in argv]
    if "-c" in words[:-1] and any(os.path.basename(word) == "nvcc" for word in words[:2]):
        words += ["-Xcudafe", "--orig_src_path_name=" + words[words.index("-c") + 1]]
    return words


def main() -> int:
    argv = portable(sys.argv[1:], os.path.dirname(os.path.abspath(__file__)))
    address = os.environ.get("ARMORY_BROKER")
    output = argv[argv.index("-o") + 1] if "-o" in argv[:-1] else ""
    if not address or not output.endswith(".o"):
        os.execvpe(argv[0], argv, ENVIRONMENT)
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
    environment = dict(ENVIRONMENT, CCACHE_STATSLOG=os.path.join(os.getcwd(), statistics))
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
