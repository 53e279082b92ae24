"""Shows why training stalls, and proves the fix.

The names below are the whole public interface. Each is imported when it is first asked for: `import unstall` is free.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; a test holds the two lists to each other
    from unstall.cli import (
        NoProfiler as NoProfiler,
    )
    from unstall.cli import (
        ProgressBar as ProgressBar,
    )
    from unstall.cli import (
        Trainer as Trainer,
    )
    from unstall.cli import (
        diagnose as diagnose,
    )
    from unstall.cli import (
        program as program,
    )
    from unstall.cli import (
        run as run,
    )
    from unstall.data import (
        EpochSampler as EpochSampler,
    )
    from unstall.data import (
        InMemoryDataset as InMemoryDataset,
    )
    from unstall.data import (
        RandomState as RandomState,
    )
    from unstall.data import (
        fetch as fetch,
    )
    from unstall.data import (
        global_seed as global_seed,
    )
    from unstall.data import (
        in_memory_loader as in_memory_loader,
    )
    from unstall.data import (
        random_generator as random_generator,
    )
    from unstall.data import (
        read_images as read_images,
    )
    from unstall.errors import UsageError as UsageError
    from unstall.find import LearningRateSearch as LearningRateSearch
    from unstall.find import find_learning_rate as find_learning_rate
    from unstall.forks import Fork as Fork
    from unstall.forks import Report as Report
    from unstall.forks import fork as fork
    from unstall.forks import screening_steps as screening_steps
    from unstall.runs import (
        Checkpoints as Checkpoints,
    )
    from unstall.runs import (
        Curves as Curves,
    )
    from unstall.runs import (
        History as History,
    )
    from unstall.runs import (
        Mean as Mean,
    )
    from unstall.runs import (
        Mistakes as Mistakes,
    )
    from unstall.runs import (
        Predictions as Predictions,
    )
    from unstall.runs import (
        Run as Run,
    )
    from unstall.runs import (
        RunLogger as RunLogger,
    )
    from unstall.runs import (
        png as png,
    )
    from unstall.runs import (
        read_metrics as read_metrics,
    )
    from unstall.runs import (
        training_curves as training_curves,
    )
    from unstall.runs import (
        write as write,
    )
    from unstall.trials import (
        Outcome as Outcome,
    )
    from unstall.trials import (
        Score as Score,
    )
    from unstall.trials import (
        State as State,
    )
    from unstall.trials import (
        Variant as Variant,
    )
    from unstall.trials import (
        quiet as quiet,
    )
    from unstall.trials import (
        race as race,
    )
    from unstall.watch import (
        STALLS as STALLS,
    )
    from unstall.watch import (
        Cause as Cause,
    )
    from unstall.watch import (
        Diagnosis as Diagnosis,
    )
    from unstall.watch import (
        Meter as Meter,
    )
    from unstall.watch import (
        Signals as Signals,
    )
    from unstall.watch import (
        Verdict as Verdict,
    )
    from unstall.watch import (
        name_cause as name_cause,
    )

_ROOMS = {
    "cli": "NoProfiler ProgressBar Trainer diagnose program run",
    "data": "EpochSampler InMemoryDataset RandomState fetch global_seed in_memory_loader random_generator read_images",
    "errors": "UsageError",
    "find": "LearningRateSearch find_learning_rate",
    "forks": "Fork Report fork screening_steps",
    "runs": "Checkpoints Curves History Mean Mistakes Predictions Run RunLogger png read_metrics training_curves write",
    "trials": "Outcome Score State Variant quiet race",
    "watch": "STALLS Cause Diagnosis Meter Signals Verdict name_cause",
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}
__all__ = list(_ROOM_OF)


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'unstall' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f"unstall.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
