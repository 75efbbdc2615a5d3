"""A log as blocks of bytes: whole lines, where lines are shorter than a block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from build_recipes.kit.errors import CouldNotCheck

BLOCK = 1 << 20
"""Bytes read at a time. A line longer than this is looked at in pieces."""


def of_lines(lines: Iterable[str | bytes]) -> Iterator[bytes]:
    """Lines (with or without their newline) or whole pieces of text."""
    gathered: list[bytes] = []
    size = 0
    for line in lines:
        raw = line.encode("utf-8", "replace") if isinstance(line, str) else line
        raw = raw if raw.endswith(b"\n") else raw + b"\n"
        gathered.append(raw)
        size += len(raw)
        if size >= BLOCK:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


def of_stream(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Blocks that end at a line's end, except where one line is longer than a block."""
    rest = b""
    while piece := read(BLOCK):
        cut = piece.rfind(b"\n") + 1
        if not cut and len(rest) + len(piece) < BLOCK:
            rest += piece
            continue
        if not cut:
            yield rest + piece
            rest = b""
            continue
        yield rest + piece[:cut]
        rest = piece[cut:]
    if rest:
        yield rest


def text_only(blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Pass blocks on.

    :raises CouldNotCheck: the first block is no text.
    """
    first = next(blocks, b"")
    head = first[:65536]
    if head.count(0) > len(head) // 50 or head.startswith(
        (b"\x1f\x8b", b"PK\x03\x04", b"\x7fELF", b"\x28\xb5\x2f\xfd")
    ):
        raise CouldNotCheck(
            f"{name} is not text (first bytes {head[:4].hex(' ')}, {head.count(0)} NULs in {len(head)})",
            "unpack or convert it first (zcat, zstdcat, iconv -f UTF-16), or give the log itself",
        )
    if first:
        yield first
    yield from blocks
