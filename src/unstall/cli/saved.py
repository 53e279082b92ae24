"""The resolved config: in the run's folder, in every checkpoint, and signed as written here."""

from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser, SaveConfigCallback

from unstall.cli.parser import UNLOADABLE
from unstall.cli.signature import signed
from unstall.runs import CONFIG, log_dir, write


class SaveConfig(SaveConfigCallback):
    """Keeps the resolved config in the run's folder, and in every checkpoint: a checkpoint is enough to go on."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the config of a training run; the other stages belong to a run that has one."""
        folder = log_dir(trainer)
        if stage != "fit" or folder is None or not trainer.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / CONFIG, self.text)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the config, as text."""
        checkpoint["config"] = self.text

    @cached_property
    def text(self) -> str:
        """The resolved config as YAML."""
        return settings(self.parser, self.config)


def settings(parser: LightningArgumentParser, config: Namespace) -> str:
    """The resolved config as YAML, without what is the subcommand's own: every subcommand can read it."""
    own = ("experiment", "logs_dir", "seed_everything", "model", "data", "trainer")
    kept = Namespace({name: config[name] for name in own})  # type: ignore[no-untyped-call]
    text = str(parser.dump(kept, skip_none=False, skip_validation=True))
    return signed(yaml.safe_dump(_loadable(yaml.safe_load(text)), sort_keys=False) if UNLOADABLE in text else text)


def _loadable(config: Any) -> Any:
    """A config without the defaults that have no text, such as a `torch.device`: left out, they apply again."""
    if isinstance(config, dict):
        left = {name: value for name, value in config.items() if not str(value).startswith(UNLOADABLE)}
        return {name: _loadable(value) for name, value in left.items()}
    return [_loadable(value) for value in config] if isinstance(config, list) else config
