"""How does `import streaming` come to mean mx8shards.streaming, for code that nobody wants to edit?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from mx8shards.errors import SettingError

_THEIRS, _OURS = "streaming", "mx8shards.streaming"

# Modules of Streaming that have no equivalent, and why.
_LEFT_OUT = {
    "streaming.base.shared": "there is no shared memory with names, and nothing to clean",
    "streaming.base.constant": "there is no shared memory with names, and no loop that polls",
    "streaming.base.registry_utils": "`streams_registry` of streaming.base.stream registers classes of streams",
    "streaming.base.format.base.writer": "MDSWriter and JSONWriter have no base class in common",
    "streaming.base.format.json.encodings": "the encodings are str, int and float",
    "streaming.base.format.xsv.encodings": "the encodings are str, int and float",
    "streaming.vision.convert": "`mx8shards convert imagefolder` converts pictures",
    "streaming.text.convert": "use the script of Streaming, with `import streaming` as it is",
    "streaming.multimodal.convert": "`mx8shards convert videofolder` converts videos",
    "streaming.simulation": "use the simulator of Streaming: the order is the same",
}


class _Alias(MetaPathFinder, Loader):
    """Finds our module for each name of Streaming's."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for `streaming` and its modules; ModuleNotFoundError for one that we do not have."""
        if fullname != _THEIRS and not fullname.startswith(f"{_THEIRS}."):
            return None
        found = find_spec(_ours(fullname))
        if found is None:
            because = next((text for name, text in _LEFT_OUT.items() if f"{fullname}.".startswith(f"{name}.")), "")
            hint = "mx8shards.streaming.install() was called, and mx8shards has no such module"
            message = f"No module named {fullname!r}: {hint}{because and f'; {because}'}"
            raise ModuleNotFoundError(message, name=fullname)
        return ModuleSpec(fullname, self, is_package=found.submodule_search_locations is not None)

    def create_module(self, spec: ModuleSpec) -> None:
        """None: the default module, which is replaced at once."""

    def exec_module(self, module: ModuleType) -> None:
        """Put our module in the place of the new one, and those that it has imported beside it.

        Importing one of these later would set it as an attribute of this one, which may have a function of that name.
        """
        ours = import_module(_ours(module.__name__))
        for name in [name for name in sys.modules if name.startswith(f"{ours.__name__}.")]:
            sys.modules.setdefault(_THEIRS + name.removeprefix(_OURS), sys.modules[name])
        sys.modules[module.__name__] = ours


def _ours(name: str) -> str:
    return _OURS + name.removeprefix(_THEIRS)


_alias = _Alias()


def install() -> None:
    """Let `import streaming`, and the imports of its modules, give those of mx8shards in this process.

    Call it before anything imports `streaming`. It may be called several times. Workers that are spawned, not forked,
    start from the beginning, and need it again: call it in the main module, outside of `if __name__ == "__main__"`.
    """
    found = sys.modules.get(_THEIRS)
    if found is not None and found is not sys.modules.get(_OURS):
        expected = "no module of this name that was imported before"
        place = getattr(found, "__file__", None) or "a module without a file"
        raise SettingError(subject="streaming", expected=expected, found=str(place), hint="call install() first")
    if _alias not in sys.meta_path:
        sys.meta_path.insert(0, _alias)
