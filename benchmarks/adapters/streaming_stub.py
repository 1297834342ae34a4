"""How is mosaicml-streaming imported without torchvision and transformers?

The package index's torchvision does not work with a CPU build of torch (its native operators do not load), and
transformers is 100 MB for three names. Streaming needs both only at import: as base classes of its ready-made vision
and text datasets, and for `isinstance` checks on batches of token encodings. Reading MDS needs neither, so empty
classes replace them if the real packages are not installed. litdata needs no such stub.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from typing import Any

STAND_INS = {
    "torchvision.datasets": ["VisionDataset"],
    "torchvision.transforms.functional": ["to_tensor"],
    "transformers.feature_extraction_utils": ["BatchFeature"],
    "transformers.tokenization_utils_base": ["BatchEncoding"],
    "transformers.models.auto.tokenization_auto": ["AutoTokenizer"],
}


def is_installed() -> bool:
    return importlib.util.find_spec("streaming") is not None


def import_streaming() -> Any:
    """Import the real `streaming` package. May be called repeatedly and in any process."""
    if "streaming" not in sys.modules:
        for name, attributes in STAND_INS.items():
            if name.partition(".")[0] not in _REAL:
                _stand_in(name, attributes)
    return importlib.import_module("streaming")


_REAL = {name for name in ("torchvision", "transformers") if importlib.util.find_spec(name) is not None}


def _stand_in(name: str, attributes: list[str]) -> None:
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        part = ".".join(parts[:depth])
        if part not in sys.modules:
            module = types.ModuleType(part, "A stand-in made by benchmarks/adapters/streaming_stub.py.")
            # torch and litdata call find_spec(name), which raises ValueError for a module without a spec.
            module.__spec__ = importlib.machinery.ModuleSpec(part, loader=None, is_package=True)
            module.__path__ = []
            sys.modules[part] = module
    for attribute in attributes:
        setattr(sys.modules[name], attribute, type(attribute, (), {"__module__": name}))
