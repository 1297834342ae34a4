"""Does a user find the names, the values and the arguments that are there, by `dir`, signatures and `help`?"""

from __future__ import annotations

import inspect
import pydoc
import re
import subprocess
import sys
from typing import Any, get_args, get_type_hints

import pytest

import mx8shards as mx8
from mx8shards.loading.batch import OUTPUT_KINDS, Batch
from mx8shards.loading.planning.shard_table import IOS
from mx8shards.loading.ragged import Ragged
from mx8shards.loading.reporting.lost_samples import ON_ERROR
from mx8shards.order.steps import UNEVEN


def test_dir_shows_the_public_names_and_nothing_else() -> None:
    code = "import mx8shards as mx8, mx8shards.cli, mx8shards.loading.loader; mx8.Loader; print(*dir(mx8))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in shown if not name.startswith("__")] == sorted(mx8.__all__)


def test_transforms_need_no_import_of_their_own() -> None:
    code = "import sys, mx8shards as mx8; assert 'torch' not in sys.modules; print(mx8.transforms.Normalize.__name__)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "Normalize\n"
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("shuffle", (False, True)),
        ("uneven", UNEVEN),
        ("on_error", ON_ERROR),
        ("io", IOS),
        ("output", OUTPUT_KINDS),
        ("device", ("cpu", "cuda")),
    ],
)
def test_the_signature_of_a_loader_shows_the_values_that_are_allowed(name: str, values: Any) -> None:
    shown = str(inspect.signature(mx8.Loader).parameters[name])
    assert all(repr(value) in shown.replace('"', "'") for value in values)
    hint = get_type_hints(mx8.Loader.__init__, {**vars(sys.modules["mx8shards.loading.loader"])})[name]
    literal = hint if get_args(hint)[:1] == values[:1] else get_args(hint)[0]
    assert set(get_args(literal)) == set(values)


EXPLAINED = [
    *(
        mx8.Loader,
        mx8.Pool,
        Batch,
        Ragged,
        Ragged.padded,
        Ragged.packed,
        Ragged.view,
        Batch.map,
        Batch.replace,
        Batch.to,
    ),
    *(mx8.Loader.set_epoch, mx8.Loader.ids, mx8.Loader.load_state_dict),
]


@pytest.mark.parametrize("what", EXPLAINED, ids=lambda what: what.__qualname__)
def test_help_explains_every_argument(what: Any) -> None:
    text = pydoc.plain(pydoc.render_doc(what))
    for name in inspect.signature(what).parameters:
        if name != "self":
            assert re.search(rf"^[ |]*{name}  +\S", text, re.MULTILINE), name


@pytest.mark.parametrize("kind", [mx8.Loader, Batch, Ragged, mx8.Pool])
def test_every_public_method_has_a_word_of_help(kind: type) -> None:
    for name, member in inspect.getmembers(kind):
        if not name.startswith("_") and (callable(member) or isinstance(member, property)):
            assert inspect.getdoc(member), name
