"""Where shards lie: a local or mounted folder, or a place that fsspec can reach, read in pieces."""

from __future__ import annotations

import errno
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from clever_fast.errors import UserError

REMOTE = re.compile(r"(s3|gs|az|https?)(:/+)")
OPEN_SHARDS = 256  # kept open; a data set may have more shards than a process may have files
PIECE = 1 << 22  # bytes read at once of a whole file
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between tries
SECONDS_A_TRY = 30


class Local:
    """The files of a folder. Threads may read at once."""

    def __init__(self, folder: Path):
        self.place = folder
        self.readers = len(os.sched_getaffinity(0))  # how many reads at once pay; more disturb the decoding threads
        self._opened = lru_cache(OPEN_SHARDS)(self._open)

    def sizes(self, names: list[str] | None = None) -> dict[str, int]:
        """The bytes of the named files, or of all in the folder, by name. Raises OSError."""
        if names is None:
            with os.scandir(self.place) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        return {name: os.stat(self.place / name).st_size for name in names}

    def newest(self, names: list[str]) -> int:
        """When the last of the named files was written, in ns since 1970."""
        return max(os.stat(self.place / name).st_mtime_ns for name in names)

    def has(self, name: str) -> bool:
        return (self.place / name).is_file()

    def read(self, name: str, offset: int = 0, size: int = -1) -> bytes:
        """`size` bytes of a file from `offset` on, or all. Raises OSError, also where there are fewer."""
        if size < 0:
            return (self.place / name).read_bytes()
        file = self._opened(name)  # held here, so that it stays open while it is read
        data = os.pread(file.number, size, offset)
        if len(data) < size:
            raise OSError(f"{name} ends at byte {offset + len(data):,}")
        return data

    def _open(self, name: str) -> _Descriptor:
        return _Descriptor(self.place / name)


class _Descriptor:
    """A file open for reading until nothing refers to it."""

    def __init__(self, path: Path):
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self):
        if hasattr(self, "number"):
            os.close(self.number)


class Remote:
    """A folder behind a URL. Threads may read at once.

    A read that fails is tried again after growing waits, and raises ConnectionError, which names the URL, where that
    does not help: a store that does not answer says nothing about an image. What is not there: FileNotFoundError.
    """

    readers = 64  # latency, not processors, is what they wait for

    def __init__(self, url: str):
        self.place, protocol = url, url.split(":")[0]
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(url, skip_instance_cache=True, **_limits(protocol))
            if protocol == "s3":
                self._files.retries = 1  # trying again is done here, once for all
        except (ImportError, ValueError) as error:
            missing = "pip install 'clever_fast[remote]'" if protocol != "gs" else "pip install gcsfs"
            raise UserError(f"{url} cannot be read with what is installed: {missing} ({error})") from None

    def sizes(self, names: list[str] | None = None) -> dict[str, int]:
        """The bytes of the named files, or of all in the folder, by name."""
        if names is None:
            found = self._try(self.place, lambda: self._files.ls(self._root, detail=True))
            names = [item["name"].rstrip("/").rpartition("/")[2] for item in found if item["type"] == "file"]
        with ThreadPoolExecutor(self.readers) as pool:
            found = pool.map(lambda name: self._try(name, lambda: self._files.info(self._path(name))["size"]), names)
            return dict(zip(names, found))

    def has(self, name: str) -> bool:
        try:
            return bool(self.sizes([name]))
        except FileNotFoundError:
            return False

    def read(self, name: str, offset: int = 0, size: int = -1) -> bytes:
        """`size` bytes of a file from `offset` on, or all."""
        limits = {"start": offset, "end": offset + size} if size >= 0 else {}

        def fetch() -> bytes:
            data = self._files.cat_file(self._path(name), **limits) if size else b""
            if 0 <= size != len(data):
                raise OSError(f"{len(data):,} bytes came where {size:,} were asked for")
            return data

        return self._try(name, fetch)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _try(self, name: str, action):
        where = name if name == self.place else f"{self.place.rstrip('/')}/{name}"
        for wait in (*WAITS, None):
            try:
                return action()
            except Exception as error:  # every protocol has errors of its own
                # fsspec's HTTP says "not found" of a server that is down, too; then the cause has no such status
                if isinstance(error, FileNotFoundError) and getattr(error.__cause__, "status", 404) in (404, 410):
                    raise FileNotFoundError(errno.ENOENT, "not found", where) from None
                if wait is None or isinstance(error, PermissionError):
                    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                    raise ConnectionError(f"cannot read {where}: {reason}") from None
            time.sleep(wait)


def _limits(protocol: str) -> dict:
    """fsspec's options for a time limit of each try, and for no tries beyond ours."""
    if protocol == "s3":
        times = {"connect_timeout": SECONDS_A_TRY, "read_timeout": SECONDS_A_TRY}
        return {"config_kwargs": times | {"retries": {"total_max_attempts": 1}}}
    if protocol.startswith("http"):
        import aiohttp

        return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=SECONDS_A_TRY)}}
    return {}


def checksum(store: Local | Remote, name: str, length: int) -> str:
    """The SHA-256 of a file of `length` bytes, in hexadecimal digits."""
    digest = sha256()
    for offset in range(0, length, PIECE):
        digest.update(store.read(name, offset, min(PIECE, length - offset)))
    return digest.hexdigest()


def as_url(data: Path | str) -> str | None:
    """The URL that `data` is, or None for a path. A Path folds the two slashes of a URL into one; this mends it."""
    found = REMOTE.match(text := str(data))
    return f"{found[1]}://{text[found.end() :].rstrip('/')}" if found else None
