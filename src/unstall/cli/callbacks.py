"""Which callbacks a run has, and which of their hooks a step calls."""

from collections.abc import Iterable

from jsonargparse import Namespace
from pytorch_lightning.callbacks import Callback, Checkpoint, ProgressBar

from unstall.cli.together import Together
from unstall.runs import Resumption

HOOKS = (
    *("on_train_batch_start", "on_before_zero_grad", "on_before_backward"),
    *("on_after_backward", "on_before_optimizer_step", "on_train_batch_end"),
)
"""Those of a step."""


def callbacks_of(trainer: Namespace) -> list[Callback]:
    """Return a trainer's callbacks without those that one of its flags switches off, which Lightning refuses, and ours.

    Args:
        trainer: The settings, with callbacks that are built.
    """
    kept = trainer.enable_checkpointing if not trainer.fast_dev_run else False
    flags = {ProgressBar: trainer.enable_progress_bar, Checkpoint: kept}
    off = tuple(kind for kind, flag in flags.items() if flag is False)
    given = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
    on = [callback for callback in given if callback is not None and not isinstance(callback, off)]
    return [*on, Resumption(), Together()]


def drop_idle_hooks(callbacks: Iterable[Callback]) -> None:
    """Have Lightning pass over the hooks of a step that callbacks of ours only inherit, and that do nothing.

    It calls each of them on each callback in every step, within a context that has a name of its own, and passes over
    what cannot be called (`_call_callback_hooks` of 2.6): some fifty calls a step for a dozen callbacks. Those of
    others are left as they are: somebody may call them by himself.
    """
    for callback in callbacks:
        kind = type(callback)
        if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
            for hook in HOOKS:
                if getattr(kind, hook) is getattr(Callback, hook):
                    setattr(callback, hook, None)
