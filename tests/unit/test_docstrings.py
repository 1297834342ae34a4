"""Does the docstring of every public name explain it, and each of its arguments?"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import mx8shards as mx8
from docs.generate import ERRORS, SECTIONS, arguments, docstring, find, members

NAMES = [name for names in SECTIONS.values() for name in names]
CALLS = {name: find(name) for name in NAMES if ":" not in name}
RETURNED = {name: find(name) for name in NAMES if ":" in name and arguments(docstring(find(name)))}
MEMBERS = {
    f"{name}.{member}": found for name in NAMES if isinstance(find(name), type) for member, found in members(find(name))
}


def test_the_api_reference_has_every_public_name() -> None:
    names = {name.partition(".")[0] for name in CALLS}
    assert names | set(ERRORS) == set(mx8.__all__)


@pytest.mark.parametrize("what", [*map(find, [*NAMES, *ERRORS]), *MEMBERS.values()], ids=[*NAMES, *ERRORS, *MEMBERS])
def test_every_public_name_has_a_docstring_of_its_own(what: Any) -> None:
    text = docstring(what)
    assert text
    assert not text.startswith(f"{getattr(what, '__name__', '')}(")  # docstrings that dataclasses generate


WITH_ARGUMENTS = {**CALLS, **RETURNED, **{name: each for name, each in MEMBERS.items() if inspect.isfunction(each)}}


@pytest.mark.parametrize("what", WITH_ARGUMENTS.values(), ids=WITH_ARGUMENTS)
def test_every_argument_of_a_public_call_is_explained(what: Any) -> None:
    expected = [each for each in inspect.signature(what).parameters if each != "self"]
    explained = arguments(docstring(what))
    assert sorted(explained) == sorted(expected)
    assert all(explained.values())
