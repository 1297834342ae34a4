"""Random mutations of datasets: does a reader give an error or valid samples?

`python -m tests.property.mutations KIND FIRST COUNT [LOG]` tries COUNT mutations of one kind, numbered from FIRST, each
with a timeout of ten seconds and limited memory. Each must give a ShardsError, or samples of the right number and size.
A mutation depends only on its number, so COUNT 1 repeats mutation FIRST. The last line of LOG names the mutation that
killed the process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mx8shards as mx8
from tests import reference
from tests.fast_directory import FAST_ROOT
from tests.strategies import picture

ALARM_S = 10
SPARE_BYTES = 768 << 20  # beyond the memory mapped at the start; the datasets have a few KiB

Files = dict[str, bytes]
Rng = random.Random


# the datasets ---------------------------------------------------------------------------------------------------------

COLUMNS = {
    "array": "ndarray",
    "blob": "bytes",
    "fixed": "ndarray:int16:2,3",
    "id": "int",
    "json": "json",
    "name": "str",
    "number": "float32",
    "picture": "pil",
    "small": "ndarray:uint8",
    "u": "uint8",
}


def samples(count: int) -> list[dict[str, Any]]:
    return [
        {
            "array": np.arange(i + 1, dtype="float32"),
            "blob": bytes([i]) * (i * 5 % 17),
            "fixed": np.full((2, 3), i, "int16"),
            "id": i * 1000,
            "json": {"i": [i, None]},
            "name": f"#{i}",
            "number": i / 2,
            "picture": picture("RGB", (2, i + 1), i),
            "small": np.full((1, i + 1), i, "uint8"),
            "u": i,
        }
        for i in range(count)
    ]


@dataclass(frozen=True)
class Victim:
    """A dataset before mutations, and its samples."""

    files: Files
    payloads: list[dict[str, bytes]]
    snapshot: str
    ours: bool
    hashed: bool

    def targets(self, kind: str) -> list[str]:
        """The files that a mutation of this kind may change."""
        tests: dict[str, Callable[[str], bool]] = {
            "index": lambda name: name == "index.json",
            "kept": lambda name: self.snapshot[7:] in name,
            "sidecar": lambda name: "/sidecars/" in name,
        }
        is_target = tests.get(kind, lambda name: name.startswith("shard"))
        return [name for name in sorted(self.files) if is_target(name)]


def make_victim(root: Path, *, ours: bool, compression: str | None, hashes: tuple[str, ...] = ()) -> Victim:
    made = samples(9)
    if ours:
        for start in (0, 5):
            mode = "append" if start else "create"
            with mx8.Writer(
                root, columns=COLUMNS, compression=compression, hashes=hashes, mode=mode, size_limit=1200, threads=1
            ) as writer:
                for sample in made[start : start + 5]:
                    writer.write(sample)
    else:
        from mx8shards.format.encodings import get_encoding

        coders = {name: get_encoding(encoding) for name, encoding in COLUMNS.items()}
        encoded = [{name: coders[name].encode(value) for name, value in sample.items()} for sample in made]
        shards = [encoded[:4], [], encoded[4:]]
        reference.write_dataset(root, COLUMNS, shards, compression=compression, hashes=hashes)
    paths = [path for path in root.rglob("*") if path.is_file() and path.name != "lock"]
    files = {str(path.relative_to(root)): path.read_bytes() for path in paths}
    payloads = reference.read_dataset(root)
    snapshot = mx8.Dataset(root).snapshot
    return Victim(files, payloads, snapshot, ours, bool(hashes))


def victims(kind: str, scratch: Path) -> list[Victim]:
    def make(*, ours: bool, compression: str | None, hashes: tuple[str, ...] = ()) -> Victim:
        root = scratch / "victim"
        try:
            return make_victim(root, ours=ours, compression=compression, hashes=hashes)
        finally:
            shutil.rmtree(root)

    if kind in ("kept", "sidecar"):
        return [make(ours=True, compression=compression) for compression in (None, "zstd")]
    if kind == "frame":
        names = ["zstd", "zstd", "zstd:19", "gz", "bz2", "br", "snappy"]
        return [make(ours=i % 2 == 1, compression=c, hashes=("sha1",) * (i % 3 == 2)) for i, c in enumerate(names)]
    if kind == "index":
        foreign = [make(ours=False, compression=c, hashes=h) for c in (None, "zstd") for h in ((), ("md5", "sha256"))]
        return [*foreign, make(ours=True, compression=None)]
    return [make(ours=ours, compression=None, hashes=hashes) for ours in (False, True) for hashes in ((), ("sha1",))]


# mutations of bytes ---------------------------------------------------------------------------------------------------

WORDS = [0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 1 << 16, 0x7FFFFFFF, 1 << 31, 0xFFFFFFFF, 0xFFFFFFFC]


def mutate_bytes(data: bytes, rng: Rng, *, within: int | None = None) -> bytes:
    """Make one to three changes, all before offset `within` if given."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        end = min(len(changed), within or len(changed))
        rng.choice(CHANGES)(changed, rng.randrange(end + 1), rng)
    return bytes(changed)


def _flip(data: bytearray, at: int, rng: Rng) -> None:
    if at < len(data):
        data[at] ^= 1 << rng.randrange(8)


def _word(data: bytearray, at: int, rng: Rng) -> None:
    at &= ~3
    data[at : at + 4] = struct.pack("<I", rng.choice([*WORDS, len(data), len(data) + 4, rng.randrange(1 << 32)]))


def _nudge(data: bytearray, at: int, rng: Rng) -> None:
    at &= ~3
    if at + 4 <= len(data):
        (word,) = struct.unpack_from("<I", data, at)
        struct.pack_into("<I", data, at, (word + rng.choice([-8, -4, -1, 1, 4, 8, 256])) % (1 << 32))


def _swap(data: bytearray, at: int, rng: Rng) -> None:
    at, other = at & ~3, rng.randrange(len(data) + 1) & ~3
    data[at : at + 4], data[other : other + 4] = data[other : other + 4], data[at : at + 4]


def _insert(data: bytearray, at: int, rng: Rng) -> None:
    data[at:at] = rng.randbytes(rng.choice([1, 4, 30]))


def _repeat(data: bytearray, at: int, rng: Rng) -> None:
    data[at:at] = data[at : at + rng.choice([1, 4, 100])]


def _remove(data: bytearray, at: int, rng: Rng) -> None:
    del data[at : at + rng.choice([1, 4, 30])]


def _truncate(data: bytearray, at: int, rng: Rng) -> None:
    del data[at:]


def _zero(data: bytearray, at: int, rng: Rng) -> None:
    count = min(rng.choice([4, 16, 400]), len(data) - at)
    data[at : at + count] = bytes(count)


def _fill(data: bytearray, at: int, rng: Rng) -> None:
    count = min(rng.choice([1, 4, 16]), len(data) - at)
    data[at : at + count] = rng.randbytes(count)


def _append(data: bytearray, at: int, rng: Rng) -> None:
    data += rng.choice([b"\0", bytes(1000), bytes(data)])


CHANGES = [_flip, _flip, _word, _nudge, _swap, _insert, _repeat, _remove, _truncate, _zero, _fill, _append]


# mutations of JSON ----------------------------------------------------------------------------------------------------

SCALARS: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        8,
        255,
        1 << 31,
        (1 << 32) - 1,
        1 << 32,
        1 << 53,
        1 << 63,
        1 << 64,
        -(1 << 63),
    ),
    *(0.0, 2.0, 1.5, -0.0, 1e308, float("nan"), float("inf"), 10**30, "", "\0", "a", "é", "\ud800", "x" * 5000),
    *("mds", "json", "zstd", "zstd:3", "gz:0", "int", "str", "bytes", "uint8", "ndarray", "ndarray:uint8:1", "pil"),
    *("../x", "/etc/passwd", "a/b", ".hidden", "shard.00000.mds", "shard.00001.mds", "index.json", ".", "a//b"),
    *("ndarray:uint8:4294967295", "ndarray:uint8:99999,99999,99999", "ndarray:int16:6", "pkl", "64mb", [], {}, [[]]),
]
NESTED = "@nested@"


def mutate_json(data: bytes, rng: Rng) -> bytes:
    value = json.loads(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        nodes = list(containers(value))
        holder = rng.choice(nodes)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            continue
        _change_node(holder, rng.choice(keys), rng, nodes)
    if rng.random() < 0.1:
        value = rng.choice([value, [value], {"version": 2}, value.get("shards"), None, {**value, "other": SCALARS}])
    text = json.dumps(value, ensure_ascii=rng.random() < 0.9)
    depth = rng.choice([1, 3, 900, 100_000])
    opened, closed = rng.choice([("[", "]"), ('{"a": ', "}")])
    text = text.replace(f'"{NESTED}"', opened * depth + "0" + closed * depth)
    return text.encode("utf-8", "surrogatepass")


def containers(value: Any) -> Iterator[Any]:
    """The containers in a JSON value; shards occur more often than side-cars."""
    if isinstance(value, (dict, list)):
        yield value
        for child in value.values() if isinstance(value, dict) else value:
            yield from containers(child)


def _change_node(holder: Any, key: Any, rng: Rng, nodes: list[Any]) -> None:
    old = holder[key]
    kind = rng.randrange(10)
    if kind <= 3:
        holder[key] = rng.choice(SCALARS)
    elif kind == 4 and type(old) is int:
        holder[key] = rng.choice([old - 1, old + 1, old * 2, -old, old + 4, old << 32])
    elif kind == 5:
        holder.pop(key)
    elif kind == 6:
        holder[key] = json.loads(json.dumps(rng.choice(nodes)))
    elif kind == 7 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), json.loads(json.dumps(old)))
    elif kind == 8 and isinstance(holder, dict):
        holder[rng.choice(["extra", "bytes", "blake3", "zz", "é", "sha256", "samples"])] = old
    elif kind == 9:
        holder[key] = NESTED
    else:
        holder[key] = str(old)


def mutate(kind: str, name: str, data: bytes, rng: Rng) -> bytes:
    if kind == "index" and rng.random() < 0.8:
        return mutate_json(data, rng)
    if kind == "table":
        return mutate_bytes(data, rng, within=4 * (int.from_bytes(data[:4], "little") + 2))
    if kind == "header":
        table = np.frombuffer(data, "<u4", int.from_bytes(data[:4], "little") + 1, 4)
        at = int(rng.choice(table.tolist()))
        return data[:at] + mutate_bytes(data[at : at + 40], rng, within=28) + data[at + 40 :]
    return mutate_bytes(data, rng)


# the reader -----------------------------------------------------------------------------------------------------------


class WrongAnswerError(AssertionError):
    """The reader returned wrong data."""


def expect(condition: bool, what: object) -> None:
    if not condition:
        raise WrongAnswerError(what)


def examine(root: Path, victim: Victim, kind: str, rng: Rng) -> str:
    """Read the dataset in every way. Returns "refused" or "read"."""
    verify = rng.choice(["structure", "shard"])
    link = f"{root}@{victim.snapshot}" if kind == "kept" else root
    try:
        dataset = mx8.Dataset(link, verify=verify, cache_dir=root / "cache")
    except mx8.ShardsError as error:
        expect(bool(str(error)), error)
        expect(kind in ("index", "kept"), f"opening looked at more than the index: {error}")
        expect(not victim.ours or type(error) is mx8.IntegrityError, error)
        return "refused"
    expect(not (victim.ours and kind in ("index", "kept")), "a changed index of ours was accepted")
    if rng.random() < 0.1:
        check(link, victim, kind)
    with dataset:
        found = read_samples(dataset, rng)
        if kind != "index":
            expect(len(dataset) == len(victim.payloads), len(dataset))
            if verify == "shard" and (victim.hashed or victim.ours):
                compare(found, victim.payloads)
        if kind == "index" or victim.ours is False:
            compare(found, samples_by_reference(root))
        read_columns(dataset, victim, exact=kind == "sidecar")
    return "read" if len(found) == len(dataset) else "refused"


def check(link: str | Path, victim: Victim, kind: str) -> None:
    """Assert that `verify` gives a report, and finds every change in files with content hashes."""
    try:
        report = mx8.verify(link, data=True)
    except mx8.ShardsError:
        return
    expect(not (victim.ours and report.ok), f"verify found nothing wrong in a changed {kind}")


def read_samples(dataset: mx8.Dataset, rng: Rng) -> dict[int, dict[str, bytes]]:
    """The payloads of all readable samples, or of some if there are many."""
    count = len(dataset)
    positions = range(count) if count <= 40 else {0, 1, count - 1, *(rng.randrange(count) for _ in range(20))}
    found = {}
    for i in positions:
        with contextlib.suppress(mx8.ShardsError):
            payloads = {name: bytes(dataset.payload(i, name)) for name in dataset.columns}
            found[i] = payloads
            sample = dataset[i]
            expect(sample.keys() == dataset.columns.keys(), sample)
            if dataset.columns.get("id") == "int":
                expect(sample["id"] == int.from_bytes(payloads["id"], "little", signed=True), sample)
    return found


def samples_by_reference(root: Path) -> dict[int, dict[str, bytes]]:
    """The samples that the unchecked reference reader finds in uncompressed shards; none if it fails."""
    found: dict[int, dict[str, bytes]] = {}
    start = 0
    for entry in json.loads((root / "index.json").read_bytes())["shards"]:
        with contextlib.suppress(Exception):
            if entry["zip_data"] is None:
                found.update(enumerate(reference.read_shard(root, entry), start))
        start += entry["samples"]
    return found


def compare(found: dict[int, dict[str, bytes]], wanted: Any) -> None:
    known = wanted if isinstance(wanted, dict) else dict(enumerate(wanted))
    for i, payloads in found.items():
        if i in known:
            expect(payloads == known[i], (i, payloads, known[i]))


def read_columns(dataset: mx8.Dataset, victim: Victim, *, exact: bool) -> None:
    for name, encoding in dataset.columns.items():
        try:
            values = dataset.column(name)
        except mx8.ShardsError:
            continue
        expect(len(values) == len(dataset), (name, len(values)))
        if exact and encoding in reference.SCALAR_SIZES:
            wanted = b"".join(payloads[name] for payloads in victim.payloads)
            expect(isinstance(values, np.ndarray) and values.tobytes() == wanted, (name, values))


# the process ----------------------------------------------------------------------------------------------------------


class HangError(BaseException):
    """The timeout of ten seconds."""


def _ring(_signal: int, _frame: object) -> None:
    raise HangError


def attempt(kind: str, number: int, choices: list[Victim], root: Path) -> str:
    rng = Rng(f"{kind} {number}")
    victim = rng.choice(choices)
    name = rng.choice(victim.targets(kind))
    changed = mutate(kind, name, victim.files[name], rng)
    if changed == victim.files[name]:
        return "unchanged"
    for path, data in victim.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(changed if path == name else data)
    signal.setitimer(signal.ITIMER_REAL, ALARM_S)
    try:
        return examine(root, victim, kind, rng)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        shutil.rmtree(root)


def main() -> None:
    kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGALRM, _ring)
    faulthandler.enable()
    log = open(sys.argv[4] if len(sys.argv) > 4 else os.devnull, "w")  # noqa: SIM115 - until the process ends
    tally = {"refused": 0, "read": 0, "unchanged": 0}
    with tempfile.TemporaryDirectory(dir=FAST_ROOT) as scratch:
        choices = victims(kind, Path(scratch))
        limit_memory()
        for number in range(first, first + count):
            print(kind, number, file=log, flush=True)
            faulthandler.dump_traceback_later(3 * ALARM_S, exit=True)
            tally[attempt(kind, number, choices, Path(scratch) / "root")] += 1
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(tally))


def limit_memory(spare_bytes: int = SPARE_BYTES) -> None:
    """Limit this process to `spare_bytes` more than it has mapped now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + spare_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
