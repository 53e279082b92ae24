"""What goes out computes what the module does: the recipes of docs/export.md, run as they stand there."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from lesson.module import LitClassifier

RECIPES = re.findall(
    r"```python\n# (\w+)\.py\n(.*?)```", (Path(__file__).parents[1] / "docs/export.md").read_text(), re.S
)
ONNX = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
# What torch's exporters warn of themselves, each other's deprecations among it.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


def exported(name: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LitClassifier, torch.Tensor]:
    """Run a recipe on a trained run, here; return the module that it loaded, and a batch of images of another size."""
    checkpoint = str(trained / "checkpoints" / "best.ckpt")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", checkpoint])
    exec(compile(dict(RECIPES)[name], f"{name}.py", "exec"), {})
    module = LitClassifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    assert torch.equal(module.state_dict()["network.layers.0.weight"], weight_in(checkpoint))
    return module, torch.rand(7, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def weight_in(checkpoint: str) -> torch.Tensor:
    weight: torch.Tensor = torch.load(checkpoint, weights_only=True)["state_dict"]["network.layers.0.weight"]
    return weight


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_torch_export_computes_the_same(
    here: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, images = exported("export_torch", trained, monkeypatch)
    assert "labels: [" in capsys.readouterr().out
    again = torch.export.load(str(here / "network.pt2")).module()
    with torch.no_grad():
        torch.testing.assert_close(again(images), module(images))


@pytest.mark.skipif(bool(ONNX), reason=f"{', '.join(ONNX)} not installed: pip install -e '.[export]'")
def test_onnx_computes_the_same(
    here: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime  # type: ignore[import-not-found,unused-ignore]

    module, images = exported("export_onnx", trained, monkeypatch)
    assert "labels: [" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(here / "network.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), module(images), rtol=1e-4, atol=1e-5)
