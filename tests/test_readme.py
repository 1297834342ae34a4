"""Is what the README shows true?

Its Python blocks run in order, in one namespace and an empty directory. A block that a text block follows must raise
what stands there; lines of a shell block that call `mx8shards` must exit with 0.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

BLOCK = re.compile(r"^```(python|text|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(repository: Path) -> list[tuple[str, str]]:
    return BLOCK.findall((repository / "README.md").read_text(encoding="utf-8"))


def test_every_block_does_what_it_says(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    shown = blocks(repository)
    for (kind, code), (next_kind, text) in zip(shown, [*shown[1:], ("", "")], strict=True):
        if kind == "python" and next_kind == "text":
            with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what the text says
                exec(code, namespace)
            assert "".join(traceback.format_exception_only(caught.value)).splitlines() == text.splitlines()
        elif kind == "python":
            exec(code, namespace)
        elif kind == "sh":
            run_shell_lines(code)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", capsys.readouterr().out)


def run_shell_lines(code: str) -> None:
    for line in code.splitlines():
        match shlex.split(line, comments=True):
            case ["mx8shards", *arguments]:
                subprocess.run([sys.executable, "-m", "mx8shards", *arguments], check=True)


def test_it_shows_writing_reading_and_an_error(repository: Path) -> None:
    kinds = [kind for kind, _ in blocks(repository)]
    assert kinds.count("python") >= 3
    assert "text" in kinds
