"""Deflate that stores what is packed already."""

from __future__ import annotations

import random
import zlib

import pytest

from build_recipes.formats.deflate import Deflater

DICE = random.Random(15)
NOISE = DICE.randbytes(700_001)
TEXT = b"".join(b"%d mov.u32 %%r%d, %%tid.x;\n" % (n, n % 97) for n in range(30_000))


def deflated(*pieces: bytes) -> bytes:
    packer = Deflater()
    return b"".join(part for piece in pieces for part in packer.compress(piece)) + packer.flush()


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"",),
        (b"short",),
        (NOISE,),
        (TEXT,),
        (TEXT, NOISE, TEXT, NOISE),
        (NOISE, TEXT, NOISE),
        (NOISE[:1], NOISE[:65535], NOISE[:65536], TEXT[:131072], NOISE[:131073]),
        (TEXT[:200_000] + NOISE + TEXT,) * 2,
    ],
    ids=range(9),
)
def test_what_comes_out_inflates_to_what_went_in(pieces: tuple[bytes, ...]) -> None:
    inflater = zlib.decompressobj(-15)
    assert inflater.decompress(deflated(*pieces)) + inflater.flush() == b"".join(pieces)
    assert inflater.eof and not inflater.unused_data


def test_packed_bytes_are_stored_and_others_are_not() -> None:
    assert NOISE[:60_000] in deflated(TEXT, NOISE)
    assert len(deflated(NOISE)) < len(NOISE) * 1.001
    plain = zlib.compressobj(6, zlib.DEFLATED, -15)
    assert len(deflated(TEXT)) == len(plain.compress(TEXT) + plain.flush())
    assert len(deflated(TEXT, NOISE)) < len(deflated(TEXT)) + len(NOISE) * 1.001


def test_random_mixtures_come_back() -> None:
    for _ in range(60):
        parts = []
        for _ in range(DICE.randrange(1, 6)):
            source, size = DICE.choice((NOISE, TEXT, bytes(300_000))), DICE.choice((3, 999, 70_000, 290_000))
            at = DICE.randrange(len(source) - size)
            parts.append(source[at : at + size])
        assert zlib.decompress(deflated(*parts), -15) == b"".join(parts)
