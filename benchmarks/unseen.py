"""Data and networks that no constant of the finder was chosen on: letters, photographs, tones, and program text; and
those that came after the first of these had been looked at: drawn shapes, and the arm of a robot.

All of it is at hand: matplotlib's fonts and picture, scikit-learn's photographs, and Python's own source.
"""

import importlib
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from problems import Data, Problem

SAMPLES, TRAINING = 8_000, 6_400
SIDE, PATCH = 16, 12
FRAMES, FRAME = 16, 8
CONTEXT = 12


def letters(_: str) -> Data:
    """Ten letters in many fonts, shifted, turned and noisy: inputs `(N, 1, 16, 16)`."""
    image, draw, fonts = (importlib.import_module(f"PIL.{name}") for name in ("Image", "ImageDraw", "ImageFont"))
    folder = Path(importlib.import_module("matplotlib").get_data_path()) / "fonts" / "ttf"
    files = sorted(path for path in folder.glob("*.ttf") if path.name.startswith(("DejaVu", "STIXGeneral")))
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (SAMPLES,), generator=generator)
    loaded = [fonts.truetype(str(path), 12) for path in files]
    inputs = []
    for label in labels.tolist():
        font, x, y, turn = (int(torch.randint(n, (1,), generator=generator)) for n in (len(loaded), 6, 5, 41))
        picture = image.new("L", (SIDE, SIDE))
        draw.Draw(picture).text((x, y - 2), "ABCDEFGHIJ"[label], fill=255, font=loaded[font])
        inputs.append(torch.tensor(list(picture.rotate(turn - 20).tobytes()), dtype=torch.float32).view(1, SIDE, SIDE))
    stacked = torch.stack(inputs) / 255
    return _divided(stacked + 0.1 * torch.randn(stacked.shape, generator=generator), labels)


def patches(_: str) -> Data:
    """From which part of which of three photographs a patch is: `(N, 3, 12, 12)`, nine classes."""
    photographs = list(importlib.import_module("sklearn.datasets").load_sample_images().images)
    data = importlib.import_module("matplotlib.cbook").get_sample_data("grace_hopper.jpg")
    photographs.append(importlib.import_module("matplotlib.image").imread(data, format="jpg"))
    generator = torch.Generator().manual_seed(0)
    inputs, labels = [], []
    for _number in range(SAMPLES):
        which = int(torch.randint(3, (1,), generator=generator))
        pixels: Any = photographs[which]
        height, width = pixels.shape[:2]
        top, left = (int(torch.randint(size - PATCH, (1,), generator=generator)) for size in (height, width))
        inputs.append(torch.tensor(pixels[top : top + PATCH, left : left + PATCH].copy()).permute(2, 0, 1))
        labels.append(3 * which + 3 * top // height)
    stacked = torch.stack(inputs).float() / 255
    return _divided((stacked - stacked.mean()) / stacked.std(), torch.tensor(labels))


def tones(_: str) -> Data:
    """Which of eight intervals two tones make, in noise: `(N, 16, 8)`, frames of a wave of 128 samples."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(8, (SAMPLES,), generator=generator)
    low = 0.02 * 2 ** torch.rand(SAMPLES, 1, generator=generator)
    phases = 2 * math.pi * torch.rand(2, SAMPLES, 1, generator=generator)
    time = torch.arange(FRAMES * FRAME)
    high = low * 2 ** ((labels.unsqueeze(1) + 3) / 12)
    waves = torch.sin(2 * math.pi * low * time + phases[0]) + torch.sin(2 * math.pi * high * time + phases[1])
    waves = waves + 0.3 * torch.randn(waves.shape, generator=generator)
    return _divided(waves.view(SAMPLES, FRAMES, FRAME), labels)


def code(_: str) -> Data:
    """The next character of a few modules of Python's library, after twelve others; whole modules are held out."""
    texts = [Path(str(importlib.import_module(name).__file__)).read_text() for name in ("argparse", "inspect", "ast")]
    symbols = {symbol: i for i, symbol in enumerate(chr(number) for number in range(9, 127))}
    generator = torch.Generator().manual_seed(0)
    parts = []
    for text, samples in (("".join(texts[:2]), TRAINING), (texts[2], SAMPLES - TRAINING)):
        codes = torch.tensor([symbols.get(symbol, 0) for symbol in text])
        windows = codes.unfold(0, CONTEXT + 1, 1)
        drawn = windows[torch.randperm(len(windows), generator=generator)[:samples]]
        parts += [drawn[:, :-1].contiguous(), drawn[:, -1].contiguous()]
    return parts[0], parts[1], parts[2], parts[3]


def shapes(_: str) -> Data:
    """Which of five shapes was drawn, of three to six corners or round, turned and noisy: `(N, 1, 16, 16)`."""
    image, draw = (importlib.import_module(f"PIL.{name}") for name in ("Image", "ImageDraw"))
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (SAMPLES,), generator=generator)
    inputs = []
    for label in labels.tolist():
        x, y, size, turn = torch.rand(4, generator=generator).tolist()
        centre, radius, corners = (6 + 4 * x, 6 + 4 * y), 4 + 2 * size, 3 + label if label < 4 else 40
        angles = [2 * math.pi * (turn + corner / corners) for corner in range(corners)]
        points = [(centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)) for angle in angles]
        picture = image.new("L", (SIDE, SIDE))
        draw.Draw(picture).polygon(points, outline=255)
        inputs.append(torch.tensor(list(picture.tobytes()), dtype=torch.float32).view(1, SIDE, SIDE))
    stacked = torch.stack(inputs) / 255
    return _divided(stacked + 0.2 * torch.randn(stacked.shape, generator=generator), labels)


def arm(_: str) -> Data:
    """How far to the right the hand of an arm of four joints is, from its angles and lengths: `(N, 8)`; regression."""
    generator = torch.Generator().manual_seed(0)
    angles, lengths = 2 * torch.rand(2, SAMPLES, 4, generator=generator) - 1
    hand = ((1.5 + lengths) * torch.cos(2 * angles.cumsum(1))).sum(1)
    hand = hand + 0.1 * torch.randn(SAMPLES, generator=generator)
    return _divided(torch.cat([angles, lengths], dim=1), (hand - hand.mean()) / hand.std())


UNSEEN = {
    "letters": Problem(letters, 8, ("depthwise",)),
    "patches": Problem(patches, 8, ("depthwise", "tokens")),
    "tones": Problem(tones, 8, ("frames", "dilated")),
    "code": Problem(code, 8, ("causal", "tokens")),
}
LATER = {"shapes": Problem(shapes, 8, ("pooled", "groups")), "arm": Problem(arm, 8, ("gated", "deep"))}
"""Not looked at before the finder was changed by what those of `UNSEEN` showed."""


class Tokens(nn.Module):
    """One layer of attention with the norm before it, over patches of four by four or over characters."""

    def __init__(self, channels: int, outputs: int, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(channels, width, 4, stride=4) if channels else nn.Embedding(128, width)
        self.positions = nn.Parameter(0.02 * torch.randn(9 if channels else CONTEXT, width))
        self.layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.last = nn.Linear(width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map patches `(N, channels, 12, 12)` or characters `(N, 12)` to `(N, outputs)`."""
        tokens: Tensor = self.embedding(inputs)
        if tokens.ndim == 4:
            tokens = tokens.flatten(2).transpose(1, 2)
        outputs: Tensor = self.last(self.layer(tokens + self.positions).mean(1))
        return outputs


class Frames(nn.Module):
    """A GRU over frames of sound."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.recurrent, self.last = nn.GRU(FRAME, 32, batch_first=True), nn.Linear(32, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(N, frames, samples of a frame)` to `(N, outputs)`."""
        outputs: Tensor = self.last(self.recurrent(inputs)[0][:, -1])
        return outputs


class Gated(nn.Module):
    """A hidden layer whose units are gated by as many others, twice."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, 128), nn.Linear(64, 128)
        self.last = nn.Linear(64, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(N, inputs)` to `(N, outputs)`."""
        outputs: Tensor = self.last(F.glu(self.second(F.glu(self.first(inputs)))))
        return outputs


class Transposed(nn.Module):
    """Channels first, as convolutions want them."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(N, length, channels)` to `(N, channels, length)`."""
        return inputs.transpose(1, 2)


def build_unseen(architecture: str, data: Data) -> nn.Module:
    """Build an architecture of `UNSEEN` or `LATER`, from the global seed, with torch's own initial weights."""
    regression = data[1].is_floating_point()
    outputs = 1 if regression else max(int(data[1].max()), int(data[3].max())) + 1
    if architecture == "gated":
        return Gated(data[0].shape[1], outputs)
    if architecture == "deep":
        widths = [data[0].shape[1], 64, 64, 64, 64, 64]
        hidden = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.LeakyReLU())]
        return nn.Sequential(*hidden, nn.Linear(64, outputs))
    if architecture == "pooled":
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 4 * 4, outputs),
        )  # fmt: skip
    if architecture == "groups":
        return nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.GroupNorm(4, 16), nn.SiLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.GroupNorm(4, 32), nn.SiLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, outputs),
        )  # fmt: skip
    if architecture == "tokens":
        return Tokens(data[0].shape[1] if data[0].is_floating_point() else 0, outputs)
    if architecture == "frames":
        return Frames(outputs)
    if architecture == "depthwise":
        return nn.Sequential(
            nn.Conv2d(data[0].shape[1], 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 32, 1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, outputs),
        )  # fmt: skip
    if architecture == "dilated":
        return nn.Sequential(
            Transposed(), nn.Conv1d(FRAME, 24, 3), nn.GELU(), nn.Conv1d(24, 24, 3, dilation=2), nn.GELU(), nn.Flatten(),
            nn.Linear(24 * 10, outputs),
        )  # fmt: skip
    return nn.Sequential(
        nn.Embedding(128, 24), Transposed(), nn.Conv1d(24, 24, 3, groups=24), nn.Conv1d(24, 48, 1), nn.SiLU(),
        nn.Conv1d(48, 48, 3, dilation=2, groups=48), nn.Flatten(), nn.Linear(48 * (CONTEXT - 6), outputs),
    )  # fmt: skip


def _divided(inputs: Tensor, targets: Tensor) -> Data:
    return inputs[:TRAINING], targets[:TRAINING], inputs[TRAINING:], targets[TRAINING:]
