"""One printer: nothing that comes from outside reaches the terminal as anything but text."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invoke.collection import Collection
from invoke.program import Program
from wheel_maker import DATA, make_wheel

import tasks
from build_recipes.kit import console
from build_recipes.kit.pages import environment

ATTACKS = {
    "title": "\x1b]0;PWNED\x07",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "clear": "\x1b[2J\x1b[31m",
    "C1 CSI": "\x9b31m",
    "C1 OSC": "\x9d0;x\x9c",
    "carriage return": "all is well\rX",
    "backspace": "bad\b\b\b",
    "direction": "\u202egnp.exe\u2066",
    "invisible": "a\u200b\u2060\ufeff\U000e0041",
    "line separator": "a\u2028b\u2029\x85",
    "surrogate": "\udc80\udcff",
    "markup": "[bold red]x[/]",
}


def harmless(text: str) -> bool:
    return not any(
        unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in "\n\t" for char in text
    )


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_what_is_visible_holds_nothing_that_steers(text: str) -> None:
    assert harmless(console.visible(text))
    assert console.visible(console.visible(text)) == console.visible(text)
    assert "\n" not in console.one_line(text)


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_every_way_to_print_is_harmless(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.say(text)
    console.warn(text)
    console.step("x", text)
    console.table(text, ["a", text], [[text, "b"]])
    console.console().print({text: [text]}, markup=False)
    said = capsys.readouterr().err
    assert harmless(said), said
    said.encode("utf-8")


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("vllm/_C.abi3.so", "Größe 8 µs → 日本語 ✓", "a\n\tb\u00a0c", "[bold]"):
        assert console.visible(text) == text


def test_pages_show_and_escape(tmp_path: Path) -> None:
    page = environment("build_recipes.wheelhouse").from_string("<b>{{ x }}</b>{{ y }}")
    assert page.render(x="<i>\x1b\u202e", y=1) == "<b>&lt;i&gt;\\x1b\\u202e</b>1"


def invoke(*words: str) -> int:
    program = Program(namespace=Collection.from_module(tasks))
    try:
        program.run(["invoke", *words], exit=False)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


@pytest.mark.parametrize("text", [text for key, text in ATTACKS.items() if key != "surrogate"])
def test_members_and_logs_that_attack_the_terminal(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    member = f"vllm/_C{text}.abi3.so"
    wheel = make_wheel(tmp_path, {member: (DATA / "thor.so").read_bytes()}, record={member: ""})
    assert invoke("audit", str(wheel), "--device", "thor") in (26, 60)  # refused, or told
    log = tmp_path / "a.log"
    log.write_text(
        f"[1/2] x\n{text} nvcc fatal   : Unsupported gpu architecture {text} 'compute_110'\nFAILED: {text}.o\n"
    )
    invoke("diagnose", str(log))
    said = capsys.readouterr()
    for out in (said.err, said.out):
        assert harmless(out), out


def test_a_terminal_gets_no_more_than_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    kind: type[Console] = type(console.console())
    out = io.StringIO()
    drawn = kind(file=out, force_terminal=True, color_system="truecolor", width=100)
    drawn.print("\x1b]52;c;eA==\x07[/x]", style="red", markup=False)
    assert "\x1b]52" not in out.getvalue()
    assert "\x1b[31m" in out.getvalue()  # our own colour
