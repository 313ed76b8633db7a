"""Small images as files have them."""

import io
import zlib

import numpy as np
from PIL import Image


def picture(number, kind="PNG", mode="RGB", size=(9, 8), **options):
    """The bytes of an image file that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def frames(count, kind):
    """The bytes of an image of several frames."""
    first, *others = [Image.open(io.BytesIO(picture(number))) for number in range(count)]
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=others)
    return file.getvalue()


def write_classes(folder, classes=("cat", "dog"), count=4, start=0):
    """A folder with a folder for each class, each with so many images."""
    for row, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.png").write_bytes(picture(start + 100 * row + number))


def bomb(side):
    """A PNG of a few bytes that says it has side x side pixels."""

    def chunk(name, data):
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    size = side.to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + bytes([1, 0, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
