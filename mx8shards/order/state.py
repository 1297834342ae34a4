"""What does a checkpoint of a Loader (state_dict) contain, and does it fit another loader?

A state is equal on all ranks: it holds the order position after the last completed global step, and identifies the data
and the order. It is small JSON, and resuming takes constant time from any position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from mx8shards.errors import FormatError, IntegrityError, LoaderError

DIALECT = "mx8shards"  # distinguishes these states from those of other loaders
VERSION = 1

_TYPES: dict[str, type] = {
    "snapshot": str,
    "view": str,
    "order": dict,
    "seed": int,
    "epoch": int,
    "position": int,
    "lost": dict,
    "pixels": dict,
}
_MOST_SHOWN = 300  # characters of a value in a message
_MOST = 1 << 62  # the limit of epochs and positions, so that sums of two stay within 64 bits
_NAMES = {str: "str", dict: "object", int: "int"}
_HINTS = {
    "snapshot": "a state can only be resumed with the data it was taken from",
    "view": "select, where, clips, concat or mix were called with other arguments than for the state",
    "order": "create the loader with the shuffle= or order= of the state; if its description contains a number of "
    "nodes, create that order, which also works on any other number of nodes",
    "seed": "create the loader with the seed= of the state",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """An epoch and order position, and the data, view, order and seed that they refer to.

    `snapshot` is the snapshot's id, or several ids for joined datasets; `view` is a hash of the view; `order` is the
    order's description; `position` is the number of order positions that completed global steps have consumed. At the
    end of an epoch, `position` is 0 and `epoch` is the next one. `lost` has the number and a digest of the samples that
    this rank could not deliver; it is information only. `pixels` names the decoder that each column used: another one
    gives slightly different values.
    """

    snapshot: str
    view: str
    order: Mapping[str, Any]
    seed: int
    epoch: int
    position: int
    lost: Mapping[str, Any] = field(default_factory=lambda: {"count": 0, "digest": ""})
    pixels: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The state as JSON-able values."""
        return {"state": DIALECT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The state that `to_json` returned; FormatError with a JSON path for anything else."""
        try:
            return cls(**_checked(value))
        except FormatError as error:
            raise error.at(subject="state") from None
        except RecursionError:
            raise FormatError("nested too deeply", subject="state") from None

    def check(self, now: State, length: int) -> None:
        """Check that a loader whose own state is `now`, and whose order has `length` positions, can resume from this.

        IntegrityError if the data or the view differ, LoaderError if the order, the seed or the length do.
        """
        for name in ("snapshot", "view"):
            if getattr(self, name) != getattr(now, name):
                raise IntegrityError(
                    subject="state",
                    place=f"$.{name}",
                    expected=f"{getattr(now, name)} (this loader's)",
                    found=_shown(getattr(self, name)),
                    hint=_HINTS[name],
                )
        for name in ("order", "seed"):
            if not _is_equal(getattr(self, name), getattr(now, name)):
                raise LoaderError(
                    subject="state",
                    place=f"$.{name}",
                    expected=f"{getattr(now, name)!r} (this loader's)",
                    found=_shown(getattr(self, name)),
                    hint=_HINTS[name],
                )
        if self.position > length:
            raise LoaderError(
                subject="state", place="$.position", expected=f"at most {length} (an epoch)", found=str(self.position)
            )


def _is_equal(theirs: object, ours: object) -> bool:
    """Whether they are equal; False if they are nested too deeply for Python to compare."""
    try:
        return theirs == ours
    except RecursionError:
        return False


def _shown(value: object) -> str:
    """An untrusted value as text for a message, limited to about 300 characters."""
    if isinstance(value, int) and abs(value) > 1 << 64:
        return f"an int of {value.bit_length()} bits"
    try:
        text = value if isinstance(value, str) else repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or containing an int of too many digits for Python
        return f"a value of type {type(value).__name__} that cannot be shown"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _checked(value: Any) -> dict[str, Any]:
    """The fields of a state, after checking the type and range of each."""
    if not isinstance(value, Mapping):
        raise FormatError(place="$", expected="object", found=type(value).__name__)
    for name, wanted in (("state", DIALECT), ("version", VERSION)):
        found = value.get(name)
        if type(found) is not type(wanted) or found != wanted:
            raise FormatError(place=f"$.{name}", expected=repr(wanted), found=_shown(found))
    for name, kind in _TYPES.items():
        if name not in value:
            raise FormatError(place="$", expected=f"a key {name!r}", found="none")
        if type(value[name]) is not kind:
            raise FormatError(place=f"$.{name}", expected=_NAMES[kind], found=type(value[name]).__name__)
    for name in ("epoch", "position"):
        if not 0 <= value[name] <= _MOST:
            raise FormatError(place=f"$.{name}", expected=f"an int from 0 to {_MOST}", found=_shown(value[name]))
    lost = value["lost"]
    if lost.keys() != {"count", "digest"} or type(lost["count"]) is not int or type(lost["digest"]) is not str:
        raise FormatError(place="$.lost", expected="a count and a digest", found=_shown(lost))
    if not 0 <= lost["count"] <= _MOST:
        raise FormatError(place="$.lost.count", expected=f"an int from 0 to {_MOST}", found=_shown(lost["count"]))
    if not all(type(name) is type(path) is str for name, path in value["pixels"].items()):
        raise FormatError(place="$.pixels", expected="a name for each column", found=_shown(value["pixels"]))
    unknown = sorted(_shown(name) for name in set(value) - {"state", "version", *_TYPES})
    if unknown:
        raise FormatError(place="$", expected="no other keys", found=_shown(", ".join(map(repr, unknown))))
    return {name: value[name] for name in _TYPES}
