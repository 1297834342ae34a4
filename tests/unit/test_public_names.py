"""Are public names and allowed values visible in `dir` and in signatures?"""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any, get_args, get_type_hints

import pytest

import mx8shards as mx8
from mx8shards.loading.output_kinds import OUTPUT_KINDS
from mx8shards.loading.planning.shard_table import IOS
from mx8shards.loading.reporting.lost_samples import ON_ERROR
from mx8shards.order.steps import UNEVEN


def test_dir_shows_only_the_public_names() -> None:
    code = "import mx8shards as mx8, mx8shards.cli, mx8shards.loading.loader; mx8.Loader; print(*dir(mx8))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in shown if not name.startswith("__")] == sorted(mx8.__all__)


def test_transforms_are_available_without_an_import() -> None:
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
def test_the_signature_of_loader_shows_the_allowed_values(name: str, values: Any) -> None:
    shown = str(inspect.signature(mx8.Loader).parameters[name])
    assert all(repr(value) in shown.replace('"', "'") for value in values)
    hint = get_type_hints(mx8.Loader.__init__, {**vars(sys.modules["mx8shards.loading.loader"])})[name]
    literal = hint if get_args(hint)[:1] == values[:1] else get_args(hint)[0]
    assert set(get_args(literal)) == set(values)
