"""Does every function and command that asks a store give up after `deadline_s`?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.cli import main
from mx8shards.maintain.info import info, list_shards
from tests.remote.deadlines import in_time
from tests.remote.mirrors import write

pytest.importorskip("obstore")

URL = "s3://bucket/data"


@pytest.fixture(autouse=True)
def _nobody_answers(s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("MX8SHARDS_CACHE", str(tmp_path / "caches"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "here")


CALLS: dict[str, Callable[..., Any]] = {
    "merge from": lambda **options: mx8.merge([URL], "out", **options),
    "merge into": lambda **options: mx8.merge(["here"], URL, **options),
    "sync from": lambda **options: mx8.sync(URL, "out", **options),
    "sync into": lambda **options: mx8.sync("here", URL, **options),
    "convert": lambda **options: mx8.convert_from("imagefolder", "pictures", URL, **options),
    "gc": lambda **options: mx8.gc(URL, **options),
    "verify": lambda **options: mx8.verify(URL, **options),
    "log": lambda **options: mx8.log(URL, **options),
    "diff": lambda **options: mx8.diff("here", URL, **options),
    "summary": lambda **options: mx8.summary(URL, **options),
    "info": lambda **options: info(URL, **options),
    "list_shards": lambda **options: list(list_shards(URL, **options)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_function_gives_up_at_its_deadline(name: str, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    error = in_time(lambda: CALLS[name](deadline_s=0.2))  # the default would take longer
    assert isinstance(error, mx8.RemoteError), repr(error)
    assert error.reason == "network"
    with pytest.raises(mx8.SettingError, match=r"^deadline_s: "):
        CALLS[name](deadline_s=0)


COMMANDS = [
    *(f"{name} {URL}" for name in ("info", "ls", "cat", "summary", "log", "verify", "gc")),
    *(f"diff here {URL}", f"merge here {URL}", f"sync here {URL}", f"sync {URL} out"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_gives_up_at_its_deadline(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_time(lambda: main([*command.split(), "--deadline-s", "0.2"])) == 1
    assert "no connection" in capsys.readouterr().err
