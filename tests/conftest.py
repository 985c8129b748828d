"""Checks every type and shape annotation in `lightseek` while the tests run. A wrong shape fails the test."""

import os

import pytest
from browser import chromium as chromium  # one browser for the tests of all pages
from jaxtyping import install_import_hook

install_import_hook("lightseek", "beartype.beartype")

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # of `pytest -n`: they share the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


@pytest.fixture(autouse=True, scope="session")
def caches(tmp_path_factory):
    """Keep the caches of runs out of the user's own cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
