"""How is docs/api.md made? From the docstrings and signatures of the public names: `python docs/generate.py`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import mx8shards as mx8

PAGE = Path(__file__).parent / "api.md"

# Every public name once, in the order of reading. A name after a colon is not exported: calls return it.
SECTIONS = {
    "Write": ["Writer", "register_encoding"],
    "Convert": [
        *("convert_from", "convert.imagefolder:ImageFolder", "convert.videofolder:VideoFolder"),
        "convert.outcome:Conversion",
    ],
    "Read": ["Dataset", "concat", "mix", "shards.column_values:RaggedColumn"],
    "Load": ["Loader", "BlockShuffle", "Pool"],
    "Batches": [
        *("loading.batch:Batch", "loading.ragged:Ragged", "loading.ragged:Packed"),
        *("loading.reporting.stats:Explanation", "loading.iterable_dataset:IterableBatches"),
    ],
    "Decode pictures": ["RandomResizedCrop", "CenterCrop", "ResizeCrop", "MultiCrop", "Decode"],
    "Decode videos": ["Clip", "Audio"],
    "Transform batches": [f"transforms.{name}" for name in mx8.transforms.__all__],
    "Maintain": [
        *("verify", "maintain.report:Report", "maintain.report:Damage", "maintain.report:Repair"),
        *("merge", "log", "maintain.log:LogEntry"),
        *("diff", "maintain.diff:Diff", "gc", "maintain.gc:Removed", "sync", "summary", "maintain.summary:Summary"),
        *("maintain.summary:ColumnSummary", "maintain.statistics:Numbers", "maintain.lengths:Lengths"),
    ],
    "Errors": ["ShardsError"],
}
ERRORS = [name for name in mx8.__all__ if name.endswith("Error") and name != "ShardsError"]

# Methods without an underscore that other modules call, and users need not.
INTERNAL = {
    *("Dataset.shards", "Dataset.view", "Dataset.picked"),
    *("Pool.renew", "Pool.submit", "Pool.each", "Pool.end_stages", "Ragged.relocated"),
    *(
        f"{crop}.{name}"
        for crop in SECTIONS["Decode pictures"] + SECTIONS["Decode videos"]
        for name in ("sides", "crops", "stage")
    ),
    *(f"{name}.purpose" for name in mx8.transforms.__all__),
}

_HEAD = """\
# API reference

<!-- Made by `python docs/generate.py` from the docstrings. Edit those. -->

All names are in `import mx8shards as mx8`, except for types that calls return: below those stands their module.
The guides show how to use them: [loading](loader.md), [converting](converting.md), [encodings](encodings.md),
[performance](performance.md).
"""


def find(name: str) -> Any:
    """The object that an entry of SECTIONS names."""
    module, colon, rest = name.partition(":")
    if colon:
        return getattr(import_module(f"mx8shards.{module}"), rest)
    found: Any = mx8
    for part in name.split("."):
        found = getattr(found, part)
    return found


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class of ours has, in the order of their definition."""
    seen: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] != "mx8shards":
            continue
        for name, member in vars(base).items():
            is_shown = inspect.isfunction(member) or isinstance(member, property)
            if is_shown and not name.startswith("_") and name not in seen:
                seen.add(name)
                if f"{kind.__name__}.{name}" not in INTERNAL:
                    yield name, member


def docstring(what: Any) -> str:
    """Its own docstring: that of a base class, or the one that dataclasses make up, says nothing about it."""
    return inspect.cleandoc(what.__doc__ or "")


def signature(name: str, what: Any) -> str:
    """A call as one types it: on one line, or one line for each parameter."""
    parameters = [each for each in inspect.signature(what).parameters.values() if each.name != "self"]
    shown = []
    keyword_only = False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            shown.append("*")
        default = "" if each.default is each.empty else f" = {_literal(each.default)}"
        shown.append(f"{each.name}: {_annotation(each.annotation, what)}{default}")
    result = inspect.signature(what).return_annotation
    is_silent = inspect.isclass(what) or result in ("None", inspect.Signature.empty)
    end = "" if is_silent else f" -> {_annotation(result, what)}"
    line = f"{name}({', '.join(shown)}){end}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{name}(", *(f"    {each}," for each in shown), f"){end}"])


def _annotation(annotation: Any, owner: Any) -> str:
    """An annotation as its source has it, but the allowed values instead of the name of a Literal."""
    meant = vars(sys.modules[owner.__module__]).get(annotation) if isinstance(annotation, str) else annotation
    if get_origin(meant) is Literal:
        return f"Literal[{', '.join(map(_literal, get_args(meant)))}]"
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))})"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def fields(kind: type) -> str:
    """The fields of a dataclass as its source has them, comments included."""
    source = textwrap.dedent(inspect.getsource(kind))
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.ClassDef)
    lines = source.splitlines()
    return "\n".join(lines[node.lineno - 1].strip() for node in tree.body if isinstance(node, ast.AnnAssign))


def markdown(text: str) -> str:
    """A docstring as Markdown: its `Args:` become a list."""
    out = []
    for block in re.split(r"\n\n+", text):
        if not block.startswith("Args:\n"):
            out.append(block)
            continue
        out.append("\n".join(f"- **{name}**: {meaning}" for name, meaning in arguments(text).items()))
    return "\n\n".join(out)


def arguments(text: str) -> dict[str, str]:
    """What a docstring says of each argument, by name, in lines that are indented by two spaces."""
    _, _, block = text.partition("\nArgs:\n")
    found = re.split(r"\n(?=\w)", textwrap.dedent(block.partition("\n\n")[0]))
    pairs = (re.sub(r"\n +", "\n  ", each).partition(": ") for each in found if each)
    return {name: meaning for name, _, meaning in pairs}


def entry(name: str) -> str:
    """One public name: its signature or fields, its docstring, its members."""
    what = find(name)
    module, colon, rest = name.partition(":")
    parts = [f"### {rest or name}"]
    if colon and isinstance(what, type) and dataclasses.is_dataclass(what):
        parts.append(_code(fields(what)))
    elif not colon or arguments(docstring(what)):  # else it is made by us alone
        parts.append(_code(signature(rest or name, what)))
    parts.append(markdown(docstring(what)))
    if colon:
        parts.append(f"Defined in `mx8shards.{module}`.")
    if isinstance(what, type):
        parts += [_member(what.__name__, *pair) for pair in members(what) if pair[0] != "to_json"]
    return "\n\n".join(parts)


def _member(owner: str, name: str, member: Any) -> str:
    if isinstance(member, property):
        assert member.fget is not None
        code = f"{owner}.{name}: {_annotation(inspect.signature(member.fget).return_annotation, member.fget)}"
    else:
        code = signature(f"{owner}.{name}", member)
    return f"#### {owner}.{name}\n\n{_code(code)}\n\n{markdown(docstring(member))}"


def errors() -> str:
    """The table of all errors."""
    rows = ["| error | is also | when |", "|---|---|---|"]
    for name in ERRORS:
        also = ", ".join(base.__name__ for base in find(name).__bases__ if base is not mx8.ShardsError)
        rows.append(f"| `{name}` | `{also}` | {' '.join(docstring(find(name)).split())} |")
    return "\n".join(rows)


def _code(text: str) -> str:
    return f"```py\n{text}\n```"


def page() -> str:
    """The whole page."""
    parts = [_HEAD.strip()]
    for title, names in SECTIONS.items():
        parts += [f"## {title}", *map(entry, names)]
    parts.append(errors())
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
