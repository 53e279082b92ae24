"""Every kind of image that people have, as one tensor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unstall.data.images import read_images
from unstall.errors import UsageError


@pytest.fixture
def image_dir(tmp_path: Path) -> Path:
    """The same bright bar on black in every kind of file that people have."""
    folder = tmp_path / "images"
    folder.mkdir()
    bar = np.zeros((280, 280), dtype=np.uint8)
    bar[100:120] = 255
    grey = Image.fromarray(bar)
    grey.save(folder / "a_grey.png")
    grey.convert("RGB").save(folder / "b_colour.jpg", quality=95)
    grey.convert("P").save(folder / "c_palette.png")
    grey.convert("1").save(folder / "d_black_and_white.png")
    Image.fromarray(bar.astype(np.uint16) * 256 + 255).save(folder / "e_16_bit.png")
    transparent = Image.new("RGBA", (280, 280), (255, 255, 255, 0))
    transparent.paste((255, 255, 255, 255), (0, 100, 280, 120))
    transparent.save(folder / "f_transparent.PNG")
    Image.fromarray(bar.T[:, ::-1].copy()).save(folder / "g_turned.jpeg", quality=95, exif=_turned_left())
    grey.resize((28, 28)).save(folder / "h_28x28.png")
    (folder / ".DS_Store").write_bytes(b"not an image")
    (folder / "a_folder").mkdir()
    return folder


def _turned_left() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 8  # "rotate by 270 degrees clockwise to see it upright"
    return exif


def test_every_kind_of_image_is_read_alike(image_dir: Path) -> None:
    images, names = read_images(image_dir)
    assert [name[0] for name in names] == list("abcdefgh")
    assert images.shape == (8, 28, 28)
    assert images.dtype == torch.uint8
    for image, name in zip(images, names, strict=True):
        rows = image.float().mean(dim=1)
        assert rows[10:12].min() > 200, name
        assert rows[:8].max() < 10, name
        assert rows[14:].max() < 10, name


def test_colour_and_another_size(image_dir: Path, tmp_path: Path) -> None:
    images, _ = read_images(image_dir, size=(14, 30), mode="RGB")
    assert images.shape == (8, 3, 14, 30)
    assert images.dtype == torch.uint8
    assert images.float().mean(dim=(1, 3))[:, 5].min() > 200  # the bar, for every kind
    folder = tmp_path / "coloured"
    folder.mkdir()
    sky = Image.new("RGB", (60, 40), (0, 0, 255))
    sky.paste((0, 255, 0), (0, 20, 60, 40))
    sky.save(folder / "meadow.png")
    (meadow,), _ = read_images(folder, size=(4, 6), mode="RGB")
    assert meadow[:, 0, 0].tolist() == [0, 0, 255]
    assert meadow[:, 3, 5].tolist() == [0, 255, 0]
    assert read_images(folder, size=(4, 6))[0].shape == (1, 4, 6)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n and no more", b"GIF89a"])
def test_a_file_that_is_not_an_image_is_named(image_dir: Path, content: bytes) -> None:
    (image_dir / "notes.txt").write_bytes(content)
    with pytest.raises(UsageError, match=r"notes\.txt is not a PNG or JPEG image"):
        read_images(image_dir)


def test_a_truncated_image_is_named(image_dir: Path) -> None:
    path = image_dir / "b_colour.jpg"
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(UsageError, match=r"b_colour\.jpg is not"):
        read_images(image_dir)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()
    with pytest.raises(UsageError, match="is empty"):
        read_images(tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        read_images(tmp_path / "missing")
