"""The recipe of docs/compile.md, with torch's own backend that compiles nothing, which needs no C++ compiler."""

import re
from pathlib import Path
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import unstall
from unstall.cli.entry import main
from unstall.trials import copied

# What torch's compiler does and says while it traces a step of Lightning's is its own.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
DOCUMENT = Path(__file__).parents[1] / "docs" / "compile.md"
QUIET: Any = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}


class Lit(pl.LightningModule):
    def __init__(self, rate: float = 0.1, compile_in_place: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        self.rate = rate
        if compile_in_place:
            self.compile(backend="eager")

    def forward(self, inputs: Tensor) -> Tensor:
        return cast(Tensor, self.network(inputs))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def compiled(rate: float = 0.1) -> Any:
    return torch.compile(Lit(rate), backend="eager")


def loader() -> DataLoader[Any]:
    points = torch.randn(960, 8, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(points, (points.sum(1) > 0).long()), 16)


@pytest.mark.parametrize(
    "build", [compiled, lambda rate=0.1: Lit(rate, compile_in_place=True)], ids=["wrapped", "in place"]
)
def test_from_python(build: Any, tmp_path: Path) -> None:
    def trainer(epochs: int) -> pl.Trainer:
        watch = unstall.Diagnosis(every_n_steps=20)
        return pl.Trainer(max_epochs=epochs, callbacks=[watch], default_root_dir=tmp_path, **QUIET)

    plain = Lit()
    pl.Trainer(max_epochs=4, enable_checkpointing=False, **QUIET).fit(plain, loader())
    first, second = trainer(2), trainer(4)
    first.fit(build(), loader())
    (watch,) = (callback for callback in vars(first)["callbacks"] if isinstance(callback, unstall.Diagnosis))
    assert watch.audited == []  # a copy of what is compiled makes steps of its own
    file = tmp_path / "half.ckpt"
    first.save_checkpoint(file)
    module = build()
    second.fit(module, loader(), ckpt_path=file)
    whole = tmp_path / "whole.ckpt"
    second.save_checkpoint(whole)
    loaded = Lit.load_from_checkpoint(whole)  # uncompiled
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight)

    search = unstall.find_learning_rate(build(), loader(), trainer(4))
    assert search == unstall.find_learning_rate(Lit(), loader(), trainer(4))
    stalled = build(1e-7)
    before = [weight.clone() for weight in stalled.parameters()]
    report = unstall.diagnose(stalled, loader(), trainer(4))
    assert report.verdict.cause == unstall.Cause.TOO_LOW
    assert all(map(torch.equal, before, stalled.parameters()))


def test_a_copy_of_what_is_compiled_runs_with_weights_of_its_own() -> None:
    fitted = compiled()
    pl.Trainer(max_steps=1, enable_checkpointing=False, **QUIET).fit(fitted, loader())
    batch = next(iter(loader()))
    for original in (fitted._orig_mod, Lit(compile_in_place=True)):
        twin = copied(original)
        with torch.no_grad():
            for weight in twin.parameters():
                weight.zero_()
        assert float(twin.training_step(batch, 0)) == pytest.approx(float(torch.tensor(2.0).log()))
        assert not twin(batch[0]).any()
        assert original(batch[0]).any()


def test_from_the_command_line(tiny_mnist_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n# compiled.py\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "compiled.py").write_text(code.replace('"inductor"', '"eager"'))
    (tmp_path / "plain.py").write_text("\n".join(line for line in code.splitlines() if ".compile(" not in line))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    options = [f"--data.data_dir={tiny_mnist_dir}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]

    def fit(network: str, epochs: int) -> Path:
        words = [f"--model.network={network}.Network", "--model.network.width=32", f"--experiment={network}"]
        main(["fit", *words, *options, f"--trainer.max_epochs={epochs}"])
        (run,) = Path("logs", network).iterdir()
        return run

    def weights(run: Path) -> dict[str, Tensor]:
        kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        assert isinstance(kept, dict)
        return kept

    run, reference = fit("compiled", 2), fit("plain", 3)
    main(["fit", f"--ckpt_path={run}", "--trainer.max_epochs=3"])
    assert weights(run).keys() == weights(reference).keys()
    for name, weight in weights(reference).items():
        torch.testing.assert_close(weights(run)[name], weight)
    main(["lr_find", "--model.network=compiled.Network", "--experiment=found", *options])
    main(["diagnose", str(run)])
    assert (run / "diagnosis.json").is_file()
