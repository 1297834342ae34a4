"""Does the package reproduce the specification's vectors for steps, views, random draws, writing and colours?"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mx8shards as mx8
from mx8shards.format.compression import compress
from mx8shards.format.randomness import uniforms
from mx8shards.format.sizes import parse_size_limit
from mx8shards.kernels import boxes
from mx8shards.loading.batch import Batch
from mx8shards.order.steps import Steps
from mx8shards.transforms import ColorJitter, CutMix, Mixup, RandomGrayscale, RandomHorizontalFlip
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
def test_the_text_of_a_view_matches_the_vectors(described: dict[str, Any]) -> None:
    assert view_of(described).digest == described["text"]


@pytest.mark.parametrize("clips", table("views")["clips"], ids=lambda clips: clips["text"][:8])
def test_the_text_of_a_view_of_clips_matches_the_vectors(clips: dict[str, Any]) -> None:
    """The text is compared with the list; tests/unit/test_clip_times.py compares views with both."""
    assert hashlib.sha256(json.dumps(clips["list"]).encode("ascii")).hexdigest() == clips["text"]
    kind, inner, columns, *settings = clips["list"]
    assert (kind, len(inner)) == ("clips", 64)
    assert columns
    assert [name for name, _ in settings] == sorted(name for name, _ in settings)


@pytest.mark.parametrize(
    "described", table("views")["resolves"], ids=lambda view: f"{next(iter(view))}-{view['seed']}-{view['epoch']}"
)
def test_samples_and_occurrences_of_a_view_match_the_vectors(described: dict[str, Any]) -> None:
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
def test_the_slices_of_every_rank_match_the_vectors(epoch: dict[str, Any]) -> None:
    names = ("length", "batch_size", "world_size", "uneven")
    steps = Steps(**{name: epoch[name] for name in names})
    position, found = epoch["position"], []
    for _ in range(steps.left(position)):
        shares = [steps.slice_of(rank, position) for rank in range(steps.world_size)]
        found.append([np.where(one.padding, -1 - one.positions, one.positions).tolist() for one in shares])
        position += steps.size
    assert found == epoch["steps"]
    for rank in range(steps.world_size):
        assert steps.batches(rank, epoch["position"]) == sum(bool(step[rank]) for step in found)


@pytest.mark.parametrize("crop", table("crops")["crops"])
def test_boxes_of_random_crops_match_the_vectors(crop: dict[str, Any]) -> None:
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
def test_stored_size_limits_match_the_vectors(limit: dict[str, Any]) -> None:
    assert parse_size_limit(limit["given"]) == limit["stored"]


@pytest.mark.parametrize("given", table("writer")["refused_limits"], ids=repr)
def test_size_limits_that_the_rules_refuse_are_refused(given: Any) -> None:
    with pytest.raises(mx8.SettingError, match="size_limit"):
        parse_size_limit(given)


@pytest.mark.parametrize("case", table("writer")["shards"])
def test_the_division_of_samples_into_shards_matches_the_vectors(case: dict[str, Any], tmp_path: Path) -> None:
    options = {"size_limit": case["size_limit"], "match_streaming": case["match_streaming"], "hashes": ()}
    with mx8.Writer(tmp_path, columns={"x": "bytes"}, **options) as writer:
        for size in case["payload_bytes"]:
            writer.write({"x": bytes(size)})
    index = json.loads((tmp_path / "index.json").read_bytes())
    assert [shard["samples"] for shard in index["shards"]] == case["samples_per_shard"]


@pytest.mark.filterwarnings("ignore:samples have .* which are not written")  # the law says nothing of warnings
@pytest.mark.parametrize("case", table("writer")["samples"])
def test_samples_are_accepted_or_refused_as_in_the_vectors(case: dict[str, Any], tmp_path: Path) -> None:
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


@pytest.mark.parametrize("case", table("writer")["too_large"])
def test_a_sample_that_would_make_a_shard_reach_four_gibibytes_is_refused(case: dict[str, Any], tmp_path: Path) -> None:
    zeros = bytes(max(case["payload_bytes"]))  # never touched, so the kernel allocates no memory
    writer = mx8.Writer(tmp_path, columns={"x": "bytes"}, size_limit=case["size_limit"], hashes=())
    for i, size in enumerate(case["payload_bytes"]):
        payload = zeros if size == len(zeros) else bytes(size)
        if i == case["refused"]:
            with pytest.raises(mx8.SchemaError, match="4294967295"):
                writer.write({"x": payload})
        else:
            writer.write({"x": payload})
    writer.abandon()


def test_samples_and_options_give_the_snapshot_ids_of_the_vectors(tmp_path: Path) -> None:
    given = table("writer")
    for one in given["publications"]:
        options = {"mode": one["mode"], "metadata": one["metadata"]}
        with mx8.Writer(tmp_path / "data", columns=given["columns"], **options) as writer:
            for sample in one["samples"]:
                writer.write(sample)
        assert writer.snapshot == one["snapshot"], one["mode"]


@pytest.mark.parametrize(("level", "head"), table("writer")["gzip_heads"].items())
def test_gzip_headers_match_the_vectors(level: str, head: str) -> None:
    assert compress(f"gz:{level}", b"a shard")[:10].hex() == head


# random draws of transforms ------------------------------------------------------------------------------------------

COLOURS = table("colours")


def batch_of(images: torch.Tensor, sample_ids: list[int]) -> Batch:
    labels = torch.arange(len(sample_ids))
    values = {"image": images, "label": labels}
    return Batch(values, torch.tensor(sample_ids), epoch=COLOURS["epoch"], seed=COLOURS["seed"])


def picture_of(pixels: list[list[float]]) -> torch.Tensor:
    """Four pixels, [3, 2, 2]."""
    return torch.tensor(pixels, dtype=torch.float64).T.reshape(3, 2, 2)


@pytest.mark.parametrize("case", COLOURS["chosen"], ids="{0[purpose]}".format)
def test_mirrored_and_grey_pictures_match_the_vectors(case: dict[str, Any]) -> None:
    ids, picture = COLOURS["sample_ids"], picture_of(COLOURS["picture"])
    kind, changed = {
        "flip:image": (RandomHorizontalFlip, picture.flip(-1)),
        "grayscale:image": (RandomGrayscale, picture_of(COLOURS["grey"])),
    }[case["purpose"]]
    found = kind(case["p"])(batch_of(picture.repeat(len(ids), 1, 1, 1), ids))["image"]
    wanted = torch.stack([changed if chosen else picture for chosen in case["chosen"]])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert 0 < sum(case["chosen"]) < len(ids)


@pytest.mark.parametrize("case", COLOURS["jitters"], ids=lambda case: f"{case['sample_id']}-{case['ranges'][0]}")
def test_changed_colours_match_the_vectors(case: dict[str, Any]) -> None:
    ranges = dict(zip(("brightness", "contrast", "saturation", "hue"), map(tuple, case["ranges"]), strict=True))
    batch = batch_of(picture_of(COLOURS["picture"])[None], [case["sample_id"]])
    found = ColorJitter(**ranges)(batch)["image"][0]
    torch.testing.assert_close(found, picture_of(case["pixels"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", COLOURS["mixes"], ids="{0[kind]}-{0[alpha]}-{0[p]}".format)
def test_mixed_pictures_and_labels_match_the_vectors(case: dict[str, Any]) -> None:
    ids, (height, width) = COLOURS["sample_ids"], (case["height"], case["width"])
    rows = torch.arange(len(ids))
    images = rows.to(torch.float64)[:, None, None, None].repeat(1, 3, height, width)
    mix = {"mixup": Mixup, "cutmix": CutMix}[case["kind"]](classes=len(ids), alpha=case["alpha"], p=case["p"])
    found = mix(batch_of(images, ids))
    share, partner = torch.tensor(case["shares"], dtype=torch.float64), torch.tensor(case["partners"])
    wanted = images * share[:, None, None, None] + images[partner] * (1 - share)[:, None, None, None]
    if case["kind"] == "cutmix":
        wanted = images.clone()
        for row, (left, top, right, bottom) in enumerate(case["boxes"]):
            wanted[row, :, top:bottom, left:right] = float(partner[row])
    torch.testing.assert_close(found["image"], wanted, rtol=0, atol=1e-4)
    labels = torch.zeros(len(ids), len(ids), dtype=torch.float64)
    labels[rows, rows] += share
    labels[rows, partner] += 1 - share
    torch.testing.assert_close(found["label"].to(torch.float64), labels, rtol=0, atol=1e-4)
