"""By which a run's config is known to have been written here: a last line that only this user's key can make.

As Jupyter knows its notebooks (`jupyter trust`): the key is made when it is first needed and never leaves the user's
state folder. Where none can be kept, a process has a key of its own, and to any other its configs count as received.
"""

import hashlib
import hmac
import os
import secrets
import sys
from pathlib import Path

MARK = "# written here: "
_KEY_OF_THIS_PROCESS = secrets.token_bytes(32)


def signed(text: str) -> str:
    """Return a config's text with the line that says it was written by this user."""
    body = _body(text)
    return f"{body}{MARK}{_digest(_key(make=True), body)}\n"


def is_signed(text: str) -> bool:
    """Whether a config's text ends with that line, and nothing before it was changed since."""
    body, key = _body(text), _key(make=False)
    return hmac.compare_digest(text[len(body) :].strip(), f"{MARK}{_digest(key, body)}")


def key_file() -> Path:
    """Where the key lies: by the XDG base directory specification, or Windows' own folder of the kind."""
    if sys.platform == "win32":
        state = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "unstall" / "key"


def _body(text: str) -> str:
    start = text.rfind(f"\n{MARK}")
    body = text if start < 0 else text[: start + 1]
    return body if body.endswith("\n") else f"{body}\n"


def _digest(key: bytes, body: str) -> str:
    return hmac.new(key, body.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


def _key(make: bool) -> bytes:
    try:
        file = key_file()
        if make and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside = file.with_name(f".key.{os.getpid()}")
            try:
                with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream:
                    stream.write(secrets.token_bytes(32))
                if not file.exists():
                    beside.replace(file)
            finally:
                beside.unlink(missing_ok=True)
        key = file.read_bytes()
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return _KEY_OF_THIS_PROCESS
    return key if len(key) == 32 else _KEY_OF_THIS_PROCESS
