"""Views of images of ten digits: half of the labels, or inverted and blurred copies."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from harness.tasks.views import View


def image_views(black: float, white: float) -> dict[str, View]:
    """The views by name, of images [N, 1, side, side] whose inputs have these values for a black and a white pixel."""

    def on_pixels(corrupt: Callable[[Tensor], Tensor]) -> View:
        """What is done to pixels from 0 (black) to 1 (white), done to inputs."""
        span = white - black
        return View(corrupt=lambda split: corrupt((split.inputs - black) / span) * span + black)

    return {
        "labels_0_4": View(labels=(0, 1, 2, 3, 4)),
        "labels_5_9": View(labels=(5, 6, 7, 8, 9)),
        "inverted": on_pixels(lambda pixels: 1 - pixels),
        "blurred": on_pixels(_blur),
    }


def _blur(pixels: Tensor) -> Tensor:
    """The mean of 5 x 5 pixels, black beyond the border."""
    return functional.avg_pool2d(pixels, 5, stride=1, padding=2)
