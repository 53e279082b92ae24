"""What a name would import, against what importing it does."""

import sys
from pathlib import Path

import pytest

from unstall.cli.names import is_safe_to_call, is_under, names_in, resolve, texts_in


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages that say when they are imported, by being in `sys.modules`."""
    for file in ("pack_a/__init__.py", "pack_a/inner.py", "space_b/deep/module.py", "single_c.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("class Net: pass\ndef build(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "module", "files"),
    [
        ("pack_a.Net", "pack_a", ["pack_a/__init__.py"]),
        ("pack_a.inner.Net", "pack_a.inner", ["pack_a/__init__.py", "pack_a/inner.py"]),
        ("pack_a.nothing.Net", "pack_a", ["pack_a/__init__.py"]),
        ("space_b.deep.module.Net", "space_b.deep.module", ["space_b/deep/module.py"]),
        ("single_c.Net.build", "single_c", ["single_c.py"]),
        ("sys.exit", "sys", []),
    ],
)
def test_modules_are_found_and_not_imported(name: str, module: str, files: list[str], modules: Path) -> None:
    before = set(sys.modules)
    found = resolve(name)
    assert found is not None
    assert (found.module, [str(file.relative_to(modules.resolve())) for file in found.files]) == (module, files)
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", ["val.loss", "space_b.nothing", "space_b.deep.nothing", "nowhere.Net"])
def test_names_that_lead_to_no_code(name: str, modules: Path) -> None:
    assert resolve(name) is None


def test_names_are_found_wherever_they_stand(modules: Path) -> None:
    value = {
        "class_path": "pack_a.Net",
        "list": ["single_c.Net", 3, None, {"x": "{class_path: pack_a.inner.Net}"}],
        "escaped": '["space\\u005fb.deep.module.Net"]',
        "monitor": "val.loss",
    }
    names = ["pack_a.Net", "single_c.Net", "pack_a.inner.Net", "space_b.deep.module.Net"]
    assert list(names_in(value)) == names
    assert "pack_a.inner.Net" in list(texts_in(value))


def test_only_classes_of_ones_own_and_functions_that_are_listed() -> None:
    known = {"torch", "pytorch_lightning"}

    def safe(name: str) -> bool:
        found = resolve(name)
        assert found is not None
        return is_safe_to_call(found, known, {"torch.nn.functional"}, known)

    for name in ("torch.nn.ReLU", "torch.optim.SGD", "torch.nn.functional.relu", "pytorch_lightning.Callback"):
        assert safe(name), name
    assert safe("torch.nothing_of_the_kind")
    for name in ("torch.hub.load", "torch.load", "torch.hub.Path", "torch._dynamo.OptimizedModule"):
        assert not safe(name), name
    assert not safe("pytorch_lightning.LightningModule.load_from_checkpoint")
    assert safe("torch.float32")


def test_of_a_library_only_what_a_run_is_made_of(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (modules / "single_d.py").write_text("from pytorch_lightning.cli import LightningCLI\n\n\nclass Own: pass\n")
    libraries = {"torch", "pytorch_lightning", "unstall"}

    def safe(name: str) -> bool:
        found = resolve(name)
        assert found is not None
        return is_safe_to_call(found, libraries | {"single_d"}, set(), libraries)

    handler = "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler"
    for name in (handler, "pytorch_lightning.cli.LightningCLI", "unstall.cli.commands.CLI", "single_d.LightningCLI"):
        assert not safe(name), name
    for name in ("single_d.Own", "unstall.runs.RunLogger", "torch.optim.lr_scheduler.ReduceLROnPlateau"):
        assert safe(name), name


def test_a_name_is_within_its_packages_only() -> None:
    assert is_under("torch.nn.ReLU", {"torch"})
    assert is_under("torch", {"torch"})
    assert not is_under("torch_evil.nn", {"torch"})
