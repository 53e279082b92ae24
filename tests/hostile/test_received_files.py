"""Files that somebody sends: none takes long, none takes all memory, and each ends in one line."""

import os
import struct
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from unstall import UsageError, read_images
from unstall.cli.entry import main

BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x]", *(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 8)}]" for n in range(20))]
)
YAMLS = {
    "aliases that multiply": BOMB,
    "aliases in a text": f"experiment: {BOMB!r}",
    "an alias of itself": "model: &a {init_args: *a}",
    "a list in itself": "experiment: &a [*a]",
    "merge keys that multiply": "\n".join(
        ["m0: &m0 {a: 1}", *(f"m{n + 1}: &m{n + 1} {{x: *m{n}, y: *m{n}, <<: *m{n}}}" for n in range(40))]
    ),
    "lists too deep": "experiment: " + "[" * 100_000,
    "mappings too deep": "{a: " * 100_000,
    "indented too deep": "\n".join(" " * depth + "a:" for depth in range(400)),
    "too long": "experiment: " + "x" * 2_000_000,
    "a tag that makes objects": "model: !!python/object/apply:os.system [touch owned]",
    "bytes that are no text": "experiment: \udcff\udcfe",
}


@pytest.mark.parametrize("name", YAMLS)
@pytest.mark.parametrize("place", ["mine.yaml", "logs/sent/x/config.yaml"])
def test_no_yaml_takes_a_second(
    name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path(place).write_bytes(YAMLS[name].encode(errors="surrogateescape"))
    words = ["fit", "-c", place] if place == "mine.yaml" else ["diagnose", str(Path(place).parent)]
    started = time.process_time()
    with pytest.raises(SystemExit) as end:
        main(words)
    assert time.process_time() - started < 3  # of which the parser itself takes most
    err = capfd.readouterr().err
    assert end.value.code == 2
    assert err.count("\n") == 1, err
    assert not Path("owned").exists()


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of any size that announces itself, and holds what it is given."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in (
        (b"IHDR", header),
        *chunks,
        (b"IDAT", zlib.compress(bytes((width + 1) * min(height, 28)))),
        (b"IEND", b""),
    ):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return content


PICTURES = {
    "900 million pixels": (b"a.png", png(30_000, 30_000)),
    "100 million pixels": (b"a.png", png(10_000, 10_000)),
    "a text that unpacks to 200 MB": (b"a.png", png(28, 28, (b"zTXt", b"k\0\0" + zlib.compress(bytes(200_000_000))))),
    "a name that is not UTF-8": (b"a\xff.png", png(28, 28)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_no_picture_takes_all_memory(name: str, tmp_path: Path) -> None:
    file, content = PICTURES[name]
    (tmp_path / os.fsdecode(file)).write_bytes(content)
    with pytest.raises(UsageError, match="predict_dir") as error:
        read_images(tmp_path)
    assert "\n" not in str(error.value)
    str(error.value).encode()


def test_a_picture_with_a_short_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(28, 28, (b"zTXt", b"k\0\0" + zlib.compress(b"made by hand"))))
    Image.new("L", (5000, 5000)).save(tmp_path / "b.png")
    assert read_images(tmp_path)[0].shape == (2, 28, 28)
