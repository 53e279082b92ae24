"""Shows why training stalls, and proves the fix.

The names below are the whole public interface. Each is imported when it is first asked for: `import unstall` is free.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unstall.one_lightning import install

if TYPE_CHECKING:  # for type checkers and editors; a test holds the three lists to one another
    from unstall.causes import COURSE_FAULTS, FAULTS, TRIED_FAULTS, Fault, Finding
    from unstall.cli import NoProfiler, ProgressBar, Trainer, diagnose, program, run
    from unstall.data import (
        EpochSampler,
        InMemoryDataset,
        Mirror,
        RandomState,
        Wheel,
        fetch,
        global_seed,
        in_memory_loader,
        random_generator,
        read_images,
    )
    from unstall.errors import UsageError
    from unstall.find import LearningRateSearch, find_learning_rate
    from unstall.forks import Fork, Report, fork, screening_steps
    from unstall.runs import (
        Checkpoints,
        Curves,
        EpochLines,
        History,
        Mean,
        Mistakes,
        Predictions,
        Run,
        RunLogger,
        png,
        read_metrics,
        training_curves,
        write,
    )
    from unstall.trials import LearningRate, Outcome, Score, State, Variant, quiet, race
    from unstall.watch import STALLS, Cause, Diagnosis, LinearBaseline, Meter, Signals, Verdict, name_cause

__all__ = [
    "COURSE_FAULTS",
    "FAULTS",
    "STALLS",
    "TRIED_FAULTS",
    "Cause",
    "Checkpoints",
    "Curves",
    "Diagnosis",
    "EpochLines",
    "EpochSampler",
    "Fault",
    "Finding",
    "Fork",
    "History",
    "InMemoryDataset",
    "LearningRate",
    "LearningRateSearch",
    "LinearBaseline",
    "Mean",
    "Meter",
    "Mirror",
    "Mistakes",
    "NoProfiler",
    "Outcome",
    "Predictions",
    "ProgressBar",
    "RandomState",
    "Report",
    "Run",
    "RunLogger",
    "Score",
    "Signals",
    "State",
    "Trainer",
    "UsageError",
    "Variant",
    "Verdict",
    "Wheel",
    "diagnose",
    "fetch",
    "find_learning_rate",
    "fork",
    "global_seed",
    "in_memory_loader",
    "name_cause",
    "png",
    "program",
    "quiet",
    "race",
    "random_generator",
    "read_images",
    "read_metrics",
    "run",
    "screening_steps",
    "training_curves",
    "write",
]
_ROOMS = {
    "causes": "COURSE_FAULTS FAULTS TRIED_FAULTS Fault Finding",
    "cli": "NoProfiler ProgressBar Trainer diagnose program run",
    "data": "EpochSampler InMemoryDataset Mirror RandomState Wheel fetch global_seed in_memory_loader random_generator "
    "read_images",
    "errors": "UsageError",
    "find": "LearningRateSearch find_learning_rate",
    "forks": "Fork Report fork screening_steps",
    "runs": "Checkpoints Curves EpochLines History Mean Mistakes Predictions Run RunLogger png read_metrics "
    "training_curves write",
    "trials": "LearningRate Outcome Score State Variant quiet race",
    "watch": "STALLS Cause Diagnosis LinearBaseline Meter Signals Verdict name_cause",
}


install()  # before anybody asks for the other of Lightning's two names


def __getattr__(name: str) -> Any:
    room = next((room for room, names in _ROOMS.items() if name in names.split()), None)
    if room is None:
        raise AttributeError(f"module 'unstall' has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value = getattr(import_module(f"unstall.{room}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
