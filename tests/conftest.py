"""Fixtures of all tests: Hypothesis profiles, a private cache directory, and optional peers."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests import streaming_stub
from tests.fast_directory import fast_directory

pytest.register_assert_rewrite("tests.loader.leak_checks")  # here, as tests of other folders import it, too

# Equal runs give equal results, here and in CI; `make hunt` searches at random and keeps what it finds. "few" is for
# tests that run with more examples, too, with other versions of packages.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None, database=None, print_blob=True)
hypothesis.settings.register_profile("few", hypothesis.settings.get_profile("steady"), max_examples=20)
hypothesis.settings.register_profile("hunt", max_examples=5_000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("steady")

# A background job of a shell starts with Ctrl-C ignored, and so do its children. Tests need it in both.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use the `streaming` fixture, and skip marked tests if the package is missing."""
    missing = pytest.mark.skip(reason="mosaicml-streaming is not installed")
    for item in items:
        if "streaming" in getattr(item, "fixturenames", ()):
            item.add_marker("streaming")
        if item.get_closest_marker("streaming") and not streaming_stub.is_installed():
            item.add_marker(missing)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    """Exclude modules and ten thousand tests from garbage collections, which would search them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="session")
def streaming() -> Any:
    """mosaicml-streaming itself, the reference reader and writer."""
    return streaming_stub.import_streaming()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The directory that holds pyproject.toml: where subprocesses find `tests` and `benchmarks`."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory for a module's datasets, on a tmpfs if possible."""
    with fast_directory() as place:
        yield place


@pytest.fixture(scope="module", autouse=True)
def _unfreeze() -> Iterator[None]:
    """Let the garbage collector search once more what leak checks have excluded."""
    before = gc.get_freeze_count()
    yield
    if gc.get_freeze_count() > before:
        gc.unfreeze()
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor fill the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
