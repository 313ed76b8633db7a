"""Images are told from what is none before a run: kinds of files, modes, frames, sizes, and files cut off."""

import io
import warnings

import pytest
from PIL import Image

from harness.tasks.image_bytes import check_image
from harness.tasks.own_labels import Fault
from tests.tasks.picture_files import bomb, frames, picture

KINDS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_common_kinds_are_taken(kind):
    check_image(picture(1, kind))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_images_of_all_modes_are_taken(mode):
    check_image(picture(1, mode=mode))
    check_image(picture(1, "JPEG", mode="CMYK"))
    check_image(picture(1, "TIFF", mode="F"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_images_that_were_cut_off_are_refused(kind, kept):
    content = picture(1, kind, size=(40, 50))
    with pytest.raises(Fault):
        check_image(content[: int(len(content) * kept)])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_images_of_several_frames_are_refused(kind):
    with pytest.raises(Fault, match="the image has 3 frames"):
        check_image(frames(3, kind))


def test_photos_of_phones_with_a_second_picture_are_taken():
    assert Image.open(io.BytesIO(frames(2, "MPO"))).format == "MPO"
    check_image(frames(2, "MPO"))


def test_a_jpeg_with_bytes_after_its_end_is_taken():
    check_image(picture(1, "JPEG") + b"\0 trailing")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no bytes"), (b"GIF89a", "cannot be read|no image"), (b"plain text", "no image of a kind"),
     (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a kind"), (b"<svg/>", "no image of a kind")],
)  # fmt: skip
def test_what_is_no_image_is_refused(content, words):
    with pytest.raises(Fault, match=words):
        check_image(content)


@pytest.mark.parametrize("side", [10_000, 50_000])
def test_images_of_more_pixels_than_pil_takes_are_refused(side):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Fault, match="more than 89,478,485 pixels"):
            check_image(bomb(side))
    check_image(bomb(100))
