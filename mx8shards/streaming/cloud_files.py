"""How do programs fetch and store single files by Streaming's classes? CloudDownloader and CloudUploader."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn, Self

from mx8shards.disk import operations, publish
from mx8shards.errors import SettingError, shown
from mx8shards.shards.links import absolute, is_url
from mx8shards.streaming.stored_files import download_file, place_file, store_of

_UNSUPPORTED = ("Alipan", "DBFS", "Databricks", "DatabricksUnityCatalog", "OCI", "SFTP")


def refuse_store(module: str, name: str) -> NoReturn:
    """Raise ImportError for the class of a store that is not supported, and AttributeError for another name.

    Args:
        module: The module that has no such name.
        name: The name, such as `"SFTPDownloader"`.
    """
    if name in {f"{store}{kind}" for store in _UNSUPPORTED for kind in ("Downloader", "Uploader")}:
        hint = "mount the store, and give the path of a directory instead of a URL"
        raise ImportError(f"{name} is left out, as its store is not supported: {hint}")
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


class CloudDownloader:
    """Fetches files of any URL or path."""

    @classmethod
    def get(cls, remote_dir: str | None = None) -> Self:
        """A downloader.

        Args:
            remote_dir: Ignored: a downloader fetches from all stores.
        """
        return cls()

    @classmethod
    def direct_download(cls, remote: str | None, local: str, timeout: float = 60) -> None:
        """Fetch a file, unless it is here.

        Args:
            remote: Its URL or path. None: it must be here.
            local: The local path.
            timeout: How many seconds the store may fail to answer.
        """
        cls().download(remote, local, timeout)

    def download(self, remote: str | None, local: str, timeout: float = 60) -> None:
        """Fetch a file, unless it is here.

        Args:
            remote: Its URL or path. None: it must be here.
            local: The local path.
            timeout: How many seconds the store may fail to answer.
        """
        if not remote and not Path(local).exists():
            raise SettingError(subject="remote", expected=f"a URL or a path, as there is no file {local}", found="none")
        download_file(remote, local, timeout)

    def clean_up(self) -> None:
        """Nothing: no connection stays open."""


class CloudUploader:
    """Stores files of a local directory at a URL, or in another directory.

    Args:
        out: A pair of the local directory and the URL or the other directory; or a directory, which is not copied.
        keep_local: Whether a local file stays after it was stored.
        progress_bar: Ignored.
        retry: Ignored: a request is repeated for as long as the store may fail to answer.
        exist_ok: Whether there may be files in the local directory.
    """

    def __init__(
        self,
        out: str | tuple[str, str],
        keep_local: bool = False,
        progress_bar: bool = False,
        retry: int = 2,
        exist_ok: bool = False,
    ) -> None:
        pair: Any = out if isinstance(out, tuple | list) else (out, None)
        if len(pair) != 2 or is_url(os.fspath(pair[0])):
            expected = "a directory, or a pair of one and a URL: nothing is written into temporary directories"
            raise SettingError(subject="out", expected=expected, found=shown(out))
        self.local, self.remote = os.fspath(pair[0]), pair[1]
        self.keep_local = keep_local
        self.progress_bar = progress_bar
        self.retry = retry
        root = absolute(self.local)
        if not exist_ok and root.is_dir() and any(root.iterdir()):
            raise FileExistsError(f"Directory is not empty: {root}")
        publish.make_root(root)

    @classmethod
    def get(
        cls,
        out: str | tuple[str, str],
        keep_local: bool = False,
        progress_bar: bool = False,
        retry: int = 2,
        exist_ok: bool = False,
    ) -> Self:
        """An uploader. The arguments are those of the class.

        Args:
            out: A pair of the local directory and the URL or the other directory; or a directory, which is not copied.
            keep_local: Whether a local file stays after it was stored.
            progress_bar: Ignored.
            retry: Ignored.
            exist_ok: Whether there may be files in the local directory.
        """
        return cls(out, keep_local, progress_bar, retry, exist_ok)

    def upload_file(self, filename: str) -> None:
        """Store a file.

        Args:
            filename: Its name, relative to the local directory.
        """
        if self.remote is None:
            return
        path = absolute(self.local) / filename
        if is_url(self.remote):
            store_of(self.remote).put(filename, path)
        else:
            place_file(absolute(self.remote) / filename, path.read_bytes())
        self.clear_local(str(path))

    def list_objects(self, prefix: str | None = None) -> list[str]:
        """The names of the stored files that begin with this prefix, or of the local ones if there is no remote.

        Args:
            prefix: The prefix; None for all files.
        """
        if self.remote is not None:
            names = [found.key for found in store_of(self.remote).list()]
        else:
            root = absolute(self.local)
            names = [str(path.relative_to(root)) for path in publish.files_below(root)]
        return sorted(name for name in names if name.startswith(prefix or ""))

    def clear_local(self, local: str) -> None:
        """Remove a local file, unless local files stay.

        Args:
            local: Its path.
        """
        if not self.keep_local:
            operations.unlink(Path(local))
