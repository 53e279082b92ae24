"""What may be wrong with a network or its inputs, each as a change that would mend it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl

from unstall.audit import observe
from unstall.find import Config, merged
from unstall.forks.changes import network_settings, overlay_of, redrawn, wider, with_relu
from unstall.forks.legs import Legs, small
from unstall.forks.mending import measure_of
from unstall.forks.remedies import RATE, ahead, climb
from unstall.forks.subject import Subject
from unstall.forks.targets import Task
from unstall.forks.tried import Findings, Fork, Mended
from unstall.trials import Outcome, Score, Variant, scale_of_inputs, scaled
from unstall.watch import Cause

Rebuild = Callable[[dict[str, Any]], pl.LightningModule]
"""Builds the module at its initial weights from the configuration with an overlay."""


@dataclass(frozen=True)
class Suspect:
    """A change of the network or of its inputs, to be tried where no rate helps.

    Args:
        change: In words.
        cause: What it would mend.
        module: The changed module, or the run's own.
        transform: What is done to each batch.
        setting: The overlay that makes the change permanent; None if it has no setting.
    """

    change: str
    cause: Cause
    module: pl.LightningModule
    transform: Callable[[Any], Any] = lambda batch: batch
    setting: dict[str, Any] | None = None


def find_suspects(
    module: pl.LightningModule, batch: Any, config: Config, rebuild: Rebuild | None, spoilt: Cause
) -> Iterator[Suspect]:
    """Yield what can be changed about the inputs' scale, the initial weights, the activation and the widths.

    A setting of the run's configuration is changed where there is one; where there is none, a copy of the module.

    Args:
        module: The run's own, at its initial weights.
        batch: Any of the training batches; None: its inputs are to be left alone.
        config: The run's configuration; may be empty.
        rebuild: None: no setting can be changed.
        spoilt: What better initial weights would mend: `DEAD_AT_START` or `BAD_SCALE`.
    """
    settings = network_settings(config)
    scale = scale_of_inputs(batch)
    if scale is not None and not 0.1 < scale < 3:
        smaller: Callable[[Any], Any] = lambda batch: scaled(batch, 1 / scale)  # noqa: E731
        yield Suspect(f"inputs divided by {scale:.3g}", Cause.BAD_SCALE, module, smaller)
    wanted = {"init_scale": (1.0, spoilt), "activation": ("relu", Cause.VANISHING)}
    widths = settings.get("widths")
    if isinstance(widths, (list, tuple)) and len(widths) > 2 and min(widths[1:-1]) < 128:
        wanted["widths"] = (
            [widths[0], *(max(128, width) for width in widths[1:-1]), widths[-1]],
            Cause.LOW_CAPACITY,
        )
    for name, (value, cause) in wanted.items():
        overlay = overlay_of(config, (f"network.{name}", name), value)
        if rebuild is not None and name in settings and settings[name] != value and overlay is not None:
            yield Suspect(f"{name} {value}", cause, rebuild(overlay), setting=overlay)
    if "init_scale" not in settings:
        yield Suspect("initial weights as torch draws them", spoilt, redrawn(module))
    if "activation" not in settings and (changed := with_relu(module)) is not None:
        yield Suspect("ReLU in place of every sigmoid and tanh", Cause.VANISHING, changed)


def works(module: pl.LightningModule, batch: Any) -> bool:
    """Return whether a changed module still makes its step."""
    try:
        observe(module, batch)
    except Exception:  # something else in it depends on what was changed
        return False
    return True


def try_suspects(
    subject: Subject,
    findings: Findings,
    rates: Sequence[float],
    rebuild: Rebuild | None = None,
    task: Task | None = None,
) -> Fork | None:
    """Try every suspect at a few rates; then the best of them at half decades, for longer.

    Args:
        subject: The run.
        findings: What its best learning rate comes to, and what was measured of its start.
        rates: Learning rates worth a try.
        rebuild: As for `find_suspects`.
        task: What the targets ask for, by which a changed copy can be measured.

    Returns:
        The best change; None if nothing is suspicious.
    """
    best, judge = findings.best, subject.judge
    grid = sorted({*rates, 1e-3, 1e-2, 1e-1})

    def legs_of(suspect: Suspect) -> Legs:
        def leg(variants: Sequence[Variant], first: int, last: int) -> list[Outcome]:
            training = [suspect.transform(batch) for batch in subject.training(last, first)]
            held_out = [suspect.transform(batch) for batch in subject.held_out]
            return subject.race(
                variants, training, held_out, suspect.module, last == subject.long or small(suspect.module)
            )

        return Legs(leg)

    def accuse(suspect: Suspect, rate: float, after: Score) -> Fork:
        faster = overlay_of(subject.config, RATE, rate)
        overlay = merged(suspect.setting, faster) if suspect.setting is not None and faster is not None else None
        change = suspect.change if subject.is_own(rate) else f"{suspect.change}, learning rate {rate:.2g}"
        subject.note(change, best, after, overlay, suspect.cause, rate if overlay is not None else None)
        mended = Mended(change, suspect.module, suspect.transform, rates=(rate,))
        measure = None if task is None else measure_of(subject, mended, task)
        subject.forks[-1] = replace(subject.forks[-1], mended=mended, measure=measure)
        return subject.forks[-1]

    def screen(suspect: Suspect) -> tuple[Fork, float, Suspect, Legs]:
        legs = legs_of(suspect)
        two = ahead(grid, legs.scores(grid, subject.short), 2, judge)
        scores = legs.scores(two, subject.lengths[:2][-1])
        at = judge.best(scores)
        return accuse(suspect, two[at], scores[at]), two[at], suspect, legs

    spoilt = Cause.DEAD_AT_START if findings.dead_at_start else Cause.BAD_SCALE
    batch = subject.first_batch if subject.inputs_alone else None
    suspects = find_suspects(subject.module, batch, subject.config, rebuild, spoilt)
    found = [screen(suspect) for suspect in suspects]
    # A wider network draws its weights anew, and with them mends a spoilt start, which is another cause.
    narrow = not any(fork.mends for fork, *_ in found) and "widths" not in network_settings(subject.config)
    changed = wider(subject.module) if narrow else None
    if changed is not None and works(changed, subject.first_batch):
        found.append(screen(Suspect("128 units in each narrow layer", Cause.LOW_CAPACITY, changed)))
    if not found:
        return None
    # By loss: what mends the accuracy and leaves the network sure of its mistakes is not the cause.
    fork, rate, suspect, legs = min(found, key=lambda item: item[0].after.loss)
    if not fork.helps and fork.after.loss > best.loss:
        return fork
    raced = climb(rate, legs.scores, subject.lengths, judge)
    rate, score = raced[judge.safest([score for _, score in raced])]
    return accuse(suspect, rate, score)
