"""Pieces of text that are compressed apart, and joined to one gzip member (RFC 1952) whenever they are served.

Members that follow each other would be one file, too, but not every client reads on behind the first.
"""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

# A scrape is unpacked at once; beyond the first level, time grows faster than the size shrinks.
_LEVEL = 1
_RAW = -zlib.MAX_WBITS
# Deflate, no flags, no time, fastest, unknown system; and an empty last block.
_HEAD, _LAST = bytes((31, 139, 8, 0, 0, 0, 0, 0, 4, 255)), b"\x03\x00"
# CRC-32's polynomial and the polynomial 1, lowest bit first as in RFC 1952.
_CRC, _ONE = 0xEDB88320, 1 << 31
_LENGTH_BITS = 64


@dataclass(frozen=True)
class Packed:
    """Deflated text, up to a byte's end and without a last block; its size, checksum, and what shifts one past it."""

    data: bytes
    size: int
    crc: int
    shift: int

    def text(self) -> str:
        """Return the text."""
        return zlib.decompressobj(_RAW).decompress(self.data).decode()


def pack(text: str) -> Packed:
    """Compress a text."""
    plain = text.encode()
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
    data = packer.compress(plain) + packer.flush(zlib.Z_SYNC_FLUSH)
    return Packed(data, len(plain), zlib.crc32(plain), _power(8 * len(plain)))


def join(pieces: Iterable[Packed]) -> Packed:
    """Return pieces as one."""
    found = list(pieces)
    crc = reduce(lambda before, one: _times(before, one.shift) ^ one.crc, found, 0)
    shift = reduce(_times, (one.shift for one in found), _ONE)
    return Packed(b"".join(one.data for one in found), sum(one.size for one in found), crc, shift)


def gzipped(piece: Packed) -> bytes:
    """Return a piece as a gzip file of one member."""
    return b"".join((_HEAD, piece.data, _LAST, struct.pack("<II", piece.crc, piece.size & 0xFFFFFFFF)))


def _times(one: int, other: int) -> int:
    """Multiply two polynomials over GF(2) modulo that of the CRC."""
    product = 0
    while one:
        if one & _ONE:
            product ^= other
        one = one << 1 & 0xFFFFFFFF
        other = other >> 1 ^ (_CRC if other & 1 else 0)
    return product


def _power(exponent: int) -> int:
    """Return x to a power: the checksum of what precedes so many bits is multiplied by it."""
    result = _ONE
    for square in _SQUARES[: exponent.bit_length()]:
        if exponent & 1:
            result = _times(result, square)
        exponent >>= 1
    return result


def _squares() -> list[int]:
    """Return x to the powers 1, 2, 4, ..., as many as the bits of any text's length need."""
    found = [_ONE >> 1]
    while len(found) < _LENGTH_BITS:
        found.append(_times(found[-1], found[-1]))
    return found


_SQUARES = _squares()
