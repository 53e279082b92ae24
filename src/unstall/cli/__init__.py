"""The command line.

In: words and YAML. Out: one command done, or one line that says what is wrong with them. The question: *what was
asked for?*
"""

from unstall.cli.commands import CLI
from unstall.cli.display import NoProfiler, ProgressBar, program
from unstall.cli.entry import main
from unstall.cli.python import diagnose, run
from unstall.cli.trainer import Trainer

__all__ = ["CLI", "NoProfiler", "ProgressBar", "Trainer", "diagnose", "main", "program", "run"]
