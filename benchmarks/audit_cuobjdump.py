"""Our reader beside NVIDIA's cuobjdump on official wheels: the same (module, architecture, kind), counted.

    python benchmarks/audit_cuobjdump.py [0.12.0 0.33.0]

Exits with 1 where they differ.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from build_recipes.audit.subject import official
from build_recipes.formats import fatbin
from build_recipes.formats.elf import Elf
from build_recipes.formats.wheel import Wheel, is_module
from build_recipes.kit.paths import Places


def main() -> None:
    """Compare every module."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from cuobjdump import VERSION, cuobjdump, listing

    program, wrong = cuobjdump(), 0
    for version in sys.argv[1:] or ["0.12.0", "0.33.0"]:
        total, ours_s, theirs_s = Counter[tuple[str, str]](), 0.0, 0.0
        with Wheel(official(version, Places.from_environment())) as wheel:
            for name in filter(is_module, wheel.members):
                data = wheel.content(name).data
                started = time.monotonic()
                ours = Counter(
                    (e.kind, e.name.replace("compute_", "sm_")) for e in fatbin.read(Elf(data, name))
                )
                ours_s += time.monotonic() - started
                with tempfile.NamedTemporaryFile(suffix=".so") as file:
                    file.write(data)
                    file.flush()
                    started = time.monotonic()
                    theirs = listing(program, Path(file.name))
                    theirs_s += time.monotonic() - started
                same = ours == theirs
                wrong += not same
                total += ours
                print(
                    f"{version:8} {name:48} {sum(ours.values()):5} entries {'same' if same else 'DIFFERENT'}"
                )
                if not same:
                    print(f"  only ours {ours - theirs}, only cuobjdump's {theirs - ours}")
        print(f"{version:8} all: {sum(total.values())} entries, {len(total)} kinds and architectures")
        print(f"{version:8} reading them took {ours_s:.2f} s here, {theirs_s:.1f} s in cuobjdump {VERSION}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
