"""Whether bytes are an image that models can be given: told before a run, from as little of it as tells it."""

from __future__ import annotations

import io
import warnings

from harness.tasks.own_labels import Fault

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""PIL's names of what is read; others may start programs (EPS) or be drawings."""
END_OF_JPEG = b"\xff\xd9"


def check_image(content: bytes) -> None:
    """``Fault`` for bytes that are no image, are cut off, hold several frames or more pixels than PIL takes.

    Photos of phones (MPO) may hold a second picture: the first is the photo.
    """
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise Fault("the image is empty: it has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if getattr(image, "is_animated", False) and image.format != "MPO":
                    raise Fault(f"the image has {getattr(image, 'n_frames', 2)} frames; one is taken")
                if image.format == "PNG":
                    image.verify()  # the sums of its chunks, to the last one
                elif image.format not in ("JPEG", "MPO") or not content.endswith(END_OF_JPEG):
                    image.load()
    except UnidentifiedImageError:
        raise Fault(f"no image of a kind that is read here ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Fault(f"the image has more than {Image.MAX_IMAGE_PIXELS:,} pixels: make it smaller") from None
    except Fault:
        raise
    except Exception as error:  # whatever a decoder of PIL meets
        raise Fault(f"the image cannot be read: {error}") from None
