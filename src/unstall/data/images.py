"""A folder of pictures as one tensor."""

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from unstall.errors import UsageError

LARGEST = 89_478_485
"""Pixels: a quarter of a gigabyte in colour, above which Pillow itself warns of a decompression bomb."""


def read_images(
    folder: Path, size: tuple[int, int] = (28, 28), mode: Literal["L", "RGB"] = "L"
) -> tuple[Tensor, list[str]]:
    """Reads every PNG and JPEG of a folder; what is transparent in it turns black.

    Args:
        folder: Its files in the order of their names; hidden files and folders in it are left out.
        size: Height and width that every image is brought to, pixels.
        mode: `L` for grey or `RGB` for colour, as Pillow calls them.

    Returns:
        Bytes of shape `(N, height, width)`, in colour `(N, 3, height, width)`, and the N file names.

    Raises:
        UsageError: There is no such folder, it holds no image, or a file in it is not one.
    """
    if not folder.is_dir():
        raise UsageError(f"predict_dir={folder} is not a folder: give one that holds PNG or JPEG images")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise UsageError(f"predict_dir={folder} is empty: give a folder that holds PNG or JPEG images")
    unnamed = next((path for path in paths if not _is_text(path.name)), None)
    if unnamed is not None:  # a table of predictions could not name it
        raise UsageError(f"predict_dir: {unnamed.name!a} in {folder} is no name in UTF-8: rename it")
    return torch.stack([_read_image(path, size, mode) for path in paths]), [path.name for path in paths]


def _read_image(path: Path, size: tuple[int, int], mode: str) -> Tensor:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # said below, in one line
            opened = Image.open(path, formats=("PNG", "JPEG"))
        with opened:
            image: Image.Image = opened
            if image.width * image.height > LARGEST:  # known before anything is unpacked
                raise Image.DecompressionBombError
            if image.mode == "I;16":  # Pillow would clip 16-bit grey, not scale it
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = ImageOps.exif_transpose(image)  # phones store which way is up beside the picture
            black = Image.new("RGBA", image.size, "black")  # behind what is transparent
            height, width = size
            image = Image.alpha_composite(black, image.convert("RGBA")).convert(mode).resize((width, height))
            pixels = torch.from_numpy(np.array(image))
            return pixels.permute(2, 0, 1) if mode == "RGB" else pixels
    except Image.DecompressionBombError as error:
        raise UsageError(
            f"predict_dir: {path} has over {LARGEST:,} pixels, which are not read: make it smaller, or remove it"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for what is no image, a broken one, a bomb
        raise UsageError(f"predict_dir: {path} is not a PNG or JPEG image: remove it") from error


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
