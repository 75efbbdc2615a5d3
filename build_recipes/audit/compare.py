"""Two audits side by side: what one wheel has and the other lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from build_recipes.audit.audit import Audit
from build_recipes.audit.findings import stem


@dataclass(frozen=True)
class Difference:
    """What two wheels do not share; the first list is only in ``a``, the second only in ``b``."""

    modules: tuple[list[str], list[str]]
    families: tuple[list[str], list[str]]
    targets: tuple[list[str], list[str]]
    """``module: sm_110f``."""
    ops: tuple[list[str], list[str]]
    sizes: dict[str, tuple[int, int]]
    """Part to its packed bytes in each."""


def compare(a: Audit, b: Audit) -> Difference:
    """What differs between two audited wheels. Modules are matched by name (``_C`` of any ABI)."""

    def both(pick: Callable[[Audit], Iterable[str]]) -> tuple[list[str], list[str]]:
        first, second = set(pick(a)), set(pick(b))
        return sorted(first - second), sorted(second - first)

    parts = {stem(part) if ".so" in part else part for audit in (a, b) for part in audit.parts}
    sizes = {part: (_bytes(a, part), _bytes(b, part)) for part in parts}
    return Difference(
        modules=both(lambda audit: (stem(module.path) for module in audit.modules)),
        families=both(lambda audit: {f for m in audit.modules for u in m.units for f in u.families}),
        targets=both(lambda audit: {f"{stem(m.path)}: {target}" for m in audit.modules for target in m.code}),
        ops=both(lambda audit: {op for module in audit.modules for op in module.ops}),
        sizes=dict(sorted(sizes.items(), key=lambda row: -max(row[1]))),
    )


def _bytes(audit: Audit, part: str) -> int:
    return sum(size for name, size in audit.parts.items() if (stem(name) if ".so" in name else name) == part)
