"""Do the imports of vLLM's own modules, among each other, resolve in a wheel? Read, not run: verify's resolver."""

from __future__ import annotations

from pathlib import Path

from build_recipes.kit.paths import Places
from build_recipes.verify.judge.answers import FOUND, NO_MODULE, NO_NAME
from build_recipes.verify.judge.resolve import Resolver
from build_recipes.verify.read.model import ALWAYS, IMPORT
from build_recipes.verify.read.store import Store
from build_recipes.verify.read.tree import open_tree


def unresolved(wheel: Path, places: Places) -> dict[str, list[str]]:
    """What some module of a wheel's vllm imports in any case and is not in the wheel, with the modules that do.

    :returns: ``vllm.x`` or ``vllm.x:name`` to the importing modules, sorted.
    """
    tree = open_tree(wheel, "vllm", Store(places.cache / "compat" / "parsed.sqlite"))
    asked, found = Resolver(tree), dict[str, set[str]]()
    for module, path in tree.modules.items():
        surface = tree.surface(module) if path else None
        for entry in surface.names.values() if surface is not None else ():
            if entry.kind != IMPORT or entry.when != ALWAYS:
                continue
            source, _, name = entry.target.partition(":")
            source = asked.absolute(source, module)
            if source.partition(".")[0] != "vllm":
                continue
            answer = asked.exists(source)
            if answer.status == FOUND and name and f"{source}.{name}" not in tree.modules:
                answer = asked.defined(source, name)
            if answer.status in (NO_MODULE, NO_NAME):
                found.setdefault(f"{source}:{name}" if name else source, set()).add(module)
    return {target: sorted(modules) for target, modules in sorted(found.items())}
