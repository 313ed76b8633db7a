"""Small images as files have them."""

import io

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
