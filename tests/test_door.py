"""The door: options stand in one place, help works everywhere, a mistake is one line with what was meant."""

from __future__ import annotations

import dataclasses
import io
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from build_recipes.build.request import Request
from build_recipes.door import building, complete, help, program
from build_recipes.facts.versions import check_known
from build_recipes.kit.console import PROGRAM, counted
from build_recipes.kit.errors import UsageError
from build_recipes.kit.options import options
from build_recipes.kit.paths import PACKAGE, PROJECT, Places

COMMANDS = sorted(program.namespace.task_names)


def call(*words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            program.program.run(["armory", *words], exit=False)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def started(*words: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, at 80 columns."""
    return subprocess.run(
        [sys.executable, PACKAGE / "__main__.py", *words],
        env={**os.environ, PROGRAM: "./inv", "COLUMNS": "80"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_options_of_a_build_are_the_fields_of_its_request() -> None:
    context = next(one for one in program.namespace.to_contexts(True) if one.name == "build")
    typed = [one.name for one in options(Request)]
    assert list(context.args)[: len(typed)] == [name.replace("_", "-") for name in typed]
    assert {one.field for one in options(Request)} == {field.name for field in dataclasses.fields(Request)}
    assert not [one.name for one in options(Request) if not one.help]


def test_what_is_typed_is_read_as_the_fields_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Request] = []
    monkeypatch.setattr(building, "_show_plan", lambda request, json: seen.append(request))
    words = "--tag v0.12.0 --only _C,_moe_C --time-box 1h2m --mirror a=b --mirror c=d --allow x --jobs 3"
    assert call("plan", *words.split())[0] == 0
    assert seen == [
        Request(
            tag="v0.12.0", only=("_C", "_moe_C"), time_box=3720.0, mirrors=("a=b", "c=d"), allow=("x",), jobs=3
        )
    ]  # fmt: skip
    assert call("plan", "--time-box", "soon")[0] == 2


def test_a_request_takes_no_value_by_its_place() -> None:
    with pytest.raises(TypeError):
        Request("v0.12.0")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_the_same_before_and_after_a_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (code, after, _), (_, before, _) = call(name, "--help"), call("--help", name)
    assert code == 0
    assert after == before
    assert after.startswith("Usage: ")
    assert max(map(len, after.splitlines())) <= 80
    context = next(one for one in program.namespace.to_contexts(True) if one.name == name)
    for option in context.args.values():
        assert (option.names[0].upper() if option.positional else f"--{option.names[0]}") in after


def test_help_says_what_each_option_means_and_what_is_taken_without_it() -> None:
    for words in (("qualify", "--help"), ("--help", "qualify"), ("qualify", "x.whl", "-h")):
        done = started(*words)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Usage: ./inv qualify WHEEL [options]\n")
        assert "  --tiers TIERS           0 audit, 1 import" in done.stdout
    assert "compiler cache: auto, ccache, sccache or off (default:" in started("build", "--help").stdout


def test_a_bare_call_has_every_command_once_and_none_without_a_group() -> None:
    shown = [name for _, names in help.grouped(program.namespace.tasks) for name in names]
    assert sorted(shown) == COMMANDS
    code, out, err = call()
    assert (code, err) == (0, "")
    assert [name for name in COMMANDS if out.count(f"\n  {name} ") != 1] == []
    assert (
        out.index("\n  doctor ")
        < out.index("\n  build ")
        < out.index("\n  diagnose ")
        < out.index("\n  nightly ")
    )


@pytest.mark.parametrize(
    ("typed", "said", "advice"),
    [
        ("buld --tag v0.12.0", "there is no command 'buld'", "build --tag v0.12.0"),
        ("build v0.12.0", "'v0.12.0'", "build --tag v0.12.0"),
        ("build 0.12.0 --smoke", "'0.12.0'", "build --tag v0.12.0 --smoke"),
        ("plan spark --tag v0.12.0", "'spark'", "plan --device spark --tag v0.12.0"),
        ("build --tag v0.12.0 --devcie thor", "build has no option --devcie", "build --tag v0.12.0 --device thor"),
        ("verify lmcache", "'lmcache'", "verify --package lmcache"),
        ("build --jobs abc", "--jobs abc: a whole number", "--jobs N, 0 or more"),
        ("build --jobs=1.5", "--jobs 1.5: a whole number", "--jobs N, 0 or more"),
        ("build --jobs -1", "--jobs -1", "--jobs N, 0 or more"),
        ("build --jobs ٣", "--jobs", "--jobs N, 0 or more"),
        ("index --port x", "--port x: a whole number", "--port N, 0 to 65535"),
        ("index --port 65536", "--port 65536", "--port N, 0 to 65535"),
        ("deliver x.whl --port 22a", "--port 22a", "--port N, 0 to 65535"),
        ("clean --keep many", "--keep many", "--keep N, -1 or more"),
        ("verify-omni --limit never", "--limit never", "--limit N, 0 or more"),
        ("plan --tag", "--tag needs a value", "plan --help"),
        ("audit", "audit needs a wheel", "audit --help"),
        ("audit --nosuch x.whl", "audit has no option --nosuch", "audit --help"),
        ("diagnose --lgo", "diagnose has no option --lgo", "diagnose --log"),
        ("--dry build --tag v0.12.0", "--dry stands before the command", "build --tag v0.12.0 --dry"),
        ("--json doctor", "--json stands before the command", "doctor --json"),
        ("--help buld", "there is no command 'buld'", "--help build"),
        ("--nosuch", "there is no option --nosuch", "--help"),
        ("help", "there is no command 'help'", "--help"),
        ("xyzzy", "there is no command 'xyzzy'", "--help"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_the_command_that_was_meant(typed: str, said: str, advice: str) -> None:
    code, _, err = call(*shlex.split(typed))
    lines = err.splitlines()
    assert (code, len(lines)) == (UsageError.exit_code, 2), err
    assert lines[0].startswith("error ")
    assert said in lines[0]
    assert lines[1].startswith("next  ")
    assert lines[1].endswith(advice)


def test_the_version_is_ours() -> None:
    done = started("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "armory")
    assert "Invoke" not in done.stdout


@pytest.fixture
def with_a_wheel(places: Places) -> Places:
    """A folder wheels/ with one wheel in it."""
    (places.wheels / "vllm-1+cu130.thor-py3-none-any.whl").write_bytes(b"")
    return places


def test_devices_tags_and_wheels_are_offered(with_a_wheel: Places) -> None:
    contexts = {one.name: one for one in program.namespace.to_contexts(True) if one.name}

    def offered(typed: str) -> list[str]:
        return complete.candidates(typed, contexts)

    assert offered("./inv") == COMMANDS
    assert {"thor", "spark"} <= set(offered("./inv build --tag v0.12.0 --device"))
    assert "v0.12.0" in offered("./inv build --tag")
    wheel = str(with_a_wheel.wheels / "vllm-1+cu130.thor-py3-none-any.whl")
    assert wheel in offered("./inv audit")
    assert wheel in offered("./inv rebuild --wheel")
    assert "--time-box" in offered("./inv build --smoke")
    assert offered("./inv build --time-box") == []
    assert offered("./inv 'not closed") == []


BASH = """source <("$1" --print-completion-script bash)
COMP_WORDS=("$1" build --device g); COMP_CWORD=3; _armory "$1" g; echo "${COMPREPLY[@]}" """
ZSH = """autoload -U compinit; compinit -u -D
source <("$1" --print-completion-script zsh)
compadd() { print -r -- ${(M)${(P)2}:#g*} }
words=("$1" build --device g); CURRENT=4; _armory"""
FISH = """source ($argv[1] --print-completion-script fish | psub)
complete -C "$argv[1] build --device g" """


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("bash", ["-c", BASH, "bash"]),
        ("zsh", ["-f", "-c", ZSH, "zsh"]),
        ("fish", ["--no-config", "-c", FISH]),
    ],
)
def test_each_shell_is_given_the_words(shell: str, words: list[str], tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    caller = tmp_path / "inv"
    caller.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{PROJECT}/build_recipes/__main__.py" "$@"\n')
    caller.chmod(0o755)
    done = subprocess.run([shell, *words, caller], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert sorted(done.stdout.split()) == ["gb200", "gb300", "gh200"], done.stderr


@pytest.mark.parametrize("typed", ["0.12", "0.12.0", "0.12.x", "0.11", "0.99", "0.0.1"])
def test_a_version_is_answered_with_a_tag_that_is_not_refused(typed: str) -> None:
    code, _, err = call("plan", "--device", "thor", "--tag", typed)
    assert code == 11
    advice = err.splitlines()[-1].removeprefix("next").split()
    assert advice[0] == "--tag"
    assert check_known(advice[1])
    if typed.startswith("0.12"):
        assert advice[1] == "v0.12.0"


def test_a_thing_is_counted_as_people_do() -> None:
    assert [counted(number, "unit") for number in (0, 1, 2)] == ["0 units", "1 unit", "2 units"]
    assert [counted(number, "file is", "files are") for number in (1, 5)] == ["1 file is", "5 files are"]
