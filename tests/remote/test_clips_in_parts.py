"""Are only the parts of remote shards fetched that sparse clips need, and are they right whatever the store does?"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.format.file_blocks import BLOCK_BYTES, SMALL_BLOCK_BYTES
from mx8shards.format.packet_index import FORMAT, VIDEOS, PacketIndex, encode_packet_index, parse_packet_index
from tests.anonymous_memory import anonymous_bytes
from tests.clip_data import packets_of, repeated
from tests.maintenance import tree
from tests.remote.fault_server import KINDS, FaultServer, Kind, Operation, Request, Version
from tests.remote.mirrors import shards_of
from tests.videos import FRAMES, HEIGHT, WIDTH, encoded, number_in, video

pytest.importorskip("av")

COPIES, APART, SAMPLES = 7, 3 << 20, 3
METADATA = {VIDEOS: {"video": {"packets": "packets", "format": FORMAT, "facts": ""}}}
WHOLE = mx8.Clip(crop=mx8.CenterCrop((HEIGHT, WIDTH)))


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Large videos whose GOPs lie MiB apart, one in each shard."""
    root = tmp_path_factory.mktemp("videos") / "data"
    write(root, parse_packet_index(packets_of(video("h264").data)))
    return tree(root)


def write(root: Path, index: PacketIndex, samples: Sequence[int] = range(SAMPLES), **options: Any) -> None:
    """Write copies of a video, MiB apart, with this packet index of one copy."""
    data = video("h264").data
    payload = bytearray(np.random.default_rng(3).bytes(COPIES * APART))
    for copy in range(COPIES):
        payload[copy * APART : copy * APART + len(data)] = data
    packets = encode_packet_index(repeated(index, COPIES, APART))
    columns = {"frames": "int", "packets": "bytes", "path": "str", "video": "bytes", "when": "float64"}
    settings = {"columns": columns, "metadata": METADATA, "size_limit": "1mb"} | options
    with mx8.Writer(root, **settings) as writer:
        writer.set_metadata(METADATA)
        for number in samples:
            sample = {"frames": COPIES * FRAMES, "packets": packets, "path": f"{number}.mp4", "video": bytes(payload)}
            writer.write({**sample, "when": 4.0 * number + 1.0})
    assert len(shards_of(root)) == max(samples) + 1


@pytest.fixture(scope="module")
def older_objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A dataset whose blocks have 1 MiB."""
    root = tmp_path_factory.mktemp("older") / "data"
    write(root, parse_packet_index(packets_of(video("h264").data)), metadata=None)
    return tree(root)


@pytest.fixture
def older_server(fault_server: FaultServer, older_objects: dict[str, bytes]) -> FaultServer:
    fault_server.put_files("set", older_objects)
    return fault_server


@pytest.fixture
def server(fault_server: FaultServer, objects: dict[str, bytes]) -> FaultServer:
    fault_server.put_files("set", objects)
    return fault_server


def opened(server: FaultServer, local: Path, **options: Any) -> mx8.Dataset:
    return mx8.Dataset(server.url("set"), local=local, **{"deadline_s": 5.0} | options)


def loader(view: mx8.Dataset, **settings: Any) -> mx8.Loader:
    given = {"batch_size": 2, "output": "numpy", "threads": 2, "memory": "192mb", "decode": {"video": WHOLE}}
    return mx8.Loader(view, **given | settings)


def checked(batches: Iterator[mx8.Batch], samples: int = SAMPLES) -> list[tuple[int, int]]:
    """The sample and the first frame of each clip, whose frames must be the right ones.

    `samples`: of each of the joined datasets.
    """
    found = []
    for batch in batches:
        for clip, frames, sample_id in zip(batch["video"], batch["video.frames"], batch.sample_ids, strict=True):
            assert [number_in(frame.mean(axis=0)) for frame in clip] == (frames % FRAMES).tolist()
            found.append((int(sample_id), int(frames[0])))
        assert list(batch["path"]) == [f"{number % samples}.mp4" for number in batch.sample_ids]
    return found


def test_sparse_clips_fetch_a_small_part_of_the_shards(server: FaultServer, tmp_path: Path) -> None:
    with opened(server, tmp_path / "mirror") as dataset:
        view = dataset.clips("video", frames=4, random=1)
        with loader(view, shuffle=True, seed=1) as batches:
            first = checked(iter(batches))
            assert len(first) == SAMPLES
            sent = server.sent_bytes()
            assert sent < SAMPLES * COPIES * APART / 3
            assert batches.stats()["fetched_bytes"] <= sent
            assert len(checked(iter(batches))) == SAMPLES
            assert server.sent_bytes() < 2 * sent  # offset tables, and blocks that are still there
        assert shards_of(tmp_path / "mirror") == []
        requests = [
            request for request in server.requests if request.key.endswith(".mds") and request.operation == "read"
        ]
        assert all(request.span and request.if_match for request in requests)


def covering_bytes(number: int) -> int:
    """The bytes of the GOP of a frame."""
    index = parse_packet_index(packets_of(video("h264").data))
    begins = np.append(np.flatnonzero(index.keyframe), len(index.pts))
    packets = slice(*begins[np.searchsorted(begins, number % FRAMES, side="right") - 1 :][:2].tolist())
    return int(index.size[packets].sum())


def reads_of(server: FaultServer) -> list[Request]:
    """The requests for parts of shards."""
    with server.lock:
        return [each for each in server.requests if each.key.endswith(".mds") and each.operation == "read"]


def test_clips_fetch_little_more_than_their_gops_with_two_requests(server: FaultServer, tmp_path: Path) -> None:
    with opened(server, tmp_path / "mirror") as dataset:
        view = dataset.clips("video", frames=1, random=2)
        with loader(view, batch_size=1, shuffle=True, columns=["path", "video"]) as batches:
            found = checked(iter(batches))
            ahead = batches._assembly.plan.finder._ahead_bytes
    gops = sum(covering_bytes(frame) for _, frame in found)
    reads = reads_of(server)
    tables, heads, edges = SAMPLES, 3 * len(found), 2 * len(found)  # blocks; heads have the packet indices
    assert sum(each.sent_bytes for each in reads) <= gops + (tables + heads + edges) * SMALL_BLOCK_BYTES
    assert len(reads) <= SAMPLES + 2 * len(found)
    packets = encode_packet_index(repeated(parse_packet_index(packets_of(video("h264").data)), COPIES, APART))
    assert ahead == 3 * 4 + 8 + len(packets) + len("0.mp4")  # sizes, `frames`, `packets` and `path`


def test_neighbouring_blocks_come_in_one_request(server: FaultServer, tmp_path: Path) -> None:
    with opened(server, tmp_path / "mirror") as dataset:
        digests = dataset.shards.block_digests(0)
        assert digests is not None
        assert digests.block_bytes == SMALL_BLOCK_BYTES
        server.heal()
        blocks = dataset.shards.read_blocks(0, digests, [1, 2, 3, 300, 301])
    assert list(map(len, blocks)) == [SMALL_BLOCK_BYTES] * 5
    each = SMALL_BLOCK_BYTES
    spans = sorted(request.span for request in reads_of(server))
    assert spans == [f"bytes={each}-{4 * each - 1}", f"bytes={300 * each}-{302 * each - 1}"]


def test_shards_with_blocks_of_both_sizes_are_read_in_parts(
    fault_server: FaultServer, older_objects: dict[str, bytes], tmp_path: Path
) -> None:
    """A dataset that an older version wrote, and samples that were appended to it."""
    root, count = tmp_path / "data", SAMPLES + 2
    for key, data in older_objects.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)
    write(root, parse_packet_index(packets_of(video("h264").data)), range(SAMPLES, count), mode="append")
    fault_server.put_files("set", tree(root))
    with opened(fault_server, tmp_path / "mirror") as dataset:
        sizes = dataset.shards.block_bytes.tolist()
        assert sizes == [BLOCK_BYTES] * SAMPLES + [SMALL_BLOCK_BYTES] * 2
        view = dataset.clips("video", frames=4, random=1)
        for joined in (view, mx8.concat([view, view]), mx8.mix([view, view], weights=[1, 1])):
            with loader(joined, memory="256mb") as batches:
                found = checked(iter(batches), count)
                assert {sample_id % count for sample_id, _ in found} == set(range(count))
    assert shards_of(tmp_path / "mirror") == []
    sent = Counter[str]()
    for request in reads_of(fault_server):
        sent[request.key] += request.sent_bytes
    small = max(sent[f"set/shard.{number:05}.mds"] for number in range(SAMPLES, count))
    assert small < min(sent[f"set/shard.{number:05}.mds"] for number in range(SAMPLES)) / 4


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_only_shards_that_are_not_compressed_are_read_in_blocks(
    fault_server: FaultServer, compression: str | None, tmp_path: Path
) -> None:
    columns, url = {"video": "bytes"}, fault_server.url("set")
    for mode in ("create", "append"):
        with mx8.Writer(url, columns=columns, metadata=METADATA, compression=compression, mode=mode) as writer:
            writer.write({"video": b"one"})
    with opened(fault_server, tmp_path / "mirror") as dataset:
        assert dataset.shards.block_bytes.tolist() == [0 if compression else SMALL_BLOCK_BYTES] * 2
    with mx8.Dataset(tmp_path / "mirror") as local:
        assert local.shards.block_bytes.tolist() == [0, 0]


def test_for_sound_only_the_videos_of_the_clips_are_fetched(fault_server: FaultServer, tmp_path: Path) -> None:
    data, samples = encoded("h264", range(FRAMES), range(FRAMES), audio=True), 24
    decode = {"video": WHOLE, "video.audio": mx8.Audio(16_000)}
    columns = {"frames": "int", "packets": "bytes", "video": "bytes"}
    with mx8.Writer(tmp_path / "data", columns=columns, metadata=METADATA) as writer:
        for _ in range(samples):
            writer.write({"frames": FRAMES, "packets": packets_of(data), "video": data})
    with mx8.Dataset(tmp_path / "data") as dataset:
        clips = dataset.select([3, 17]).clips("video", frames=4, random=1)
        with loader(clips, decode=decode) as batches:
            (local,) = iter(batches)
    fault_server.put_files("set", tree(tmp_path / "data"))
    with opened(fault_server, tmp_path / "mirror") as dataset:
        clips = dataset.select([3, 17]).clips("video", frames=4, random=1)
        with loader(clips, decode=decode) as batches:
            (batch,) = iter(batches)
    assert batch.sample_ids.tolist() == [3, 17]
    for key in ("video", "video.frames"):
        assert np.array_equal(batch[key], local[key])
    for found, expected in zip(batch["video.audio"], local["video.audio"], strict=True):
        assert np.array_equal(found, expected)
        assert np.abs(found).max() > 0.01
    assert shards_of(tmp_path / "mirror") == []
    assert sum(each.sent_bytes for each in reads_of(fault_server)) < 2 * len(data) + 12 * SMALL_BLOCK_BYTES


def test_dense_clips_fetch_whole_shards_once(server: FaultServer, tmp_path: Path) -> None:
    with opened(server, tmp_path / "mirror") as dataset:
        view = dataset.clips("video", frames=4, every=40)
        with loader(view, batch_size=4) as batches:
            assert len(checked(iter(batches))) == SAMPLES * COPIES
        assert server.sent_bytes() < 1.05 * SAMPLES * COPIES * APART
        assert len(shards_of(tmp_path / "mirror")) == SAMPLES


def test_shards_that_are_here_are_read_whole(server: FaultServer, tmp_path: Path) -> None:
    with opened(server, tmp_path / "mirror") as dataset:
        _ = dataset[0]
        server.heal()
        with loader(dataset.clips("video", frames=4, random=1)) as batches:
            assert len(checked(iter(batches))) == SAMPLES
        assert server.counts("read", "head")["set/shard.00000.mds"] == 0
        assert server.counts("read")["set/shard.00001.mds"] > 0


def test_an_epoch_goes_on_after_a_state(server: FaultServer, tmp_path: Path) -> None:
    with opened(server, tmp_path / "mirror") as dataset:
        view = dataset.clips("video", frames=4, random=1)
        with loader(view, batch_size=1, shuffle=True, seed=3) as batches:
            every = checked(iter(batches))
        with loader(view, batch_size=1, shuffle=True, seed=3) as batches:
            iterator = iter(batches)
            first = checked(iter([next(iterator)]))
            state = batches.state_dict()
        with loader(view, batch_size=1, shuffle=True, seed=3) as batches:
            batches.load_state_dict(state)
            assert first + checked(iter(batches)) == every


def test_two_ranks_have_all_clips_between_them(server: FaultServer, tmp_path: Path) -> None:
    found = []
    with opened(server, tmp_path / "mirror") as dataset:
        view = dataset.clips("video", frames=4, random=1)
        for rank in range(2):
            with loader(view, shuffle=True, batch_size=1, rank=rank, world_size=2, uneven="exact") as batches:
                found += checked(iter(batches))
    assert sorted(sample_id for sample_id, _ in found) == list(range(SAMPLES))
    assert shards_of(tmp_path / "mirror") == []


def test_clips_around_anchors_in_a_cache_with_a_limit(server: FaultServer, tmp_path: Path) -> None:
    with opened(server, tmp_path / "mirror", cache_limit=2 * COPIES * APART + (1 << 20)) as dataset:
        view = dataset.clips("video", at=[-0.04, 0, 0.04], anchors="when")
        with loader(view, shuffle=mx8.BlockShuffle(shards=1), batch_size=1) as batches:
            found = checked(iter(batches))
    assert sorted(found) == [(number, 100 * number + 24) for number in range(SAMPLES)]
    assert server.sent_bytes() < SAMPLES * COPIES * APART / 3


def test_a_cache_needs_no_room_for_shards_that_are_read_in_parts(server: FaultServer, tmp_path: Path) -> None:
    with opened(server, tmp_path / "mirror", cache_limit=COPIES * APART + (1 << 20)) as dataset:
        with loader(dataset.clips("video", frames=4, random=1), shuffle=True) as batches:
            assert len(checked(iter(batches))) == SAMPLES
        with pytest.raises(mx8.SettingError, match="the whole dataset, for shuffle=True"):
            loader(dataset.clips("video", frames=4, every=40), shuffle=True)


def test_clips_of_local_and_of_remote_shards_mix(server: FaultServer, objects: Any, tmp_path: Path) -> None:
    for key, data in objects.items():
        (tmp_path / "copy" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / key).write_bytes(data)
    with opened(server, tmp_path / "mirror") as remote, mx8.Dataset(tmp_path / "copy") as local:
        both = mx8.concat([each.clips("video", frames=4, random=1) for each in (local, remote)])
        with loader(both, shuffle=True, batch_size=3, columns=["video"]) as batches:
            for batch in batches:
                for clip, frames in zip(batch["video"], batch["video.frames"], strict=True):
                    assert [number_in(frame.mean(axis=0)) for frame in clip] == (frames % FRAMES).tolist()
    assert server.sent_bytes() < SAMPLES * COPIES * APART / 3


def test_clips_in_parts_come_from_worker_processes(server: FaultServer, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with opened(server, tmp_path / "mirror") as dataset:
        view = dataset.clips("video", frames=4, random=1)
        with loader(view, threads=1, output="torch") as batches:
            workers = torch.utils.data.DataLoader(batches.as_iterable_dataset(), batch_size=None, num_workers=1)
            clips = [pair for batch in workers for pair in zip(batch["video"], batch["video.frames"], strict=True)]
    assert len(clips) == SAMPLES
    for clip, frames in clips:
        assert [number_in(frame.numpy().mean(axis=0)) for frame in clip] == (frames % FRAMES).tolist()


def test_an_epoch_that_is_left_early_ends_its_requests(server: FaultServer, tmp_path: Path) -> None:
    with opened(server, tmp_path / "mirror") as dataset:
        view = dataset.clips("video", frames=4, random=1)
        for _ in range(2):
            with loader(view, batch_size=1) as batches:
                next(iter(batches))
        with loader(view, batch_size=1) as batches:
            server.fail("hang", "read", key=".*mds", times=None)
            iterator = iter(batches)
            del iterator


# faults --------------------------------------------------------------------------------------------------------------


def test_blocks_that_come_wrong_once_are_asked_for_again(server: FaultServer, tmp_path: Path) -> None:
    with opened(server, tmp_path / "mirror") as dataset:
        view = dataset.clips("video", frames=4, random=1)
        server.fail("flip", "read", key=".*mds", skip=2)
        server.fail("cut", "read", key=".*mds", skip=4)
        server.fail(503, "head", key=".*mds")
        with loader(view) as batches:
            assert len(checked(iter(batches))) == SAMPLES
            assert server.faults[0].met > 2
            for key in (key for key in server.keys() if key.endswith(".mds")):  # noqa: SIM118 - not a dict
                stored_again = Version(server.data(key) or b"", '"another"', 0.0)
                server.objects[key].append(stored_again)
            batches.set_epoch(1)
            assert len(checked(iter(batches))) == SAMPLES


@pytest.mark.hunt
@pytest.mark.parametrize("operation", ["read", "head"])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_right_or_there_is_an_error_whatever_the_store_does(
    server: FaultServer, kind: Kind, operation: Operation, tmp_path: Path
) -> None:
    number = itertools.count()
    for place, skip, times in itertools.product(("first", "middle", "last"), (0, 2, 5), (1, 2, None)):
        server.heal()
        server.fail(kind, operation, key=".*mds", skip=skip, times=times, place=place)
        try:
            with opened(server, tmp_path / str(next(number)), deadline_s=1.5) as dataset:
                view = dataset.clips("video", frames=4, random=1)
                with loader(view, batch_size=1, on_error="skip") as batches:
                    found = checked(iter(batches))
                    lost = batches.stats()["lost"]
        except (mx8.LoaderError, mx8.RemoteError) as error:
            assert isinstance(error.__cause__ if isinstance(error, mx8.LoaderError) else error, mx8.RemoteError)  # noqa: PT017
        else:
            assert len(found) + lost == SAMPLES
            assert not lost or kind == "replaced" or (kind == "flip" and times != 1)
        for versions in server.objects.values():
            del versions[1:]  # a "replaced" object


@pytest.mark.parametrize("on_error", ["raise", "skip", "substitute"])
def test_damaged_blocks_are_bad_samples(server: FaultServer, tmp_path: Path, on_error: Any) -> None:
    with opened(server, tmp_path / "mirror") as dataset:
        view = dataset.clips("video", frames=4, random=1)
        key = "set/shard.00001.mds"
        server.put(key, (server.data(key) or b"")[::-1])
        with loader(view, on_error=on_error, batch_size=1) as batches:
            if on_error == "raise":
                with pytest.raises(mx8.LoaderError, match=r"shard.00001.mds: .*block"):
                    checked(iter(batches))
                return
            found = checked(iter(batches))
            assert len(found) == SAMPLES - (on_error == "skip")
            assert 1 not in {sample_id for sample_id, _ in found}
            assert batches.stats()["lost"] == 1


def test_blocks_of_another_dataset_that_took_the_names_are_no_bad_samples(server: FaultServer, tmp_path: Path) -> None:
    with opened(server, tmp_path / "mirror") as dataset:
        for key in list(server.objects):
            if key.endswith(".mds"):
                server.put(key, (server.data(key) or b"")[::-1])
            elif "/snapshots/" in key:
                del server.objects[key]
        server.put("set/index.json", (server.data("set/index.json") or b"") + b"\n")
        with (
            loader(dataset.clips("video", frames=4, random=1), on_error="skip") as batches,
            pytest.raises(mx8.LoaderError, match="the snapshot was removed"),
        ):
            checked(iter(batches))
        assert batches.stats()["lost"] == 0


def test_an_outage_is_an_error_within_the_deadline_and_loses_nothing(server: FaultServer, tmp_path: Path) -> None:
    with opened(server, tmp_path / "mirror", deadline_s=1.5) as dataset:
        view = dataset.clips("video", frames=4, random=1)
        with loader(view, on_error="skip", batch_size=1) as batches:
            with server.outage(), pytest.raises(mx8.LoaderError) as caught:
                checked(iter(batches))
            assert isinstance(caught.value.__cause__, mx8.RemoteError)
            assert len(checked(iter(batches))) == SAMPLES
            assert batches.stats()["lost"] == 0


def test_a_snapshot_without_digests_is_read_whole(server: FaultServer, objects: Any, tmp_path: Path) -> None:
    sidecars = [key for key in objects if key.startswith(".mx8shards/sidecars")]
    assert sidecars
    for key in sidecars:
        server.objects.pop(f"set/{key}")
    with opened(server, tmp_path / "mirror") as dataset, loader(dataset.clips("video", frames=4, random=1)) as batches:
        assert len(checked(iter(batches))) == SAMPLES
    assert len(shards_of(tmp_path / "mirror")) == SAMPLES


def test_shards_are_read_whole_if_their_digests_are_damaged(
    server: FaultServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [key] = [key for key, found in server.objects.items() if found[0].data.startswith(b"MX8BLK")]
    server.put(key, (server.data(key) or b"")[::-1])
    with opened(server, tmp_path / "mirror") as dataset:
        view = dataset.clips("video", frames=4, random=1)
        with loader(view, on_error="skip") as batches:
            assert len(checked(iter(batches))) == SAMPLES
            assert batches.stats()["lost"] == 0
    assert caplog.text.count("their digests are damaged") == 1


@pytest.mark.parametrize("io", ["auto", "pread"])
def test_a_keyframe_that_starts_no_decoding_is_decoded_from_the_start(
    fault_server: FaultServer, objects: dict[str, bytes], io: Any, tmp_path: Path
) -> None:
    """What is before the keyframe was not fetched with the other parts: the shard is made local, and read there."""
    index = parse_packet_index(packets_of(video("h264").data))
    keyframe = index.keyframe.copy()
    keyframe[next(i for i in range(13, 40) if not keyframe[i] and not index.disposable[i])] = True
    write(tmp_path / "data", replace(index, keyframe=keyframe))
    fault_server.put_files("set", tree(tmp_path / "data"))
    with opened(fault_server, tmp_path / "mirror") as dataset:
        view = dataset.clips("video", frames=4, random=1)
        with loader(view, batch_size=1, on_error="skip", io=io) as batches:
            assert len(checked(iter(batches))) == SAMPLES
            assert batches.stats()["lost"] == 0
    assert shards_of(tmp_path / "mirror") == ["shard.00002.mds"]


def test_a_run_that_waits_for_what_an_earlier_one_fetches_ends_when_it_is_stopped(
    server: FaultServer, tmp_path: Path
) -> None:
    def planners() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "mx8shards-planner"]

    with opened(server, tmp_path / "mirror", deadline_s=30.0) as dataset:
        view = dataset.clips("video", frames=4, random=1)
        with loader(view, batch_size=1) as batches:
            next(iter(batches))  # the offset tables are here
            hanging = server.fail("hang", "read", key=".*mds", times=None)
            for epoch in (1, 2):
                batches.set_epoch(1)
                iterator = iter(batches)
                while not hanging.met or (epoch == 2 and not planners()):
                    time.sleep(0.01)
                del iterator
                until = time.monotonic() + 10
                while planners() and time.monotonic() < until:
                    time.sleep(0.01)
                assert not planners()


def test_a_wait_for_blocks_is_a_wait_for_the_network(
    server: FaultServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        opened(server, tmp_path / "mirror", deadline_s=60.0) as dataset,
        loader(dataset.clips("video", frames=4, random=1), batch_size=1) as batches,
    ):
        next(iter(batches))  # the offset tables are here
        server.delay_s = 2.5
        batches.set_epoch(1)
        assert len(checked(iter(batches))) == SAMPLES
        stats = batches.stats()
        assert stats["network_s"] > 0.5 * stats["consumer_waited_s"]
        assert batches.explain().bottleneck == "network"
    assert re.search(r"a batch has waited for the network for \d+ s: .*shard.0000\d.mds", caplog.text)


def test_blocks_that_do_not_come_within_the_read_timeout_are_an_error(server: FaultServer, tmp_path: Path) -> None:
    with (
        opened(server, tmp_path / "mirror", deadline_s=5.0) as dataset,
        loader(dataset.clips("video", frames=4, random=1), batch_size=1, read_timeout_s=1.0) as batches,
    ):
        next(iter(batches))
        server.fail("hang", "read", key=".*mds", times=None)
        batches.set_epoch(1)
        message = r"shard.0000\d.mds has not arrived after \d s: the loader waits for the network"
        with pytest.raises(mx8.LoaderError, match=message):
            checked(iter(batches))
        server.heal()


# memory --------------------------------------------------------------------------------------------------------------


def test_blocks_make_room_for_others_within_the_limit(older_server: FaultServer, tmp_path: Path) -> None:
    with opened(older_server, tmp_path / "mirror") as dataset:
        view, most = dataset.clips("video", frames=4, random=1), 0
        with loader(view, batch_size=1, memory="96mb") as batches:
            parts = batches._assembly.plan.shard_table.parts
            for epoch in range(8):
                batches.set_epoch(epoch)
                before = anonymous_bytes()
                assert len(checked(iter(batches))) == SAMPLES
                most = max(most, (epoch > 1) * (anonymous_bytes() - before))
                assert parts._table.size_bytes <= parts._most < SAMPLES * COPIES * BLOCK_BYTES
        assert most < 16 << 20


@pytest.mark.parametrize("columns", [["video"], ["path", "video"]], ids=len)
def test_shards_are_read_whole_if_their_parts_do_not_fit(
    older_server: FaultServer, columns: list[str], tmp_path: Path
) -> None:
    with opened(older_server, tmp_path / "mirror") as dataset:
        view = dataset.clips("video", frames=4, random=1)
        settings = {"columns": columns, "decode": {"video": mx8.Clip(8)}, "batch_size": 3, "memory": "40mb"}
        with loader(view, **settings) as batches:
            assert sum(len(batch["video"]) for batch in batches) == SAMPLES
    assert len(shards_of(tmp_path / "mirror")) == SAMPLES


@pytest.mark.hunt
def test_no_shard_is_fetched_whole_because_a_batch_has_just_been_filled(
    older_server: FaultServer, tmp_path: Path
) -> None:
    """A batch needs half of the blocks that fit: the blocks of the batch before it must be free in time."""
    with opened(older_server, tmp_path / "mirror") as dataset:
        view = dataset.clips("video", frames=4, random=1)
        with loader(view, batch_size=1, memory="72mb", shuffle=True, threads=4) as batches:
            for epoch in range(40):
                batches.set_epoch(epoch)
                assert len(checked(iter(batches))) == SAMPLES
    assert shards_of(tmp_path / "mirror") == []
