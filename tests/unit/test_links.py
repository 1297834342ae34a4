"""Does a link refer to one directory, independent of later changes of the working directory?"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

import mx8shards as mx8
from mx8shards.shards.links import RemoteLink, parse_any


def write(out: str | os.PathLike[str], count: int = 40, mode: str = "create") -> str:
    with mx8.Writer(out, columns={"x": "int"}, size_limit=300, mode=mode) as writer:
        for i in range(count):
            writer.write({"x": i})
    return str(writer.snapshot)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_dataset_opened_by_a_relative_path_survives_a_change_of_directory(elsewhere: Path) -> None:
    write("data")
    dataset = mx8.Dataset("data")
    copy = pickle.dumps(dataset)
    os.chdir(elsewhere)
    assert dataset[-1] == {"x": 39}
    assert pickle.loads(copy)[-1] == {"x": 39}


def test_a_writer_opened_by_a_relative_path_publishes_where_it_was_opened(here: Path, elsewhere: Path) -> None:
    with mx8.Writer("data", columns={"x": "int"}) as writer:
        writer.write({"x": 1})
        os.chdir(elsewhere)
    assert mx8.Dataset(here / "data")[0] == {"x": 1}
    assert list(elsewhere.iterdir()) == []


def test_errors_name_the_directory_of_a_dataset_opened_as_a_dot(here: Path) -> None:
    write(here / "data")
    os.chdir("data")
    Path("shard.00000.mds").unlink()
    with pytest.raises(mx8.DatasetNotFoundError, match=r"^data/shard\.00000\.mds: "):
        mx8.Dataset(".")[0]


@pytest.mark.parametrize("root", [b"data", "with spaces and ünïcödé", "a/b/../c", "with@sign"])
def test_any_valid_path_can_be_a_dataset(root: str | bytes) -> None:
    snapshot = write(os.fsdecode(root))
    assert mx8.Dataset(root).snapshot == snapshot
    assert mx8.Dataset(f"{os.fsdecode(root)}@{snapshot[:15]}").snapshot == snapshot
    assert mx8.Dataset(f"{os.fsdecode(root)}@refresh").snapshot == snapshot


def test_a_path_that_is_not_valid_utf8_can_be_a_dataset() -> None:
    snapshot = write(os.fsdecode(b"\xff\xfe"))
    assert mx8.Dataset(b"\xff\xfe").snapshot == snapshot


@pytest.mark.parametrize("state", ["sha256:0123456789", "refresh"])
def test_nothing_is_written_to_a_snapshot(state: str) -> None:
    write("data")
    for publish in (lambda: write(f"data@{state}", mode="append"), lambda: mx8.merge(["data"], f"data@{state}")):
        with pytest.raises(
            mx8.ShardsError, match=rf"^data@{state}: expected a directory or URL to write to, got a link to"
        ):
            publish()
    assert os.listdir() == ["data"]


def test_parts_given_as_one_string_are_an_error() -> None:
    write("data")
    for parts in ("data", 3, None):
        with pytest.raises(mx8.SettingError, match=rf"^parts: expected a list of parts, got {parts!r}$"):
            mx8.merge(parts, "merged")  # type: ignore[arg-type]


def test_a_tilde_is_the_home_directory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    (here / "home").mkdir()
    snapshot = write("~/data")
    assert (here / "home/data/index.json").is_file()
    assert mx8.Dataset("~/data").snapshot == mx8.Dataset(Path("~/data")).snapshot == snapshot
    assert mx8.Dataset(f"~/data@{snapshot[:15]}").snapshot == snapshot
    assert mx8.verify("~/data").ok
    assert sorted(os.listdir(here)) == ["home"]
    write("./~/data")
    assert (here / "~/data/index.json").is_file()
    write("~nobody-of-this-name/data")
    assert (here / "~nobody-of-this-name/data").is_dir()


@pytest.mark.parametrize("url", ["https://host/data", "oci://host/data", "HTTP://host"])
def test_a_url_of_an_unknown_scheme_is_refused(url: str, here: Path) -> None:
    for link in (url, Path(url), f"{url}@sha256:0123456789"):
        with pytest.raises(mx8.RemoteError, match="expected a URL with the scheme s3, gs, az or hf"):
            mx8.Dataset(link, local=here / "cache")


SHA = "sha256:" + 64 * "a"


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("s3://bucket/data", RemoteLink("s3://bucket/data")),
        ("S3://bucket/data//", RemoteLink("s3://bucket/data")),
        (Path("s3://bucket/data"), RemoteLink("s3://bucket/data")),
        ("gs://b/a@b@refresh", RemoteLink("gs://b/a@b", refresh=True)),
        (f"az://c/d@{SHA}", RemoteLink("az://c/d", SHA)),
        ("hf://datasets/o/n@v1/p@sha256:01234567", RemoteLink("hf://datasets/o/n@v1/p", "sha256:01234567")),
    ],
    ids=str,
)
def test_a_url_is_a_link(text: str | Path, link: RemoteLink) -> None:
    assert parse_any(text) == link
    assert parse_any(str(link)) == link


@pytest.mark.parametrize(
    "url",
    ["s3://AKIA:secret@bucket/d", "https://u:secret@host/d", "s3://b/d?X-Amz-Signature=secret", "hf://t:secret@x/y"],
)
def test_a_url_with_credentials_is_refused_without_showing_them(url: str) -> None:
    with pytest.raises(mx8.SettingError, match="expected a URL without credentials") as caught:
        mx8.Dataset(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("digits", ["0123456", 65 * "0"])
def test_an_id_of_a_wrong_length_is_refused(digits: str) -> None:
    with pytest.raises(mx8.DatasetNotFoundError, match=rf"8 to 64 hex digits, got {len(digits)}"):
        mx8.Dataset(f"s3://bucket/data@sha256:{digits}")


def test_a_file_url_is_refused_with_its_path_as_hint(here: Path) -> None:
    with pytest.raises(mx8.RemoteError, match=f"give its path: {here}"):
        mx8.Dataset(f"file://{here}")


@pytest.mark.parametrize("value", [["a", "b"], ("a",), 3, None, {"a": 1}, "a\0b", b"\0"], ids=repr)
def test_invalid_links_are_refused(value: object) -> None:
    with pytest.raises(mx8.SettingError, match=r"^link: expected the path of one dataset") as caught:
        mx8.Dataset(value)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
    assert ("mx8shards.concat" in str(caught.value)) == isinstance(value, list | tuple)


def test_an_open_dataset_is_refused_as_a_link() -> None:
    write("data")
    with pytest.raises(mx8.SettingError, match="this is an open dataset already"):
        mx8.Dataset(mx8.Dataset("data"))  # type: ignore[arg-type]
