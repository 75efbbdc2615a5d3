"""The installed program: one wheel, put into an empty environment, used from a folder of its own."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from build_recipes.door import program
from build_recipes.kit import console
from build_recipes.kit.paths import PACKAGE, PATCHES, PROJECT

UV = Path(sys.executable).with_name("uv")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    # from a copy of what git has: a build writes into the tree that it builds
    tree = tmp_path_factory.mktemp("tree")
    names = subprocess.run(
        ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard", ":!docs/evidence", ":!tests"],
        cwd=PROJECT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, names.decode().split("\0")):
        if (PROJECT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((PROJECT / name).read_bytes())
    done = subprocess.run(
        [UV, "build", "--quiet", "--wheel", "--out-dir", folder, tree],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def armory(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The program, installed from the wheel into an empty environment; called by name, in a folder of its own."""
    home = tmp_path_factory.mktemp("home")
    subprocess.run([UV, "venv", "--quiet", home / "venv"], check=True)
    subprocess.run(
        [
            UV,
            "pip",
            "install",
            "--quiet",
            "--refresh-package",
            "vllm-armory",
            "--python",
            home / "venv",
            wheel,
        ],
        check=True,
    )
    (home / "work").mkdir()

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        kept |= {"HOME": str(home), "PATH": f"{home}/venv/bin:{kept['PATH']}", "COLUMNS": "80"} | more
        return subprocess.run(
            ["armory", *words], cwd=home / "work", env=kept, capture_output=True, text=True, check=False
        )

    run.home = home  # type: ignore[attr-defined]
    return run


@pytest.mark.network
def test_the_wheel_holds_the_package_alone_and_all_its_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"build_recipes", "vllm_armory"}
    data = subprocess.run(
        ["git", "ls-files", "build_recipes", "patches"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    inside = {name if name.startswith("build_recipes/") else f"build_recipes/{name}" for name in data}
    assert not {name for name in inside if (PROJECT / name).is_file()} - names
    assert {"build_recipes/project/uv.lock", "build_recipes/project/pyproject.toml"} <= names


@pytest.mark.network
def test_a_bare_call_lists_every_command_in_80_columns(armory: Run) -> None:
    done = armory()
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    listed = {line.split()[0] for line in done.stdout.splitlines() if line[:2] == "  " and line[2:3].strip()}
    assert listed == set(program.namespace.task_names) - {"test", "check"}


@pytest.mark.network
def test_it_plans_and_reads_patches_from_any_folder(armory: Run) -> None:
    done = armory("plan", "--tag", "v0.12.0", "--device", "thor", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["patches"]) > 3
    done = armory("index", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    made = armory.home / "work"  # type: ignore[attr-defined]
    assert [path.name for path in made.iterdir()] == ["wheels"]


@pytest.mark.network
def test_the_next_step_names_the_program_that_was_called(armory: Run) -> None:
    done = armory("companions", "--json")
    assert done.returncode == 2
    assert "next  armory companions --tag v0.12.0" in done.stderr
    said = json.loads(done.stdout)
    assert (said["cause"], said["code"]) == ("UsageError", 2)
    assert said["next"].startswith("armory companions --tag v0.12.0")
    assert "./inv" not in done.stdout + done.stderr


def test_the_paths_of_a_checkout_are_the_callers(tmp_path: Path) -> None:
    """`/path/inv audit x.whl` speaks of the x.whl where one stands, and says `/path/inv` in its next step."""
    (tmp_path / "x.whl").write_bytes(b"no wheel")
    words = [sys.executable, str(PROJECT / "build_recipes/__main__.py"), "audit", "x.whl", "--json"]
    given = {**os.environ, console.PROGRAM: "/path/inv"}
    done = subprocess.run(words, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 61, done.stderr
    assert json.loads(done.stdout)["cause"] == "NotAWheel"
    assert "does not exist" not in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "x.whl"]


@pytest.mark.parametrize(
    ("words", "message", "advice"),
    [
        (["buld", "--tag", "v0.12.0"], "there is no command 'buld'", "build --tag v0.12.0 --json"),
        (["build", "--tagg", "v0.12.0"], "build has no option --tagg", "build --tag v0.12.0 --json"),
        (["nothing-like-it"], "there is no command", "--help"),
    ],
)
def test_what_is_mistyped_has_a_next_step_and_one_document(
    words: list[str], message: str, advice: str
) -> None:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stop:
        program.program.run(["armory", *words, "--json"], exit=False)
    assert stop.value.code == 2
    said = json.loads(out.getvalue())
    assert (said["cause"], said["code"]) == ("UsageError", 2)
    assert message in said["message"]
    assert said["next"].endswith(advice)


def test_a_checkout_uses_the_patches_at_its_top() -> None:
    assert PATCHES == PROJECT / "patches"


def test_every_variable_of_the_program_is_documented() -> None:
    source = "".join(path.read_text() for path in [*PACKAGE.rglob("*.py"), PROJECT / "inv"])
    read = set(re.findall(r"VLLM_ARMORY_[A-Z_]+", source))
    assert not read - set(re.findall(r"VLLM_ARMORY_[A-Z_]+", (PROJECT / "docs/configuration.md").read_text()))
