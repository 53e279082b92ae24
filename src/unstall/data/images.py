"""A folder of pictures as one tensor."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unstall.errors import UsageError


def read_images(folder: Path) -> tuple[Tensor, list[str]]:
    """Reads every PNG and JPEG of a folder as MNIST would have it: grey, 28 x 28.

    Args:
        folder: Its files in the order of their names; hidden files and folders in it are left out.

    Returns:
        Bytes of shape `(N, 28, 28)` and the N file names.

    Raises:
        UsageError: There is no such folder, it holds no image, or a file in it is not one.
    """
    if not folder.is_dir():
        raise UsageError(f"predict_dir={folder} is not a folder: give one that holds PNG or JPEG images")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise UsageError(f"predict_dir={folder} is empty: give a folder that holds PNG or JPEG images")
    return torch.stack([_read_image(path) for path in paths]), [path.name for path in paths]


def _read_image(path: Path) -> Tensor:
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as opened:
            image: Image.Image = opened
            if image.mode == "I;16":  # Pillow would clip 16-bit grey, not scale it
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = ImageOps.exif_transpose(image)  # phones store which way is up beside the picture
            black = Image.new("RGBA", image.size, "black")  # behind what is transparent
            grey = Image.alpha_composite(black, image.convert("RGBA")).convert("L")
            return torch.from_numpy(np.array(grey.resize((28, 28))))
    except (OSError, SyntaxError) as error:  # what Pillow raises for files that are not images, or broken ones
        raise UsageError(f"predict_dir: {path} is not a PNG or JPEG image: remove it") from error
