"""Do ready-made datasets of pictures, texts and videos give Streaming's samples, or name the missing package?"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mx8shards.errors import MissingPackageError
from mx8shards.streaming import MDSWriter
from mx8shards.streaming.multimodal import StreamingOutsideGIWebVid
from mx8shards.streaming.text import StreamingC4, StreamingPile
from mx8shards.streaming.vision import StreamingCIFAR10

COUNT = 5


def picture(i: int, mode: str = "RGB") -> Image.Image:
    shape = (2, 3) if mode == "L" else (2, 3, 3)
    return Image.fromarray(np.full(shape, i, np.uint8))


def coco(i: int) -> dict[str, Any]:
    boxes, labels = np.full((2, 4), i, np.float32), np.array([i, 9])
    return {"img": picture(i, "L"), "img_id": i, "htot": 2, "wtot": 3, "bbox_sizes": boxes, "bbox_labels": labels}


def wiki(i: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: np.arange(i, i + 6, dtype=np.int32).tobytes() for name in ("input_ids", "input_mask", "segment_ids")
    }
    found["masked_lm_positions"] = np.array([1, 4], np.int32).tobytes()
    found["masked_lm_ids"] = np.array([i, 70], np.int32).tobytes()
    found["masked_lm_weights"] = np.ones(2, np.float32).tobytes()
    return found | {"next_sentence_labels": np.array([1], np.int32).tobytes()}


def shown(x: Any) -> Any:
    return x.size, x.getpixel((0, 0))


Sample = Callable[[int], dict[str, Any]]
LABELS: tuple[dict[str, str], Sample] = {"x": "pil", "y": "int"}, lambda i: {"x": picture(i), "y": i}
MASKS: tuple[dict[str, str], Sample] = {"x": "pil", "y": "pil"}, lambda i: {"x": picture(i), "y": picture(9, "L")}
BOXES: tuple[dict[str, str], Sample] = (
    dict.fromkeys(("img_id", "htot", "wtot"), "int")
    | {"img": "pil", "bbox_sizes": "ndarray:float32", "bbox_labels": "ndarray:int64"},
    coco,
)
WIKI: tuple[dict[str, str], Sample] = dict.fromkeys(wiki(0), "bytes"), wiki
VIDEOS: tuple[dict[str, str], Sample] = (
    {"content": "bytes", "video_id": "str"},
    lambda i: {"content": bytes([i]), "video_id": f"{i}"},
)
CASES: dict[str, tuple[str, tuple[dict[str, str], Sample], dict[str, Any]]] = {
    "StreamingCIFAR10": ("vision", LABELS, {"transform": shown, "target_transform": lambda y: y + 1}),
    "StreamingImageNet": ("vision", LABELS, {"transforms": lambda x, y: (shown(x), -y)}),
    "StreamingADE20K": ("vision", MASKS, {"joint_transform": lambda pair: (shown(pair[0]), shown(pair[1]))}),
    "StreamingCOCO": ("vision", BOXES, {"transform": lambda x, *others: (shown(x), *others)}),
    "StreamingEnWiki": ("text", WIKI, {}),
    "StreamingInsideWebVid": ("multimodal", VIDEOS, {}),
}


def written(root: Path, form: tuple[dict[str, str], Sample]) -> str:
    columns, sample = form
    with MDSWriter(out=str(root), columns=columns) as writer:
        for i in range(COUNT):
            writer.write(sample(i))
    return str(root)


def plain(found: Any) -> Any:
    """The sample with lists in the place of arrays."""
    if isinstance(found, dict):
        return {name: plain(value) for name, value in found.items()}
    if isinstance(found, tuple | list):
        return [plain(value) for value in found]
    return (found.dtype.str, found.tolist()) if isinstance(found, np.ndarray) else found


@pytest.mark.streaming
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("name", CASES)
def test_samples_and_their_order_are_those_of_streaming(name: str, tmp_path: Path, streaming: Any) -> None:
    package, form, settings = CASES[name]
    root = written(tmp_path, form)
    found = []
    for prefix in ("mx8shards.streaming", "streaming"):
        kind = getattr(importlib.import_module(f"{prefix}.{package}"), name)
        dataset = kind(local=root, batch_size=2, shuffle=True, **settings)
        found.append(plain([*dataset, dataset[3]]))
    assert len(found[0]) > COUNT
    assert found[0] == found[1]


def test_a_video_in_a_file_of_its_own_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(b"video")
    root = written(tmp_path / "data", ({"content_path": "str"}, lambda i: {"content_path": ("a.mp4", "../a")[i > 0]}))
    places = {"extra_local": str(tmp_path / "local"), "extra_remote": str(tmp_path / "videos")}
    dataset = StreamingOutsideGIWebVid(local=root, batch_size=1, **places)
    assert dataset[0]["content"] == b"video"
    with pytest.raises(ValueError, match="content_path"):
        dataset[1]


@pytest.mark.parametrize("kind", [StreamingC4, StreamingPile])
def test_a_missing_tokenizer_package_is_named(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    root = written(tmp_path, ({"text": "str"}, lambda i: {"text": f"{i}"}))
    with pytest.raises(MissingPackageError, match=r"pip install transformers\)"):
        kind(local=root, batch_size=1, tokenizer_name="none", max_seq_len=8, group_method="truncate")


def test_a_missing_torchvision_is_named_unless_there_is_a_transform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.transforms.functional", None)
    root = written(tmp_path, LABELS)
    assert StreamingCIFAR10(local=root, batch_size=1, transform=shown)[2] == (((3, 2), (2, 2, 2)), 2)
    with pytest.raises(MissingPackageError, match=r"pip install torchvision\)"):
        StreamingCIFAR10(local=root, batch_size=1)[2]
