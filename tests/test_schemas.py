"""Editors see what the program reads: each TOML file names its schema, fits its model, and the schemas are today's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from build_recipes.dev import schemas
from build_recipes.kit.data import load_toml
from build_recipes.kit.errors import BadData
from build_recipes.kit.paths import PROJECT
from build_recipes.sources.mirrors import Configuration

FILES = list(schemas.files())


def test_every_toml_file_of_the_project_has_a_model() -> None:
    """But locks, which are made, and what other programs read (pyproject.toml)."""
    listed = subprocess.run(
        ["git", "ls-files", "-c", "-o", "--exclude-standard", "build_recipes/*.toml", "patches/*.toml"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    ours = {name for name in listed if "/locks/" not in name and not name.endswith("/pyproject.toml")}
    assert ours == {str(path.relative_to(PROJECT)) for path, _, _ in FILES}


@pytest.mark.parametrize(
    ("path", "name", "model"), FILES, ids=[str(path.relative_to(PROJECT)) for path, _, _ in FILES]
)
def test_a_file_names_its_schema_and_fits_its_model(path: Path, name: str, model: Any) -> None:
    first = path.read_text().partition("\n")[0]
    assert first == schemas.head_of(path, name), "python -m build_recipes.dev.schemas"
    assert (path.parent / first.removeprefix(schemas.HEAD)).resolve() == schemas.FOLDER / f"{name}.json"
    load_toml(path, model)


@pytest.mark.parametrize(("name", "model"), [*{(name, str(model)): (name, model) for _, name, model in FILES}.values(),
                                             (schemas.OWN, Configuration)])  # fmt: skip
def test_a_schema_is_what_the_model_is_today(name: str, model: Any) -> None:
    made = (schemas.FOLDER / f"{name}.json").read_text()
    assert made == schemas.schema(model), "python -m build_recipes.dev.schemas"


def test_no_schema_is_left_over() -> None:
    assert {path.stem for path in schemas.FOLDER.iterdir()} == {name for _, name, _ in FILES} | {schemas.OWN}


def test_a_schema_refuses_what_the_program_refuses(tmp_path: Path) -> None:
    """An unknown key: the loader says so, and the schema has no place for it."""
    path = PROJECT / "build_recipes/facts/devices.toml"
    wrong = tmp_path / "devices.toml"
    wrong.write_text(path.read_text() + '\ncolour = "green"\n')
    model = schemas.MODELS["build_recipes/facts/devices.toml"]
    with pytest.raises(BadData, match="colour"):
        load_toml(wrong, model)
    device = json.loads(schemas.schema(model))["$defs"]["Device"]
    assert device["additionalProperties"] is False
    assert "colour" not in device["properties"]
    assert device["properties"]["capability"]["description"].startswith("CUDA compute capability")
