"""The program: one command, and one line for whatever a user can mend."""

import contextlib
import errno
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NoReturn

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from unstall.cli.commands import CLI
from unstall.cli.documents import Document, alone_on_stdout, is_asked_for
from unstall.cli.ending import ENDING, unbroken_streams
from unstall.cli.parser import UNLOADABLE, usage_error_in
from unstall.cli.places import run_around
from unstall.cli.project import commands
from unstall.errors import UsageError
from unstall.runs import rank


def main(args: list[str] | None = None) -> None:
    """Run one command; what a user can mend is one line on standard error, and exit code 2.

    With `--format=json` standard output gets one document, whatever happens: the result, or `error`.

    Args:
        args: The command line without the program's name; `sys.argv` if left out.
    """
    args = sys.argv[1:] if args is None else args
    with contextlib.ExitStack() as stack:
        stack.enter_context(unbroken_streams())
        say = stack.enter_context(alone_on_stdout()) if is_asked_for(args) else None
        stack.enter_context(ENDING.awaited(args))
        prepare()
        try:
            document = _run(args)
        except BaseException as error:
            if say is not None and rank() == 0:
                code = error.code if isinstance(error, SystemExit) else 1
                why = error.__cause__ if isinstance(error, SystemExit) and error.__cause__ else error
                said = str(why) if isinstance(why, UsageError) else f"{type(why).__name__}: {why}"
                say({"command": args[0], "error": said, "exit_code": code})
            raise
        if say is not None and document is not None and rank() == 0:
            say(document)


def _run(args: list[str]) -> Document | None:
    try:
        own = commands()
        if args and args[0] in own:
            own[args[0]]()(args[1:])
            return None
        return CLI(args).document
    except UsageError as error:
        fail(str(error))
    except MisconfigurationException as error:
        fail(str(error))
    except ValueError as error:  # jsonargparse wraps what a constructor raises
        usage_error = usage_error_in(error)
        if usage_error is None:
            raise
        fail(str(usage_error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        fail(f"{error.filename or 'the disk'}: {error.strerror}; {_remedy(error.filename)}")


def _remedy(file: object) -> str:
    temporary = tempfile.gettempdir()
    if file is not None and not Path(os.fsdecode(str(file))).absolute().is_relative_to(temporary):
        return "make room, or give another folder with --logs_dir"
    return f"make room, or give another folder: --logs_dir for runs, TMPDIR (now {temporary}) for temporary files"


def prepare() -> None:
    """Set up this process for commands, as far as that cannot wait for the first of them."""
    # RMSprop's averages for inputs that are hardly ever other than zero decay into denormal numbers, and every epoch is
    # slower than the one before. It only reaches threads made later: before the first parallel operation.
    torch.set_flush_denormal(True)
    if not torch.cuda.is_available():
        # Every optimizer step asks torch for an accelerator, and Lightning has it look for the
        # driver's library each time. An empty list of devices is an answer at once.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for name in ("pytorch_lightning", "lightning_fabric"):  # "Seed set to 0", "GPU available: False", tips
        for logger in (name, f"{name}.utilities.rank_zero", f"{name}.utilities.seed"):
            logging.getLogger(logger).setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)  # what was measured is asked for
    # Lightning's own: it asks torch's pytrees the old way, and means well about loaders and folders.
    warnings.filterwarnings("ignore", message=".isinstance.treespec, LeafSpec")
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message=rf"\s*{UNLOADABLE}")  # a default such as a device: it applies again
    # A user's own classes, as `python -m unstall` finds them. Not "": jsonargparse reads a config from its own folder.
    here = Path.cwd()
    if run_around(here):  # nothing that came with a run takes the place of a library
        sys.path[:] = [place for place in sys.path if place and Path(place) != here]
    elif str(here) not in sys.path:
        sys.path.insert(0, str(here))


def fail(message: str) -> NoReturn:
    """Print one line and leave with exit code 2."""
    line = " ".join(message.split())
    if rank() == 0:
        print(f"unstall: error: {line}", file=sys.stderr)
    raise SystemExit(2) from UsageError(line)
