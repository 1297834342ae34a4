"""Does the package cut epochs, name views and draw crops as the specification's tables say?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.format.randomness import uniforms
from mx8shards.format.sizes import parse_size_limit
from mx8shards.kernels import boxes
from mx8shards.order.steps import Steps
from mx8shards.views import Join, Mix, Select, View, Whole

VECTORS = Path(__file__).resolve().parents[2] / "format_spec" / "vectors"


def table(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_bytes())
    return found


def view_of(described: dict[str, Any]) -> View:
    if "whole" in described:
        return Whole(described["whole"])
    if "mix" in described:
        return Mix(view_of(described["of"]), *zip(*described["mix"], strict=True))
    if "select" in described:
        return Select(view_of(described["of"]), described["select"])
    return Join(list(zip(map(view_of, described["join"]), described["starts"], strict=True)))


@pytest.mark.parametrize("described", table("views")["views"], ids=lambda view: view["text"][:8])
def test_a_view_has_the_text_that_the_rules_give_it(described: dict[str, Any]) -> None:
    assert view_of(described).digest == described["text"]


@pytest.mark.parametrize(
    "described", table("views")["resolves"], ids=lambda view: f"{next(iter(view))}-{view['seed']}-{view['epoch']}"
)
def test_a_view_has_the_samples_and_occurrences_that_the_rules_give_it(described: dict[str, Any]) -> None:
    view = view_of(described)
    found, extras = view.resolve(np.arange(len(view)), described["epoch"], described["seed"])
    assert found.tolist() == described["samples"]
    assert extras["occurrence"].tolist() == described["occurrences"]
    assert view.occurrences == described["below"]


@pytest.mark.parametrize(
    "epoch",
    table("steps")["epochs"],
    ids="{0[length]}-{0[position]}-{0[batch_size]}x{0[world_size]}-{0[uneven]}".format,
)
def test_every_rank_gets_the_slices_of_an_epoch_that_the_rules_give_it(epoch: dict[str, Any]) -> None:
    names = ("length", "batch_size", "world_size", "uneven")
    steps = Steps(**{name: epoch[name] for name in names})
    position, found = epoch["position"], []
    for _ in range(steps.left(position)):
        shares = [steps.share(rank, position) for rank in range(steps.world_size)]
        found.append([np.where(one.padding, -1 - one.positions, one.positions).tolist() for one in shares])
        position += steps.size
    assert found == epoch["steps"]
    for rank in range(steps.world_size):
        assert steps.batches(rank, epoch["position"]) == sum(bool(step[rank]) for step in found)


@pytest.mark.parametrize("crop", table("crops")["crops"])
def test_a_random_crop_is_the_box_that_the_rules_draw(crop: dict[str, Any]) -> None:
    asked, found = np.zeros(1, boxes.CROP), np.zeros(1, boxes.BOX)
    asked["kind"], asked["height"], asked["width"], asked["flip"] = boxes.RANDOM, 224, 224, 0.5
    for name in ("scale", "ratio"):
        asked[f"{name}_low"], asked[f"{name}_high"] = crop[name]
    ids = np.array([crop["sample_id"]])
    drawn = uniforms(crop["seed"], crop["epoch"], ids, crop["purpose"], boxes.DRAWS)[0]
    boxes.find_box(asked[0], drawn, crop["width"], crop["height"], found[0])
    left, top, width, height = crop["box"]
    assert [found[0][side] for side in ("left", "top", "right", "bottom")] == [left, top, left + width, top + height]
    assert found[0]["flip"] == (float.fromhex(crop["flip"]) < 0.5)


# writers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", table("writer")["limits"], ids=lambda limit: repr(limit["given"]))
def test_a_size_limit_is_stored_as_the_rules_say(limit: dict[str, Any]) -> None:
    assert parse_size_limit(limit["given"]) == limit["stored"]


@pytest.mark.parametrize("given", table("writer")["refused_limits"], ids=repr)
def test_a_size_limit_that_the_rules_refuse_is_refused(given: Any) -> None:
    with pytest.raises(mx8.SettingError, match="size_limit"):
        parse_size_limit(given)


@pytest.mark.parametrize("case", table("writer")["shards"])
def test_samples_fill_shards_as_the_rules_say(case: dict[str, Any], tmp_path: Path) -> None:
    options = {"size_limit": case["size_limit"], "match_streaming": case["match_streaming"], "hashes": ()}
    with mx8.Writer(tmp_path, columns={"x": "bytes"}, **options) as writer:
        for size in case["payload_bytes"]:
            writer.write({"x": bytes(size)})
    index = json.loads((tmp_path / "index.json").read_bytes())
    assert [shard["samples"] for shard in index["shards"]] == case["samples_per_shard"]


@pytest.mark.parametrize("case", table("writer")["samples"])
def test_a_sample_is_taken_or_refused_as_the_rules_say(case: dict[str, Any], tmp_path: Path) -> None:
    sample = {
        name: bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value
        for name, value in case["sample"].items()
    }
    with mx8.Writer(tmp_path, columns=case["columns"]) as writer:
        if case["refused"] is None:
            writer.write(sample)
        else:
            with pytest.raises(mx8.SchemaError):
                writer.write(sample)
