"""Changes to bytes that are likely to hurt: blind ones, and ones that know the format."""

from __future__ import annotations

import copy
import json
import random
import re
import struct
from typing import Any

NASTY = [
    b"", b"\0", b"\xff", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\x01\0\0\0", b"../", b"/etc/passwd", b"\x1b]0;x\x07", b"\n",
    b"\r", b"%s%n", b"{}", b"[", b"]" * 50, b"[" * 3000, b"{" * 3000, b"(" * 3000, b'"', b"'", b"\\", b"\xe2\x80\xae", b"\xed\xb2\x80",
    b"nan", b"NaN", b"-1", b"1e999", b"9" * 30, b"9" * 5000, b"null", b"true", b"0x", b"a" * 300, b"\xc3\x28", b"<script>", b"..",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 2**63, 2**70, 1e300, float("nan"), float("inf"), "", "x", "../../x", "/etc/passwd", "\0", "\x1b[2J",
    "\ud800", "a" * 5000, "nan", "9" * 5000, [], {}, [[]], [None], {"": None}, {"x": {}}, [1, "x"], "v0.12.0", "thor",
]  # fmt: skip


def blind(chance: random.Random, seed: bytes, words: list[bytes] = NASTY) -> bytes:
    """One to six changes of bytes, words, or ranges, without knowing what they mean."""
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        at, kind = chance.randrange(len(data) + 1), chance.randrange(9)
        if kind == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            data[at : at + 4] = struct.pack("<I", chance.choice((0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)))
        elif kind == 3:
            word = chance.choice(words)
            data[at : at + chance.choice((0, len(word)))] = word
        elif kind == 4:
            length = chance.randrange(1, 64)
            data[at : at + length] = bytes(min(length, len(data) - at))
        elif kind == 5:
            del data[at:]
        elif kind == 6:
            del data[at : at + chance.randrange(1, 40)]
        elif kind == 7:
            data[at:at] = data[at : at + chance.randrange(1, 400)]
        else:
            other = chance.randrange(len(data) + 1)
            data[at : at + 30] = data[other : other + 30]
    return bytes(data)


def plain(chance: random.Random, value: Any) -> Any:
    """Plain data with one value replaced, dropped, renamed or doubled."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            places.extend((node, key) for key in node)
            for inner in node.values():
                walk(inner)
        elif isinstance(node, list):
            places.extend((node, index) for index in range(len(node)))
            for inner in node[:40]:
                walk(inner)

    value = json.loads(json.dumps(value))
    for _ in range(chance.choice((1, 1, 2, 4))):
        places.clear()
        walk(value)
        if not places:
            return chance.choice(VALUES)
        holder, key = chance.choice(places)
        kind = chance.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[chance.choice(("", "x", f"{key}x", "\0"))] = holder.pop(key)
        elif kind == 2:
            other, name = chance.choice(places)
            if isinstance(holder, dict) or key < len(holder):
                holder[key] = (
                    json.loads(json.dumps(other[name])) if name in other or isinstance(other, list) else None
                )
        else:
            holder[key] = copy.deepcopy(chance.choice(VALUES))
    return copy.deepcopy(chance.choice(VALUES)) if chance.randrange(60) == 0 else value


def document(chance: random.Random, seed: bytes) -> bytes:
    """A JSON document with a value changed, or blind changes of its text."""
    if chance.randrange(3) == 0:
        return blind(chance, seed)
    return json.dumps(plain(chance, json.loads(seed))).encode()


def lines(chance: random.Random, seed: bytes) -> bytes:
    """JSON lines, one of them changed."""
    rows = seed.splitlines(keepends=True)
    at = chance.randrange(len(rows))
    rows[at] = document(chance, rows[at]).replace(b"\n", b" ") + chance.choice((b"\n", b"\n", b"\n", b""))
    return b"".join(rows)


_TOKEN = re.compile(rb'"[^"\n]*"|\d[\d.]*|\b[A-Za-z_]\w*\b|[^\w\s]')


def text(chance: random.Random, seed: bytes) -> bytes:
    """Text of a language: a token replaced by another one of it or by a nasty one, or blind changes."""
    if chance.randrange(3) == 0:
        return blind(chance, seed)
    tokens = list(_TOKEN.finditer(seed))
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 5))):
        if tokens:
            one, other = chance.choice(tokens), chance.choice(tokens)
            word = chance.choice((other.group(), chance.choice(NASTY), b'"%s"' % chance.choice(NASTY), b""))
            data[one.start() : one.end()] = word
    return bytes(data)
