"""Shards behind a URL: a local HTTP server that can be told to misbehave, and a local S3 server."""

import re
import threading
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from clever_fast.errors import UserError
from clever_fast.pipelines.manifest import open_manifest
from clever_fast.pipelines.policies import BAUG
from clever_fast.pipelines.pretraining import PretrainingLoader
from clever_fast.pipelines.shards import storage
from clever_fast.pipelines.shards.building import build_shards
from clever_fast.pipelines.shards.listing import find_shards
from clever_fast.pipelines.shards.verifying import verify

pytest.importorskip("aiohttp")


class Server(SimpleHTTPRequestHandler):
    """Serves `folder` with byte ranges; fails the first `failures` requests of each name, or ignores ranges."""

    folder, failures, ranges, requests = ".", 0, True, Counter()

    def __init__(self, *args):
        super().__init__(*args, directory=self.folder)

    def do_GET(self):
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.requests[self.path] += 1
        if self.path.endswith(".tar") and self.requests[self.path] <= self.failures:
            self.send_error(503)
        elif asked and self.ranges:
            with open(self.translate_path(self.path), "rb") as file:
                file.seek(int(asked[1]))
                data = file.read(int(asked[2]) - int(asked[1]) + 1)
            self.send_response(206)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(images, tmp_path, monkeypatch):
    """(URL, local folder) of the same shards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "WAITS", (0.0, 0.0))
    folder = tmp_path / "shards"
    build_shards(open_manifest(images), folder / "train", name="t-train", bytes_per_shard=20_000, seed=None)
    monkeypatch.setattr(Server, "folder", str(folder))
    monkeypatch.setattr(Server, "requests", Counter())
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder
        httpd.shutdown()


def batches(manifest, steps=5) -> list[np.ndarray]:
    loader = PretrainingLoader(manifest, BAUG, seed=0, batch_size=6, dtype="float32")
    found = [views[0] for _, (_, views) in zip(range(steps), loader)]
    loader.close()
    return found


def test_batches_over_http_are_those_of_the_disk(server):
    url, folder = server
    remote, local = open_manifest(url), open_manifest(folder)
    assert (remote.paths, remote.fingerprint) == (local.paths, local.fingerprint)
    for a, b in zip(batches(remote), batches(local), strict=True):
        assert np.array_equal(a, b)
    Server.requests.clear()
    open_manifest(url)
    assert not [path for path in Server.requests if path.endswith(".tar")]  # the index is kept
    assert verify(find_shards(url, "train")) == (24, {})


def test_a_manifest_that_lies_with_the_shards_spares_the_indexing(server):
    url, folder = server
    local = open_manifest(folder)
    remote = open_manifest(url)
    assert not [path for path in Server.requests if path.endswith(".tar")]
    assert np.array_equal(remote.places.numbers, local.places.numbers)


def test_shards_without_an_index_are_found_in_a_listing_or_named(server):
    url, folder = server
    (folder / "train/shards.json").unlink()
    shards = sorted(path.name for path in (folder / "train").glob("*.tar"))
    assert len(open_manifest(url)) == 24
    pattern = f"{url}/train/t-train-{{000000..{len(shards) - 1:06d}}}.tar"
    assert open_manifest(pattern).labels.tolist() == open_manifest(url).labels.tolist()
    with pytest.raises(UserError, match=r"no such shard: .*t-train-000099.tar"):
        open_manifest(f"{url}/train/t-train-000099.tar")
    with pytest.raises(UserError, match="shows no shards; name them"):
        open_manifest(f"{url}/elsewhere")


def test_a_request_that_fails_is_tried_again(server, monkeypatch):
    url, folder = server
    local = open_manifest(folder)
    remote = open_manifest(url)
    monkeypatch.setattr(Server, "failures", 2)
    assert [remote.read(i) for i in range(24)] == [local.read(i) for i in range(24)]


def test_a_store_that_stays_down_stops_the_run_by_name(server, monkeypatch):
    url, folder = server
    open_manifest(folder)
    manifest = open_manifest(url)
    monkeypatch.setattr(Server, "failures", 10**6)
    with pytest.raises(ConnectionError, match=r"cannot read http://.*/t-train-\d{6}.tar: .*503"):
        batches(manifest)


def test_a_server_without_ranges_is_told(server, monkeypatch):
    url, folder = server
    open_manifest(folder)
    manifest = open_manifest(url)
    monkeypatch.setattr(Server, "ranges", False)
    with pytest.raises(ConnectionError, match=r"bytes came where .* were asked for"):
        manifest.read(0)


def test_nobody_listens(monkeypatch):
    monkeypatch.setattr(storage, "WAITS", (0.0,))
    with pytest.raises(ConnectionError, match=r"cannot read http://127\.0\.0\.1:9"):
        open_manifest("http://127.0.0.1:9/data")


@pytest.mark.full
def test_batches_from_s3_are_those_of_the_disk(server, monkeypatch):
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    _, folder = server
    local = open_manifest(folder)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3 = moto.ThreadedMotoServer(port=0, verbose=False)
    s3.start()
    try:
        host, port = s3.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix != ".json":
                client.upload_file(str(path), "bucket", f"data/{path.relative_to(folder)}")
        remote = open_manifest(Path("s3://bucket/data"))  # as the command line passes it on
        assert remote.labels.tolist() == local.labels.tolist()
        for a, b in zip(batches(remote), batches(local), strict=True):
            assert np.array_equal(a, b)
        with pytest.raises(UserError, match="shows no shards"):
            open_manifest("s3://bucket/nothing")
    finally:
        s3.stop()
