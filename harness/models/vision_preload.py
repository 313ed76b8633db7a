"""Imported by workers for images before transformers is, which imports torchvision as it comes."""

from harness.models.vision_imports import ready_for_images

ready_for_images()
