"""Do the examples in the README and docs/ run, and is docs/api.md up to date with the docstrings?

The Python blocks of a page run in order, in one namespace and an empty directory. Blocks in comments (`<!--python`)
create files and names that a reader would have. A block before a `text` block must raise the error shown there, in
which `…` may cut off a line. Lines of an `sh` block that call `mx8shards` must exit with 0. A block after
`<!--file NAME-->` is also written to that file. `py` and `txt` blocks are not run.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from docs.generate import PAGE, page
from mx8shards.cli import main

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted(set((REPOSITORY / "docs").glob("*.md")) - {PAGE})]
LINKED = [*PAGES, PAGE, *(REPOSITORY / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "benchmarks/README.md"))]

BLOCK = re.compile(
    r"^(?:<!--file (?P<file>\S+)-->\n)?"
    r"(?:```(?P<kind>python|text|sh)\n|<!--(?P<hidden>python)\n)(?P<code>.*?)^(?:```|-->)$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
OPTIONAL = {"accelerate", "lightning"}  # the environment with the newest versions has neither

pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    """Blocks may set variables, and may fail before they remove them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


class Block(NamedTuple):
    """A piece of code or output that a page shows."""

    kind: str
    code: str
    file: str


def blocks(text: str) -> Iterator[Block]:
    for found in BLOCK.finditer(text):
        yield Block(found["kind"] or found["hidden"], found["code"], found["file"] or "")


def named(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.filterwarnings("ignore")  # Lightning warns of missing loggers and few workers
@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_code_block_runs_and_gives_the_output_shown(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    for name in [name for name, module in sys.modules.items() if is_stub(name, module)]:
        monkeypatch.delitem(sys.modules, name)
    namespace: dict[str, Any] = {"__name__": "a_page"}
    shown = list(blocks(path.read_text(encoding="utf-8")))
    for block, following in zip(shown, [*shown[1:], Block("", "", "")], strict=True):
        if block.file:
            Path(block.file).write_text(block.code)
        if block.kind == "python" and following.kind == "text":
            with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what the text says
                exec(block.code, namespace)
            check_error(caught.value, following.code)
        elif block.kind == "python":
            run_python(block.code, namespace)
        elif block.kind == "sh":
            run_shell_lines(block.code)


def is_stub(name: str, module: Any) -> bool:
    """Is this module a stub of the tests of mosaicml-streaming? Lightning would take it for the real one."""
    spec = getattr(module, "__spec__", None)
    return name.partition(".")[0] in ("torchvision", "transformers") and spec is not None and not spec.loader


def check_error(error: Exception, text: str) -> None:
    found = "".join(traceback.format_exception_only(error)).splitlines()
    wanted = text.splitlines()
    assert len(found) == len(wanted)
    for line, pattern in zip(found, wanted, strict=True):
        assert line.startswith(pattern[:-1]) if pattern.endswith("…") else line == pattern


def run_python(code: str, namespace: dict[str, Any]) -> None:
    try:
        exec(code, namespace)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise


def run_shell_lines(code: str) -> None:
    for line in code.splitlines():
        match shlex.split(line, comments=True):
            case ["mx8shards", *arguments]:
                assert main(arguments) == 0, line


def test_the_code_blocks_of_a_page_are_found() -> None:
    text = "<!--file a.py-->\n```python\nx = 1\n```\n\n<!--python\ny = 2\n-->\n\n```py\nno\n```\n\n```text\nz\n```\n"
    assert list(blocks(text)) == [
        Block("python", "x = 1\n", "a.py"),
        Block("python", "y = 2\n", ""),
        Block("text", "z\n", ""),
    ]


@pytest.mark.parametrize("path", LINKED, ids=named)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for target, anchor in LINK.findall(path.read_text(encoding="utf-8")):
        file = path.parent / target if target else path
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(anchor_of, headings), f"{target}#{anchor}"


def anchor_of(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_api_reference_matches_the_docstrings() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python docs/generate.py`"


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 160
