"""Does a mistake in a recipe raise an error that says what to change, and that names the item?"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import mx8shards as mx8
from mx8shards.cli import main
from mx8shards.convert.convert_from import convert_from
from mx8shards.convert.source import RESERVED

Capture = pytest.CaptureFixture[str]

RECIPE = '''
import sys

class open_source:
    """A recipe."""

    columns = {"path": "str", "number": "int"}
    metadata = {}

    def __init__(self, src, *, OPTION=1):
        pass

    def items(self):
        ITEMS

    def stamp(self, item):
        return 1

    def sample(self, item):
        SAMPLE
'''
ITEMS = 'return [[f"i{n}", n] for n in range(9)]'
SAMPLE = 'return {"path": item[0], "number": item[1]}'


def recipe(folder: Path, option: str = "extra", items: str = ITEMS, sample: str = SAMPLE) -> str:
    path = folder / "mistaken.py"
    path.write_text(RECIPE.replace("OPTION", option).replace("ITEMS", items).replace("SAMPLE", sample))
    return str(path)


def test_the_unmodified_recipe_converts(tmp_path: Path) -> None:
    assert mx8.convert_from(recipe(tmp_path), "x", tmp_path / "out", extra=2).samples == 9


def test_arguments_of_convert_from_are_reserved_names() -> None:
    assert {*inspect.signature(convert_from).parameters, "json", "help"} == RESERVED


@pytest.mark.parametrize("option", sorted(RESERVED - {"src"}))
def test_a_recipe_option_with_a_reserved_name_is_an_error(option: str, tmp_path: Path, capsys: Capture) -> None:
    name = recipe(tmp_path, option)
    with pytest.raises(mx8.SettingError, match="a reserved name") as found:
        mx8.convert_from(name, "x", tmp_path / "out")
    assert found.value.subject == option
    assert main(["convert", name, "x", str(tmp_path / "out")]) == 2
    assert f"{option}: a reserved name: convert itself has an argument {option}" in capsys.readouterr().err


@pytest.mark.parametrize("first", ["src", "source"])
def test_the_first_argument_of_a_recipe_may_be_called_src_or_source(first: str, tmp_path: Path) -> None:
    name = recipe(tmp_path)
    Path(name).write_text(Path(name).read_text().replace("self, src", f"self, {first}"))
    assert main(["convert", name, "x", str(tmp_path / "out")]) == 0


WRONG_ITEMS = {
    'yield ["a"]': "items(): expected a list of items, each a list of JSON values of which the first is its name",
    "return 5": "items(): expected a list of items",
    'return "ab"': "items(): expected a list of items",
    'return [["a"], []]': "items()[1]: expected a list of items",
    'return ["a.txt"]': "(['a.txt'] is an item with this name alone)",
    'return [["a"], ["b"], ["a"]]': "items()[2]: expected a different name for each item, got 'a' again",
    "sys.exit()": "items(): expected no call to sys.exit",
}


@pytest.mark.parametrize("items", WRONG_ITEMS)
def test_invalid_items_are_an_error_that_says_what_is_expected(items: str, tmp_path: Path) -> None:
    with pytest.raises(mx8.SourceError, match=re.escape(WRONG_ITEMS[items])):
        mx8.convert_from(recipe(tmp_path, items=items), "x", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_sample_names_the_item(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mx8shards.convert.convert_in_parts.PART_ITEMS", 4)

    def convert(sample: str) -> mx8.Conversion:
        name = recipe(tmp_path, sample=f"if item[1] == 5: {sample}\n        {SAMPLE}")
        return mx8.convert_from(name, "x", tmp_path / "out", workers=workers)

    with pytest.raises(mx8.SchemaError, match=r"^item i5, column 'number': expected"):
        convert('return {"path": "", "number": 1.5}')
    with pytest.raises(mx8.SchemaError, match=r"^item i5"):
        convert("return {}")
    with pytest.raises(mx8.SourceError, match=r"item i5: expected no call to sys.exit, got sys.exit\(3\)"):
        convert("sys.exit(3)")
    with pytest.raises(RuntimeError, match="mine") as found:
        convert('raise RuntimeError("mine")')
    assert found.value.__notes__[0] == f"while item i5 of {tmp_path}/mistaken.py was converted"
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_recipe_that_calls_sys_exit_is_an_error(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "ends.py").write_text("raise SystemExit")
    assert main(["convert", str(tmp_path / "ends.py"), "x", str(tmp_path / "out")]) == 1
    assert "ends.py: expected no call to sys.exit" in capsys.readouterr().err
