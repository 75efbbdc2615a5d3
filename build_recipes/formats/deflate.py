"""Deflate for what may be packed already: pieces that zlib would not make smaller are stored.

Most bytes of a module with device code are images that nvcc packed (LZ4, Zstandard), on which zlib would spend half
of its time for half a per cent. The result is one raw deflate stream (RFC 1951), the same bytes on every CPU: what
ISA-L's best level gives depends on it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_PIECE = 1 << 17
_SAMPLES, _SAMPLE = 4, 1 << 10
_BLOCK = 0xFFFF  # bytes of a stored block at most


class Deflater:
    """Bytes to a raw deflate stream.

    :param level: zlib's, for what can be packed.
    """

    def __init__(self, level: int = 6) -> None:
        self._level, self._packer, self._begun = level, zlib.compressobj(level, zlib.DEFLATED, -15), False

    def compress(self, content: bytes) -> Iterator[bytes]:
        """Take bytes in, best by the MiB; what is ready of the stream."""
        for start in range(0, len(content), _PIECE):
            piece = content[start : start + _PIECE]
            if not packed(piece):
                self._begun = True
                yield self._packer.compress(piece)
                continue
            if self._begun:  # ends at a byte; the next match must not reach over what zlib has not seen
                yield self._packer.flush(zlib.Z_SYNC_FLUSH)
                self._packer, self._begun = zlib.compressobj(self._level, zlib.DEFLATED, -15), False
            for at in range(0, len(piece), _BLOCK):
                block = piece[at : at + _BLOCK]
                yield struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF) + block

    def flush(self) -> bytes:
        """The end of the stream."""
        return self._packer.flush()


def packed(piece: bytes) -> bool:
    """Whether samples of a piece say that zlib would not make it smaller; never of a short one."""
    step = len(piece) // _SAMPLES
    if step < 2 * _SAMPLE:
        return False
    sample = b"".join(piece[at : at + _SAMPLE] for at in range(0, step * _SAMPLES, step))
    return len(zlib.compress(sample, 1)) > len(sample) * 31 // 32
