"""What a log reports: errors with the lines that belong to them, tracebacks as one, and the parts that failed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from build_recipes.diagnosis import grammar
from build_recipes.diagnosis.grammar import Phase, Role
from build_recipes.diagnosis.prefix import Line

_HEADER = re.compile(
    r"(?:Original )?Traceback \(most recent call last\)(?: \S+)?:?$|.{0,120}Traceback \(most recent call last\):$"
)
_FRAME = re.compile(r'File "(?P<path>[^"]+)", line \d+(?:, in |$)')
_WRAPPED = re.compile(r'File$|"(?P<path>/[^"]+)",(?: line \d+,?(?: in .*)?)?$|line \d+, in ')
"""Parts of a frame that uv broke into several lines."""
_LINKED = re.compile(r"(?:The above exception was the direct cause|During handling of the above exception)")
_ENDS_TRACEBACK = re.compile(r"(?P<name>[A-Za-z_][\w.]*)(?:\([\w. ]+\))?:(?: .*|$)|(?:\w+\.)*[A-Z]\w+$")
_EXCEPTION = re.compile(
    r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Failure|Timeout|OutOfResources|OutOfMemory\w*|Unavailable|"
    r"NotFound|Mismatch|Violation|Exit)(?:\([\w. ]+\))?(?:: \S.*|:?$)|(?:[a-z_]\w*\.)+[A-Z]\w*: \S"
)
_UNIT_ENDS = re.compile(r"\[\d+/\d+\] |ninja: |g?make(?:\[\d+\])?: \*\*\*|FAILED: |\d+ errors? generated")
_FRESH = re.compile(
    r"[$#>] |\[\d+/\d+\] |\+ \w|-- |(?:DEBUG|INFO|WARNING)\b|(?:Collecting|Downloading|Successfully|Requirement) "
)
_MOST = 400
"""Events kept of the log's beginning, and as many of its end."""
_MESSAGE = 40
"""Lines that one message may have."""


@dataclass
class Event:
    """One thing that a log reports."""

    tool: str
    role: Role
    line: Line
    """The line to look at."""
    phase: Phase = ""
    heads: list[Line] = field(default_factory=list)
    """Lines that say what went wrong: of a chain of exceptions every exception, the root first."""
    body: list[Line] = field(default_factory=list)
    """The other lines that belong to it."""
    quoted: dict[int, str] = field(default_factory=dict)
    """Lines that only quote source code, by number."""
    frames: list[str] = field(default_factory=list)
    """Files of the traceback of `line`, outermost first."""
    unit: str = ""
    package: str = ""

    @property
    def numbers(self) -> set[int]:
        """Numbers of all its lines."""
        return {line.number for line in (*self.heads, *self.body)} | self.quoted.keys()


def events(runs: Iterable[list[Line]]) -> list[Event]:
    """All that is reported, in the log's order."""
    found: list[Event] = []
    for run in runs:
        streams: dict[str, list[Line]] = {}
        for line in run:
            streams.setdefault(line.source, []).append(line)
        here = [event for stream in streams.values() for event in _Reader(stream).read()]
        found.extend(sorted(here, key=lambda event: event.line.number))
        if len(found) > 2 * _MOST:
            found = found[:_MOST] + found[-_MOST:]
    return found


class _Reader:
    """One run of lines of one process."""

    def __init__(self, lines: list[Line]) -> None:
        self._lines = lines
        self._unit = ""
        self._compiled = False
        """Whether the unit is one that a compiler makes."""

    def read(self) -> Iterator[Event]:
        at = 0
        while at < len(self._lines):
            line = self._lines[at]
            if self._unit and _UNIT_ENDS.match(line.text):
                self._unit = ""
            if not line.text:
                at += 1
                continue
            if _HEADER.match(line.text) or _FRAME.match(line.text):
                event, at = self._traceback(at)
            elif _EXCEPTION.match(line.text) and not line.text.endswith("Warning"):
                event, at = self._exception(at)
            else:
                event, at = self._said(at)
            if event is not None:
                event.unit = event.unit or self._unit
                if self._compiled and event.unit and event.phase in ("", "run", "prepare"):
                    event.phase = "compile"
                yield event

    # -- tracebacks

    def _traceback(self, at: int) -> tuple[Event | None, int]:
        """A traceback, or a chain of them, as one event."""
        start = at
        ignored = at > 0 and self._lines[at - 1].text.startswith("Exception ignored")
        links: list[tuple[Line, list[str], list[Line]]] = []
        quoted: dict[int, str] = {}
        while True:
            frames, quotes, end = self._frames(at)
            quoted |= quotes
            if end >= len(self._lines) or not self._ends(end):
                if not links:
                    return None, max(end, start + 1)
                break
            message = self._message(end)
            links.append((self._lines[end], frames, message))
            at = end + 1 + len(message)
            after = self._linked(at)
            if after is None:
                break
            at = after
        return self._chain(links, quoted, ignored), at

    def _ends(self, at: int) -> bool:
        text = self._lines[at].text
        return bool(_ENDS_TRACEBACK.match(text)) and not _FRESH.match(text)

    def _frames(self, at: int) -> tuple[list[str], dict[int, str], int]:
        """Files and quoted lines from here on, and where the exception should stand."""
        frames: list[str] = []
        quoted: dict[int, str] = {}
        least = None
        while at < len(self._lines):
            line = self._lines[at]
            found = _FRAME.match(line.text) or (least is not None and _WRAPPED.match(line.text)) or None
            if found:
                frames.extend(filter(None, (found.groupdict().get("path"),)))
                least = line.indent if least is None else min(least, line.indent)
            elif _HEADER.match(line.text):
                frames = []
            elif not (least is not None and (line.indent > least or not line.text)) and not (
                line.text[:1] in "^~" or line.text.startswith(("[Previous line repeated", "...<"))
            ):
                break
            quoted[line.number] = line.text
            at += 1
        return frames, quoted, at

    def _linked(self, at: int) -> int | None:
        """Where the next link of a chain begins; None where there is none."""
        for ahead in range(at, min(at + 4, len(self._lines))):
            text = self._lines[ahead].text
            if _LINKED.match(text):
                for first in range(ahead + 1, min(ahead + 4, len(self._lines))):
                    if self._lines[first].text:
                        fits = _HEADER.match(self._lines[first].text) or _EXCEPTION.match(
                            self._lines[first].text
                        )
                        return first if fits else None
                return None
            if text:
                return None
        return None

    def _exception(self, at: int) -> tuple[Event | None, int]:
        """An exception whose traceback is not there."""
        links: list[tuple[Line, list[str], list[Line]]] = []
        quoted: dict[int, str] = {}
        while True:
            message = self._message(at)
            links.append((self._lines[at], [], message))
            at += 1 + len(message)
            after = self._linked(at)
            if after is None:
                return self._chain(links, quoted, False), at
            _, quotes, end = self._frames(after)
            quoted |= quotes
            if end >= len(self._lines) or not self._ends(end):
                return self._chain(links, quoted, False), max(end, at)
            at = end

    def _message(self, at: int) -> list[Line]:
        """The further lines of an exception's message."""
        head = self._lines[at]
        if grammar.wraps(head.text):
            return []
        found: list[Line] = []
        wrapped = head.shown.strip() != head.text
        for line in self._lines[at + 1 : at + 1 + _MESSAGE]:
            if line.level != head.level or (line.shown.strip() != line.text) != wrapped:
                break
            if (
                not line.text
                or _LINKED.match(line.text)
                or _HEADER.match(line.text)
                or _FRESH.match(line.text)
            ):
                break
            if (
                _EXCEPTION.match(line.text)
                and line.indent <= head.indent
                and not line.text.startswith("OSError: lib")
            ):
                break
            said = grammar.classify(line.text) if line.indent <= head.indent else None
            if said and said.role in ("wrapper", "unit"):
                break
            found.append(line)
        return found

    def _chain(
        self, links: list[tuple[Line, list[str], list[Line]]], quoted: dict[int, str], ignored: bool
    ) -> Event | None:
        """One event of a chain of exceptions: about the first that says something itself."""
        if ignored:
            return None
        telling = [
            link for link in links if not grammar.wraps(link[0].text) and not grammar.stopped(link[0].text)
        ]
        if not telling and all(grammar.stopped(link[0].text) for link in links):
            return None
        root = (telling or links)[0]
        level = root[0].level
        if level in ("debug", "info", "warning"):
            return None
        said = grammar.classify(root[0].text) if not telling else None
        wrapper = not telling or bool(said and said.role == "wrapper") or _wraps_by_text(root[0].text)
        heads = [root[0], *(link[0] for link in links if link is not root)]
        body = [line for link in links for line in link[2]]
        every = [frame for link in links for frame in link[1]]
        return Event(
            grammar.speaker(root[0].text),
            "wrapper" if wrapper else "error",
            root[0],
            _python_phase(root[0], every),
            heads,
            body,
            quoted,
            root[1] or every,
        )

    # -- everything else

    def _said(self, at: int) -> tuple[Event | None, int]:
        line = self._lines[at]
        said = grammar.classify(line.text)
        if said is None:
            if line.level != "error" or line.text[:1] in "^~|":
                return None, at + 1
            said = grammar.Said("vllm" if line.source else "", "logged", "", "", "")
        if said.role == "harmless" and said.tool == "cmake" and line.text.startswith("CMake"):
            at += 1
            while at < len(self._lines) and (
                self._lines[at].indent > line.indent or not self._lines[at].text
            ):
                at += 1
            return None, at
        if said.role == "harmless" or (line.level in ("debug", "info", "warning") and said.tool != "nccl"):
            return None, at + 1
        if said.role == "unit":
            self._unit, self._compiled = said.unit, said.phase == "compile"
            return Event(said.tool, "unit", line, said.phase, [line], [], {}, [], said.unit), at + 1
        event = Event(said.tool, said.role, line, said.phase, [line], [], {}, [], said.unit, said.package)
        if said.role == "wrapper":
            return event, at + 1
        end = at + 1
        blanks = 0
        while end < len(self._lines) and end - at < _MESSAGE:
            follows = self._lines[end]
            if follows.text and follows.indent <= line.indent and not _belongs(line, follows, said.tool):
                break
            blanks = 0 if follows.text else blanks + 1
            if blanks > (2 if said.tool == "cmake" else 0):
                break
            if said.tool == "cmake" and follows.indent and (inner := self._inner(follows)):
                inner.phase = "configure"
                inner.body = [*_rest(self._lines[end + 1 : end + 12]), line, *event.body]
                return inner, end + 1
            event.body.append(follows)
            end += 1
        event.body = [one for one in event.body if one.text]
        return event, end

    def _inner(self, line: Line) -> Event | None:
        """The error of another tool that CMake quotes."""
        if _EXCEPTION.match(line.text):
            return Event(grammar.speaker(line.text), "error", line, "configure", [line])
        said = grammar.classify(line.text)
        if said is None or said.role != "error" or said.tool in ("", "cmake", "shell", "curl"):
            return None
        return Event(said.tool, "error", line, said.phase, [line])


def _rest(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line.text]


def _belongs(head: Line, line: Line, tool: str) -> bool:
    """Whether a line that is not further in goes on with what the head says."""
    text = line.text
    if line.source != head.source or _FRESH.match(text):
        return False
    if tool in ("uv", "conda"):
        return line.indent > 0 or text.startswith(("Caused by", "hint:", "And because", "Because"))
    if text.startswith(("Caused by:", "hint:", "|", "^", "~", "cudaError", "nccl", "Last error:", "what():")):
        return True
    return tool == "libstdc++" or (tool == "nvml" and text.startswith("****"))


def _wraps_by_text(exception: str) -> bool:
    said = grammar.classify(exception)
    return said is not None and said.role == "wrapper" and said.tool == "vllm"


_EARLY = re.compile(
    r"setup\.py|pyproject_hooks|setuptools/|/pip/|pip-build-env|build_meta|scikit_build|torch/utils/cpp_extension"
)
_RUNS = re.compile(r"execute_model|model_runner.*forward|/async_llm\.py|serving_|entrypoints/openai/")


def _python_phase(line: Line, frames: list[str]) -> Phase:
    if any(_EARLY.search(frame) for frame in frames):
        return "prepare"
    if re.match(r"(?:ModuleNotFoundError|ImportError)\b", line.text):
        return "start"
    return "run" if any(_RUNS.search(frame) for frame in frames) else "start"
