"""What every test is guarded by."""

import os

# Before torch is imported: on a shared machine, threads that wait for one another spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(autouse=True)
def _no_global_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`seed_everything` writes to the environment: no test inherits another's seed."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "")  # so that the variable's absence is what is restored
        monkeypatch.delenv(name)
