"""A PNG file that is whole, or an error: every checksum is verified before a pixel counts.

Pillow itself checks neither the checksums of the pixels' chunks nor that of their zlib stream: a damaged file
is to it one with other pixels.
"""

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from PIL import Image

from ._gray import orientation_of, refuse_bomb
from ._wide import wide_gray

MAGIC = b"\x89PNG\r\n\x1a\n"

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}

# First column, first row, step of the columns and of the rows of the seven passes (PNG 1.2, 8.2).
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)

# What is read at once.
_BLOCK = 2**20

# Pixel data above this is inflated twice instead of held in memory: once to check, once by Pillow.
_HELD = 64 * 2**20

# Text, colour profiles and the like that a file may have beside its pixels.
_MOST_BESIDE = 16 * 2**20

# Some write chunks of 8 KiB, and an image of the most pixels has 90,000 of those.
_MOST_CHUNKS = 2**18

# What makes an animation of the image that comes first.
_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}


class _Header(NamedTuple):
    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def n_bytes(self) -> int:
        """Number of bytes of the filtered pixels."""
        bits = self.depth * _SAMPLES[self.colour]
        passes = _PASSES if self.interlaced else ((0, 0, 1, 1),)
        total = 0
        for left, top, across, down in passes:
            columns = -(-max(0, self.width - left) // across)
            rows = -(-max(0, self.height - top) // down)
            total += rows * (1 + -(-columns * bits // 8)) if columns else 0
        return total


def read_png(file: BinaryIO, max_pixels: int | None) -> tuple[Image.Image, int | None]:
    """Return the image of a PNG file, and its EXIF orientation.

    Parameters
    ----------
    file : file-like
        At its beginning.
    max_pixels : int or None
        More are refused.

    Returns
    -------
    image : PIL.Image.Image
        Decoded. 16-bit colour and alpha have become 16-bit grey.
    orientation : int or None

    Raises
    ------
    ValueError
        For a file that is damaged or cut short.
    """
    header, sound = _checked(file, max_pixels)
    wide_colour = header.depth == 16 and header.colour != 0
    sound.seek(0)
    with Image.open(sound, formats=("PNG",)) as image:
        if wide_colour:
            return wide_gray(sound, image)
        image.load()
        return image, orientation_of(image)


def _checked(file: BinaryIO, max_pixels: int | None) -> tuple[_Header, BinaryIO]:
    """Return the header, and a file of the same image that is whole."""
    header: _Header | None = None
    pixels: _Pixels | None = None
    ended, kept, n_beside = False, [], 0
    file.seek(len(MAGIC))
    for name, length in _heads(file):
        if header is None and (name != b"IHDR" or length != 13):
            raise ValueError("its header is damaged")
        if header is not None and name == b"IDAT":
            if ended:
                raise ValueError("other chunks lie between those of its pixels: the file is damaged")
            pixels = pixels or _Pixels(header.n_bytes)
            for block in _blocks(file, name, length):
                pixels.add(block)
            continue
        ended = pixels is not None
        if name in _ANIMATION:
            # No pixels of the first image; verified, and left out.
            for _ in _blocks(file, name, length):
                pass
            continue
        n_beside += length
        if n_beside > _MOST_BESIDE:
            raise ValueError(f"it is damaged, or holds more than {_MOST_BESIDE:,} bytes beside its pixels")
        content = b"".join(_blocks(file, name, length))
        if name == b"IHDR":
            header = _header(content, max_pixels)
        kept.append((name, content))
    if header is None or pixels is None:
        raise ValueError("it holds no pixels")
    if header.colour == 3 and not any(name == b"PLTE" for name, _ in kept):
        raise ValueError("its palette is missing")
    return header, _stored(kept[:-1], pixels.whole()) or file


def _heads(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the name and length of each chunk to IEND, the end marker; the caller reads the chunk."""
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it is truncated: the end marker of PNG is missing")
        yield head[4:], int.from_bytes(head[:4], "big")
        if head[4:] == b"IEND":
            return
    raise ValueError(f"it has more than {_MOST_CHUNKS:,} chunks")


def _stored(chunks: list[tuple[bytes, bytes]], pixels: bytes | None) -> BinaryIO | None:
    """Return a PNG of inflated pixels, or None where they were not held."""
    if pixels is None:
        return None
    # "Stored" means not compressed: inflating once here and copying in Pillow is faster than its own inflating,
    # which goes row by row.
    stored = zlib.compress(pixels, 0)
    parts = [MAGIC, *(_chunk(*chunk) for chunk in chunks), len(stored).to_bytes(4, "big"), b"IDAT", stored]
    # Pillow passes over the checksum of IDAT, which is why it was verified.
    return io.BytesIO(b"".join([*parts, bytes(4), _chunk(b"IEND", b"")]))


def _blocks(file: BinaryIO, name: bytes, length: int) -> Iterator[bytes]:
    """Yield the content of a chunk, block by block; at the end, raise where its checksum is another."""
    crc, left = zlib.crc32(name), length
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            raise ValueError(f"it is truncated: {left:,} bytes are missing in a chunk {name!r}")
        crc, left = zlib.crc32(block, crc), left - len(block)
        yield block
    if file.read(4) != crc.to_bytes(4, "big"):
        raise ValueError(f"the checksum of its chunk {name!r} is wrong: the file is damaged or truncated")


def _chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(content, zlib.crc32(name))
    return b"".join((len(content).to_bytes(4, "big"), name, content, crc.to_bytes(4, "big")))


def _header(content: bytes, max_pixels: int | None) -> _Header:
    width, height = int.from_bytes(content[:4], "big"), int.from_bytes(content[4:8], "big")
    depth, colour, *methods, interlaced = content[8:]
    if not width or not height or depth not in _DEPTHS.get(colour, ()) or any(methods) or interlaced > 1:
        raise ValueError("its header states what PNG does not know")
    refuse_bomb(width, height, max_pixels)
    return _Header(width, height, depth, colour, bool(interlaced))


class _Pixels:
    """The zlib stream of a PNG's pixels, inflated and checked as it comes."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self.n_found = 0
        self.stream = zlib.decompressobj()
        self.parts: list[bytes] | None = [] if n_bytes <= _HELD else None

    def add(self, block: bytes) -> None:
        while block and not self.stream.eof:
            # One byte more than the image has, so that a longer stream shows.
            room = self.n_bytes - self.n_found + 1
            part = self.stream.decompress(block, room if self.parts is not None else min(room, _BLOCK))
            block = self.stream.unconsumed_tail
            self.n_found += len(part)
            if self.n_found > self.n_bytes:
                raise ValueError("its pixels are more than its header states: the file is damaged")
            if self.parts is not None:
                self.parts.append(part)

    def whole(self) -> bytes | None:
        """Return all pixels, or None where they were too many to hold; raise where they are not whole."""
        # zlib verifies the Adler checksum when it comes to the stream's end.
        if not self.stream.eof or self.n_found < self.n_bytes:
            raise ValueError(
                f"it is truncated: {self.n_found:,} of {self.n_bytes:,} bytes of pixels are there"
            )
        return None if self.parts is None else b"".join(self.parts)
