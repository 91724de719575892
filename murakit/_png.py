"""Write 8-bit radiographs as PNG files, faster than Pillow does."""

import struct
import zlib

import numpy as np


def write_png(path, pixels, mode):
    """Write a PNG file.

    Pillow tries all filters on every row, and so takes twice the time for no smaller a file: on smooth images
    with noise, the difference to the left neighbour is always a good choice.
    """
    height, width = pixels.shape
    channels = 3 if mode == "RGB" else 1
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = 1  # filter "Sub"
    rows[:, 1 : 1 + channels] = pixels[:, :1]
    difference = pixels[:, 1:] - pixels[:, :-1]
    for channel in range(channels):
        rows[:, 1 + channels + channel :: channels] = difference
    packer = zlib.compressobj(
        1, zlib.DEFLATED, 15, 7, zlib.Z_DEFAULT_STRATEGY if channels == 3 else zlib.Z_RLE
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packer.compress(rows) + packer.flush()), (b"IEND", b""))
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        parts += [
            struct.pack(">I", len(data)),
            kind,
            data,
            struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))),
        ]
    path.write_bytes(b"".join(parts))
