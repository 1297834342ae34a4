"""Do modules import only what the table of layers in ARCHITECTURE.md allows?

A room may import itself and the rooms in its row of the table, and nothing else of ours, also inside functions. The
other tests check rules such as "only disk/ creates files", import cycles, sizes and names.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mx8shards"

ARCHITECTURE = PACKAGE.parent / "ARCHITECTURE.md"


def layers() -> dict[str, set[str]]:
    """The table of ARCHITECTURE.md: each room, and the rooms that it may import."""
    text = ARCHITECTURE.read_text(encoding="utf-8").partition("<!-- layers -->")[2].partition("<!-- /layers -->")[0]
    rows = [
        [cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line
    ]
    below: set[str] = set()
    found: dict[str, set[str]] = {}
    for room, _, allowed in rows[2:]:
        names = {name.strip() for name in allowed.split(",")} - {""}
        if "all below but streaming" in names:
            names = below - {"streaming", "cli", "__init__"}
        elif "all below" in names:
            names = names - {"all below"} | below
        found[room] = names
        below.add(room)
    return found


MAY_IMPORT = layers()
MAY_IMPORT_NUMBA = {"kernels"}
MAY_IMPORT_TORCH = {"loading", "transforms", "streaming"}

# Functions that change a file system, by the name of their module.
CHANGING_CALLS = {
    "os": {
        *("rename", "renames", "replace", "unlink", "remove", "rmdir", "removedirs", "mkdir", "makedirs", "mkfifo"),
        *("link", "symlink", "truncate", "ftruncate", "O_CREAT", "O_TRUNC", "O_TMPFILE"),
    },
    "shutil": {"rmtree", "move", "copy", "copy2", "copyfile", "copytree"},
    "tempfile": {"mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryDirectory"},
}
CHANGING_METHODS = {
    *("write_text", "write_bytes", "touch", "unlink", "rename", "mkdir", "rmdir", "symlink_to", "hardlink_to"),
}

MODULES = sorted(PACKAGE.rglob("*.py"))
# Packages whose modules have the names of Streaming's, and only pass names on.
PASSED_ON = tuple(PACKAGE / "streaming" / name for name in ("base", "multimodal", "text", "vision"))


def room_of(path: Path) -> str:
    if path.name == "__main__.py":  # other entry points of the command line
        return "__main__"
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def passes_on(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in PASSED_ON)


def nodes_of(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


@functools.cache
def imported_names(path: Path) -> tuple[str, ...]:
    """Absolute dotted names of all imports in a file, also in functions and under TYPE_CHECKING."""
    package = ["mx8shards", *path.relative_to(PACKAGE).parent.parts]
    found: list[str] = []
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            found += (f"{module}.{alias.name}" for alias in node.names)
    return tuple(found)


def room_named(name: str) -> str:
    """The room of a dotted name in mx8shards. Public names of the package belong to `__init__`."""
    top = name.split(".")[1] if "." in name else "__init__"
    return top if (PACKAGE / top).is_dir() or (PACKAGE / f"{top}.py").is_file() else "__init__"


def test_a_room_imports_only_rooms_below_it() -> None:
    for path in MODULES:
        room = room_of(path)
        assert room in MAY_IMPORT, f"{room} is not in the plan"
        ours = {room_named(name) for name in imported_names(path) if name.split(".")[0] == "mx8shards"}
        assert ours - {room} <= MAY_IMPORT[room], path


def test_only_certain_rooms_import_numba_or_torch() -> None:
    for path in MODULES:
        foreign = {name.split(".")[0] for name in imported_names(path)}
        assert not foreign & {"numba", "llvmlite"} or room_of(path) in MAY_IMPORT_NUMBA, path
        assert not foreign & {"torch", "torchvision"} or room_of(path) in MAY_IMPORT_TORCH, path


# These two import their public names on first use, and for type checkers only: a module that imports one of them (for
# `__version__`) imports no other module. Counting the imports for type checkers would report many false cycles.
LAZY = {"mx8shards", "mx8shards.transforms"}


def dotted(path: Path) -> str:
    """The dotted name of a module or package."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def our_imports() -> dict[str, set[str]]:
    """The modules that each module imports by name, without the packages that Python loads on the way to them."""
    ours = {dotted(path): path for path in MODULES}
    found: dict[str, set[str]] = {}
    for module, path in ours.items():
        names = imported_names(path) if module not in LAZY else ()
        found[module] = {name if name in ours else name.rpartition(".")[0] for name in names} & ours.keys() - {module}
    return found


def import_cycle(imports: Mapping[str, set[str]]) -> list[str]:
    """The modules of one import cycle, in order, or []."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_modules_have_no_import_cycle() -> None:
    imports = our_imports()
    assert imports["mx8shards.loading.loader"] >= {"mx8shards.dataset", "mx8shards.loading.budget.banks"}
    assert import_cycle(imports) == []


def test_the_check_finds_an_import_cycle() -> None:
    imports = our_imports()
    imports["mx8shards.errors"].add("mx8shards.loading.loader")
    assert {"mx8shards.errors", "mx8shards.loading.loader"} <= set(import_cycle(imports))


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def long_functions(path: Path) -> list[str]:
    functions = [node for node in nodes_of(path) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= 60]


def test_no_module_has_more_than_400_lines_and_no_function_more_than_60() -> None:
    assert [path for path in MODULES if lines_of(path) > 400] == []
    assert {path: names for path in MODULES if (names := long_functions(path))} == {}


def test_half_of_the_modules_have_at_most_200_lines() -> None:
    assert statistics.median(map(lines_of, MODULES)) <= 200


def test_no_two_modules_or_packages_share_a_name() -> None:
    """Commands are exempt: a command has the name of the function that it calls. So are Streaming's module names."""
    names = [
        path.parent.name if path.name == "__init__.py" else path.stem
        for path in MODULES
        if path.name != "__main__.py" and (path.name == "__init__.py" or room_of(path) != "cli") and not passes_on(path)
    ]
    assert [name for name, count in Counter(names).items() if count > 1] == []


def opens_for_writing(call: ast.Call, *, skip: int) -> bool:
    values = [*call.args[skip:], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
    return any(set(mode) <= set("rwxabt+") and set(mode) & set("wxa+") for mode in modes)


def changes_files(node: ast.AST, through_disk: set[str]) -> bool:
    """Does this node change a file without calling one of the `through_disk` names?"""
    match node:
        case ast.ImportFrom(module=str(module), names=names):
            return any(alias.name in CHANGING_CALLS.get(module, ()) for alias in names)
        case ast.Attribute(value=ast.Name(id=module), attr=name) if module in CHANGING_CALLS:
            return name in CHANGING_CALLS[module]
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name))) if name in through_disk:
            return False
        case ast.Call(func=ast.Attribute(attr="replace"), args=[_], keywords=[]):
            return True  # Path.replace; str.replace takes two arguments
        case ast.Call(func=ast.Attribute(attr="open")):
            return opens_for_writing(node, skip=0)
        case ast.Call(func=ast.Name(id="open")):
            return opens_for_writing(node, skip=1)
        case ast.Call(func=ast.Attribute(attr=name)):
            return name in CHANGING_METHODS
    return False


def lines_that_change_files(code: str) -> list[int]:
    nodes = list(ast.walk(ast.parse(code)))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    disk = {alias.asname or alias.name for node in imports if node.module == "mx8shards.disk" for alias in node.names}
    return [getattr(node, "lineno", 0) for node in nodes if changes_files(node, disk)]


def test_only_disk_creates_renames_or_unlinks_files() -> None:
    others = {path: path.read_text(encoding="utf-8") for path in MODULES if room_of(path) != "disk"}
    assert {path: lines for path, code in others.items() if (lines := lines_that_change_files(code))} == {}


CHANGING = [
    *("os.rename(a, b)", "from shutil import rmtree", "os.open(path, os.O_CREAT)", "tempfile.mkdtemp()"),
    *("open(path, 'wb')", "path.open('x')", "open(path, mode='r+')", "path.write_bytes(b'')", "path.replace(target)"),
]
READING = [
    *("open(path)", "open('axw')", "path.open('rb')", "text.replace('a', 'b')", "os.open(path, os.O_RDONLY)"),
    "from mx8shards.disk import steps; steps.unlink(path)",
]


@pytest.mark.parametrize("code", CHANGING)
def test_the_check_finds_code_that_changes_files(code: str) -> None:
    assert lines_that_change_files(code)


@pytest.mark.parametrize("code", READING)
def test_the_check_accepts_reading_and_calls_of_disk(code: str) -> None:
    assert lines_that_change_files(code) == []


def loaded_after(code: str) -> set[str]:
    """The top-level modules in a fresh interpreter that ran `code`."""
    script = f"{code}\nimport sys; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_the_package_does_not_import_numpy_numba_or_torch() -> None:
    assert not loaded_after("import mx8shards") & {"numpy", "numba", "torch"}


def test_writing_reading_and_maintaining_do_not_import_numba_or_torch(tmp_path: Path) -> None:
    code = f"""
import mx8shards as mx8
with mx8.Writer({str(tmp_path / "data")!r}, columns={{"x": "int"}}) as writer:
    writer.write({{"x": 3}})
with mx8.Dataset({str(tmp_path / "data")!r}) as dataset:
    assert dataset[0] == {{"x": 3}}
mx8.verify({str(tmp_path / "data")!r}, data=True)
"""
    assert not loaded_after(code) & {"numba", "llvmlite", "torch"}


def test_every_public_name_can_be_imported() -> None:
    for path in MODULES:
        if path.name == "__main__.py":
            continue  # importing it runs the command line
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
        exported = getattr(module, "__all__", [])
        assert [name for name in exported if not hasattr(module, name)] == []
        assert len(exported) == len(set(exported))


def test_imports_for_type_checkers_match_the_exported_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    guarded = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in guarded for node in block.body if isinstance(node, ast.ImportFrom)]
    names = [alias.asname or alias.name for node in imports for alias in node.names]
    assert sorted(names) == sorted(importlib.import_module("mx8shards").__all__)


def paragraphs() -> dict[str, str]:
    """The paragraph of each room in ARCHITECTURE.md, section "Rooms in more words"."""
    text = ARCHITECTURE.read_text(encoding="utf-8").partition("## Rooms in more words")[2].partition("\n## ")[0]
    return {
        found[1]: found[0] for found in re.finditer(r"^\*\*(\w+)\*\*.*?\n(?=\n|\Z)", text, re.MULTILINE | re.DOTALL)
    }


@pytest.mark.parametrize("room", paragraphs())
def test_paragraphs_of_architecture_name_existing_modules(room: str) -> None:
    here = sorted((PACKAGE / room).rglob("*.py"))
    names = {part for path in here for part in path.relative_to(PACKAGE).with_suffix("").parts}
    names |= {name for path in here for name in re.findall(r"^def (\w+)", path.read_text(), re.MULTILINE)}
    named = re.findall(r"`([\w/]+)`", paragraphs()[room])
    assert [name for name in named if name not in names and not (PACKAGE / f"{name}.py").exists()] == []


def test_the_table_of_modules_lists_every_module_once() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8").partition("<!-- modules -->")[2].partition("<!-- /modules -->")[0]
    rows = re.findall(r"^\| ([\w/]*) \| `(\w+)` \| .", text, re.MULTILINE)
    listed = [str(Path(room, f"{module}.py")) for room, module in rows]
    expected = [path for path in MODULES if path.name[:2] != "__" and not passes_on(path)]
    assert sorted(listed) == sorted(str(path.relative_to(PACKAGE)) for path in expected)


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_paths_on_the_pages_exist(page: str) -> None:
    named = re.findall(r"`([\w/.]*/[\w/.]*)`", (PACKAGE.parent / page).read_text(encoding="utf-8"))
    assert len(named) > 5
    assert [
        name for name in named if not any(list(PACKAGE.parent.glob(f"{start}{name}*")) for start in ("", "*/"))
    ] == []
