"""Something that is done again and again beside what takes long."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def meanwhile(call: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call every so many seconds, in a thread, until the end of the context; what a call raises is let pass.

    Args:
        call: What is done: it may fail, as where a database is busy, because the next one follows.
        seconds: Between two calls.
    """
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            with contextlib.suppress(Exception):
                call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
