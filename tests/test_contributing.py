"""The way in stays true: links, the map of the rooms, the checklist of files that name CMake targets."""

from __future__ import annotations

import io
import json
import re
import tokenize
from pathlib import Path

import pytest
import yaml

from build_recipes.dev import architecture
from build_recipes.kit.paths import PACKAGE, PROJECT

PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("docs/decisions/*.md")])
CHECKLIST = PROJECT / "docs/a-cmake-target-was-renamed.md"


def targets() -> set[str]:
    """Names of the CMake targets of every release that was surveyed."""
    cells = json.loads((PROJECT / "docs/survey.json").read_text())
    return {name for cell in cells for name in cell["modules"]}


def spoken(path: Path) -> str:
    """What of a file is read by the program: no comments, no docstrings."""
    text = path.read_text()
    if path.suffix == ".toml":
        return "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines())
    words, before = [], tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        doc = token.type == tokenize.STRING and before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        if token.type != tokenize.COMMENT and not doc:
            words.append(token.string)
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            before = token.type
    return "\n".join(words)


def naming_targets() -> set[str]:
    """Files of the program and of the patch series that name a CMake target."""
    names = "|".join(sorted(map(re.escape, targets()), key=len, reverse=True))
    name = re.compile(rf"(?<![\w.-])(?:{names})(?!\w)")
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.toml"), PROJECT / "patches/series.toml"]
    return {
        str(path.relative_to(PROJECT))
        for path in files
        if "locks" not in path.parts and path.parent.name != "project" and name.search(spoken(path))
    }


def test_the_checklist_of_a_renamed_target_is_complete() -> None:
    listed = set(re.findall(r"\| \[`([^`]+)`\]", CHECKLIST.read_text()))
    assert naming_targets() == listed


def test_the_scan_sees_a_name_that_is_used_and_no_other(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text('"""Of _moe_C."""\n\nX = "_vllm_fa2_C"  # and _qutlass_C\n')
    said = spoken(source)
    assert ("_vllm_fa2_C" in said, "_moe_C" in said, "_qutlass_C" in said) == (True, False, False)
    assert {"_C", "_moe_C", "_vllm_fa2_C", "_flashmla_C"} <= targets()


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(PROJECT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    bad = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://", "mailto:")):
            continue
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (
            anchor and place.suffix == ".md" and anchor not in anchors(place.read_text())
        ):
            bad.append(target)
    assert bad == []


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_page_can_be_reached_from_contributing_or_the_readme() -> None:
    open_, seen = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md"], set()
    while open_:
        page = open_.pop()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
        open_ += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert sorted(str(page.relative_to(PROJECT)) for page in set(PAGES) - seen) == []


def test_the_map_of_the_rooms_is_todays() -> None:
    text = architecture.PAGE.read_text()
    assert architecture.written(text) == text, "python -m build_recipes.dev.architecture"
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {room for floor in architecture.floors() for room in floor} == rooms


def test_issue_forms_are_read_by_github_and_ask_for_the_doctor() -> None:
    forms = sorted((PROJECT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    read = {path.name: yaml.safe_load(path.read_text()) for path in forms}
    assert read.pop("config.yml")["blank_issues_enabled"] is False
    for name, form in read.items():
        assert {"name", "description", "body"} <= form.keys(), name
        fields = [row for row in form["body"] if row["type"] != "markdown"]
        ids = [row["id"] for row in fields]
        assert len(ids) == len(set(ids))
        assert any("doctor --json" in str(row) for row in fields), name
        assert all(row["type"] in {"input", "textarea", "dropdown", "checkboxes"} for row in fields)


def test_pre_commit_runs_what_ci_runs() -> None:
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff-format", "ruff-check", "mypy"]
    source = (PACKAGE / "dev/selfcheck.py").read_text()
    for hook in hooks:
        assert hook["entry"].split("/")[-1].split()[0] in source
