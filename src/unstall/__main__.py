"""The door: `python -m unstall` and the program `unstall`, which can be told to end while they still load."""

import os
import signal
import sys
from types import FrameType

from unstall.usage import answer


def _end(signum: int, frame: FrameType | None) -> None:
    """Leave at once: nothing has been written yet, and the libraries that are being loaded would print a traceback."""
    os.write(2, f"unstall: ended by {signal.Signals(signum).name} while it started; nothing was written\n".encode())
    os._exit(128 + signum)


def main() -> None:
    """Run the command line; see `unstall.cli.main`. What needs no command is answered before anything is loaded."""
    said = answer(sys.argv[1:])
    if said is not None:
        text, code = said
        print(text, file=sys.stderr if code else sys.stdout)
        raise SystemExit(code)
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    for signum, handler in handlers.items():
        if handler != signal.SIG_IGN:  # a shell's background job, or `nohup`
            signal.signal(signum, _end)
    from unstall.cli import main

    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    try:
        main()
    finally:
        for signum in handlers:  # all is said and written: there is nothing left to end
            signal.signal(signum, signal.SIG_IGN)


if __name__ == "__main__":
    main()
