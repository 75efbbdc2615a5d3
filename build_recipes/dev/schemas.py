"""JSON schemas of the project's TOML files, made from the models that read them.

    .venv/bin/python -m build_recipes.dev.schemas      # after a model was changed

Each file's first line names its schema (``#:schema``), so that an editor with Taplo (VS Code's "Even Better TOML",
and others) completes keys, shows what they mean and underlines what the program would refuse.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from build_recipes.audit.families import FamilyTable
from build_recipes.build.disk import _Sizes
from build_recipes.build.units import costs
from build_recipes.delivery import building, companions, image, settings
from build_recipes.diagnosis import grammar, prefix, signatures
from build_recipes.doctor.tables import Tables
from build_recipes.facts import architectures, device, versions
from build_recipes.formats import abi
from build_recipes.kit.paths import PROJECT
from build_recipes.nightly.config import Config
from build_recipes.patching import series, trees
from build_recipes.qualify.ops import Foreign
from build_recipes.sources import rust
from build_recipes.sources.mirrors import Configuration
from build_recipes.specialise.choose import Nothing
from build_recipes.specialise.toolkit import Row
from build_recipes.toolchain.distro import Needs
from build_recipes.verify import packages
from build_recipes.verify.judge.suggest import Counts

FOLDER = PROJECT / "docs/schemas"
HEAD = "#:schema "
OWN = "armory"
"""The schema of the user's own armory.toml, of which there is none in the project."""

MODELS: dict[str, Any] = {
    "build_recipes/audit/families.toml": FamilyTable,
    "build_recipes/build/units/costs.toml": costs.Table,
    "build_recipes/build/sizes.toml": _Sizes,
    "build_recipes/delivery/companions.toml": companions.Facts,
    "build_recipes/delivery/image.toml": image.Bases,
    "build_recipes/delivery/recipes.toml": dict[str, building.Recipe],
    "build_recipes/delivery/settings.toml": dict[str, settings.Memory],
    "build_recipes/diagnosis/endings.toml": grammar._Endings,
    "build_recipes/diagnosis/failures/*.toml": signatures._Document,
    "build_recipes/diagnosis/families.toml": dict[str, grammar.Family],
    "build_recipes/diagnosis/grammar.toml": grammar._Grammar,
    "build_recipes/diagnosis/prefixes.toml": prefix._Document,
    "build_recipes/diagnosis/python.toml": grammar._Python,
    "build_recipes/doctor/doctor.toml": Tables,
    "build_recipes/facts/architectures.toml": architectures._Table,
    "build_recipes/facts/devices.toml": dict[str, device.Device],
    "build_recipes/facts/vllm.toml": versions.VllmFacts,
    "build_recipes/formats/abi.toml": abi.System,
    "build_recipes/nightly/*.toml": Config,
    "build_recipes/qualify/ops.toml": Foreign,
    "build_recipes/sources/rust.toml": rust._Table,
    "build_recipes/specialise/nothing.toml": Nothing,
    "build_recipes/specialise/toolkits.toml": dict[str, list[Row]],
    "build_recipes/toolchain/distro.toml": Needs,
    "build_recipes/verify/judge/matrix.toml": Counts,
    "build_recipes/verify/packages.toml": packages.Packages,
    "patches/sdists.toml": trees._Sdists,
    "patches/series.toml": series.Series,
}
"""Files to the model that reads them. Locks are not here: they are made, and sealed by a digest."""


def name_of(pattern: str) -> str:
    """The schema's name: ``diagnosis-failures``, ``facts-devices``."""
    parts = Path(pattern.replace("/*.toml", ".toml")).with_suffix("").parts
    return "-".join(part for part in parts if part != "build_recipes")


def files() -> Iterator[tuple[Path, str, Any]]:
    """Every file with its schema's name and its model."""
    for pattern, model in MODELS.items():
        for path in sorted(PROJECT.glob(pattern)):
            yield path, name_of(pattern), model


def head_of(path: Path, name: str) -> str:
    """The first line of a file that has a schema."""
    return f"{HEAD}{os.path.relpath(FOLDER / f'{name}.json', path.parent)}"


def schema(model: Any) -> str:
    """A model's JSON schema, its fields described by their docstrings."""
    (found,), parts = msgspec.json.schema_components([model], ref_template="#/$defs/{name}")
    for kind in _structs(model):
        for field, said in _docstrings(kind).items():
            row = parts.get(kind.__name__, {}).get("properties", {}).get(field)
            if row is not None:
                row.setdefault("description", said)
    whole = {"$schema": "http://json-schema.org/draft-07/schema#", **found, "$defs": parts}
    return json.dumps(_draft_7(whole), indent=1) + "\n"


def _draft_7(part: Any) -> Any:
    """msgspec writes 2020-12; editors read draft 7, in which a tuple is written in another way."""
    if isinstance(part, list):
        return [_draft_7(one) for one in part]
    if not isinstance(part, dict):
        return part
    if "prefixItems" in part:
        first, rest = part["prefixItems"], part.get("items", True)
        part = {key: one for key, one in part.items() if key != "prefixItems"}
        part |= {"items": first, "additionalItems": rest}
    return {key: _draft_7(one) for key, one in part.items()}


def _structs(model: Any) -> Iterator[type]:
    """The struct types that a model is made of."""
    seen: set[type] = set()
    open_: list[Any] = [msgspec.inspect.type_info(model)]
    while open_:
        info = open_.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in seen:
                continue
            seen.add(info.cls)
            yield info.cls
            open_ += [field.type for field in info.fields]
        for name in ("item_type", "key_type", "value_type", "item_types", "types"):
            more = getattr(info, name, ())
            open_ += list(more) if isinstance(more, tuple) else [more]


def _docstrings(kind: type) -> dict[str, str]:
    """The texts that stand below the fields of a class."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in itertools.pairwise(body.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def write() -> list[Path]:
    """Write all schemas and the files' first lines. Returns what was changed."""
    wanted = {name_of(pattern): schema(model) for pattern, model in MODELS.items()}
    wanted[OWN] = schema(Configuration)
    changed = []
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in wanted.items():
        target = FOLDER / f"{name}.json"
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
            changed.append(target)
    for path, name, _ in files():
        text = path.read_text()
        head = head_of(path, name)
        if not text.startswith(f"{head}\n"):
            rest = text.partition("\n")[2] if text.startswith(HEAD) else text
            path.write_text(f"{head}\n{rest}")
            changed.append(path)
    return changed


if __name__ == "__main__":
    sys.stdout.writelines(f"{path.relative_to(PROJECT)}\n" for path in write())
