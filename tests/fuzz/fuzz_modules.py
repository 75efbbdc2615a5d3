"""Many mutated modules through the rewriter: ``python tests/fuzz/fuzz_modules.py 100000 [SEED]``.

Half of the mutations hit the ELF header, program headers and section headers, a quarter the device code's own
headers and wrappers. Prints what became of them; ends with 1 at the first that is neither rewritten nor refused.
"""

from __future__ import annotations

import random
import sys
import traceback
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from readers import rewrite_module

from build_recipes.formats.elf import Elf

DATA = Path(__file__).parent.parent / "data" / "specialise"


def regions(data: bytes) -> list[tuple[int, int]]:
    """Places that matter: headers twice, device code and wrappers, anywhere."""
    elf = Elf(data)
    named = {one.name: one for one in elf.sections}
    table = int.from_bytes(data[40:48], "little")
    headers = [(0, 64 + 56 * 10), (table, len(data))]
    code = [
        (named[name].offset, named[name].offset + 200)
        for name in (".nv_fatbin", ".nvFatBinSegment", ".rela.dyn")
    ]
    return [*headers, *headers, *code, (0, len(data))]


def run(count: int, seed: int) -> Counter[str]:
    """Mutate and rewrite ``count`` times."""
    chance, found = random.Random(seed), Counter[str]()
    seeds = [(path.read_bytes(), regions(path.read_bytes())) for path in sorted(DATA.glob("*.so"))]
    for number in range(count):
        good, places = chance.choice(seeds)
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            low, high = chance.choice(places)
            at = chance.randrange(low, min(high, len(data)))
            data[at : at + 1] = bytes([chance.choice([chance.randrange(256), 0, 255, data[at] ^ 1])])
        if chance.random() < 0.05:
            del data[chance.randrange(len(data)) :]
        try:
            found[rewrite_module(bytes(data))] += 1
        except Exception:
            traceback.print_exc()
            Path(f"/tmp/fuzz-module-{seed}-{number}.so").write_bytes(data)
            found["TRACEBACK"] += 1
    return found


if __name__ == "__main__":
    total = run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 15)
    print(", ".join(f"{count} {what}" for what, count in total.most_common()))
    sys.exit(1 if total["TRACEBACK"] else 0)
