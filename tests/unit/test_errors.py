"""Are all errors public and picklable, and do they keep their subject and place on the way up?"""

from __future__ import annotations

import pickle
import re

import pytest

import mx8shards as mx8
from mx8shards import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, mx8.ShardsError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_public(kind: type[mx8.ShardsError]) -> None:
    assert getattr(mx8, kind.__name__) is kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickled_error_keeps_its_message(kind: type[mx8.ShardsError]) -> None:
    error = kind(subject="data/a.mds", place="$.x", expected="1", found="2", hint="so")
    assert str(error) == "data/a.mds: at $.x: expected 1, got 2 (so)"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(kind(str(error))) == str(error)  # as torch re-raises errors of its workers


def test_at_prepends_places_and_keeps_the_first_subject() -> None:
    error = mx8.FormatError(place="[0]", expected="str", found="int").at(subject="index.json", place="$.names")
    assert str(error.at(subject="other")) == "index.json: at $.names[0]: expected str, got int"
    assert str(mx8.FormatError("bad").at(place="sample 3").at(place="shard 1")) == "shard 1: sample 3: bad"


def test_repr_shows_the_message() -> None:
    assert repr(mx8.LoaderError("gone", subject="epoch 0")) == "LoaderError('epoch 0: gone')"


@pytest.mark.parametrize(("extra", "told"), [("video", '"mx8shards[video]"'), (None, "no_such_package")])
def test_a_missing_package_is_named_with_what_installs_it(extra: str | None, told: str) -> None:
    with pytest.raises(mx8.MissingPackageError, match=re.escape(f"(pip install {told})")):
        errors.require("no_such_package.inner", extra)
