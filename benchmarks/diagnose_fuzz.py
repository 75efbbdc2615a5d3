"""Mutated logs through `diagnose`: none may end in anything but a diagnosis.

    python benchmarks/diagnose_fuzz.py [LOGS] [SEED]

Lines of the signatures' samples, of the grammar's tools and of the real logs in ``tests/logs`` are cut, joined,
doubled, shuffled, put behind prefixes, and have bytes changed.
"""

from __future__ import annotations

import random
import sys
import time
import traceback
from pathlib import Path

from build_recipes.diagnosis.diagnose import diagnose
from build_recipes.diagnosis.signatures import known

LOGS = Path(__file__).parent.parent / "tests" / "logs"
PREFIXES = (
    b"", b"", b"(EngineCore pid=402) ERROR 08-27 09:14:31 [core.py:1189] ", b"[rank0]: ", b"#12 3.245 ",
    b"vllm-1  | ",    b"2026-11-26T08:10:11.1234567Z ", b"Nov 26 08:10:11 host vllm[812]: ",
    b"      \xe2\x94\x82 ", b"\x1b[31m", b"##[error]",
)  # fmt: skip
PARTS = (
    b"Traceback (most recent call last):", b'  File "/x/site-packages/flashinfer/jit/core.py", line 7, in f',
    b"    f(x)",
    b"During handling of the above exception, another exception occurred:", b"FAILED: [code=1] a.cu.o", b"",
    b"The above exception was the direct cause of the following exception:",
    b"CMake Error at CMakeLists.txt:3 (message):",
    b"ninja: build stopped: subcommand failed.", b"  | ExceptionGroup: x (1 sub-exception)", b"\x1b]0;title\x07",
    b"\xff\xfe\x00",
)  # fmt: skip


def mutate(chance: random.Random, lines: list[bytes]) -> list[bytes]:
    """One log."""
    log = []
    for _ in range(chance.randint(1, 14)):
        line = bytearray(chance.choice(PREFIXES) + chance.choice(lines if chance.random() < 0.7 else PARTS))
        for _ in range(chance.choice((0, 0, 0, 1, 4))):
            if line:
                at = chance.randrange(len(line))
                line[at : at + chance.choice((0, 1, 20))] = bytes([chance.randrange(256)]) * chance.choice(
                    (1, 1, 50)
                )
        log.append(bytes(line[: chance.choice((4000, 4000, 40))]))
    return log


def main() -> None:
    """Run, and print a line."""
    logs = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    chance = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    lines = [rule.signature.sample.encode() for rule in known()]
    lines += [line for path in sorted(LOGS.glob("*.log")) for line in path.read_bytes().split(b"\n")]
    states: dict[str, int] = {}
    failed, slowest = 0, 0.0
    began = time.process_time()
    for _ in range(logs):
        log = mutate(chance, lines)
        started = time.process_time()
        try:
            state = diagnose(log).state
        except Exception:
            failed += 1
            state = "traceback"
            if failed < 4:
                traceback.print_exc()
                print(log)
        slowest = max(slowest, time.process_time() - started)
        states[state] = states.get(state, 0) + 1
    took = time.process_time() - began
    print(f"{logs} logs, {failed} tracebacks, {took:.0f} s CPU, slowest {slowest * 1000:.0f} ms: {states}")


if __name__ == "__main__":
    main()
