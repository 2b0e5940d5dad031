"""Downloads from a server of the test's own: whole, resumed, cut off, wrong; and what `check` says of a folder."""

import hashlib
import http.server
import threading
from dataclasses import replace

import numpy as np
import pytest
import tiny_cifar

from kdsim.config import ConfigError
from kdsim.data import check, cifar, fetch, read_cifar

ARCHIVE = "cifar-10-python.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one body; `ranges`: whether it knows Range; `cut`: bytes after which it hangs up."""

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers.get("Range"))
        body, first = server.body, 0
        if self.path != f"/{ARCHIVE}":
            return self.send_error(404)
        if server.ranges and "Range" in self.headers:
            first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if first >= len(body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if server.sized:
            self.send_header("Content-Length", str(len(body) - first))
        self.end_headers()
        self.wfile.write(body[first : server.cut])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A running server, with the digest of its body expected."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.body = np.random.default_rng(0).bytes(3_000_000)
    server.requests, server.ranges, server.cut, server.sized = [], True, None, True
    server.site = f"http://127.0.0.1:{server.server_address[1]}"
    data_set, md5 = cifar.DATA_SETS["cifar10"], hashlib.md5(server.body).hexdigest()
    layouts = (replace(data_set.layouts[0], md5=md5), *data_set.layouts[1:])
    monkeypatch.setitem(cifar.DATA_SETS, "cifar10", replace(data_set, layouts=layouts))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def refusal(*args, **settings):
    with pytest.raises(ConfigError) as caught:
        fetch(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_download(tmp_path, server):
    seen = []
    path = fetch("cifar10", tmp_path / "new", lambda have, total: seen.append((have, total)), site=server.site)
    assert path == tmp_path / "new" / ARCHIVE and path.read_bytes() == server.body
    assert seen[-1] == (3_000_000, 3_000_000) and seen == sorted(seen) and len(seen) >= 3
    assert [item.name for item in path.parent.iterdir()] == [ARCHIVE]
    assert fetch("cifar10", tmp_path / "new", site=server.site) == path
    assert server.requests == [None]  # it was there


def test_a_download_goes_on_where_it_was_cut_off(tmp_path, server):
    server.cut = 1_234_567
    line = refusal("cifar10", tmp_path, site=server.site)
    assert "1234567 of 3000000 bytes" in line and "try again to go on" in line and str(tmp_path / ARCHIVE) in line
    part = tmp_path / f"{ARCHIVE}.part"
    assert part.read_bytes() == server.body[:1_234_567] and not (tmp_path / ARCHIVE).exists()
    server.cut, seen = None, []
    fetch("cifar10", tmp_path, lambda have, total: seen.append((have, total)), site=server.site)
    assert server.requests == [None, "bytes=1234567-"]
    assert seen[0][0] > 1_234_567 and seen[-1] == (3_000_000, 3_000_000)
    assert (tmp_path / ARCHIVE).read_bytes() == server.body and not part.exists()


def test_a_server_without_ranges_sends_all_again(tmp_path, server):
    server.ranges = False
    (tmp_path / f"{ARCHIVE}.part").write_bytes(b"something else")
    fetch("cifar10", tmp_path, site=server.site)
    assert (tmp_path / ARCHIVE).read_bytes() == server.body


def test_a_download_that_was_whole_but_not_renamed(tmp_path, server):
    (tmp_path / f"{ARCHIVE}.part").write_bytes(server.body)
    fetch("cifar10", tmp_path, site=server.site)
    assert server.requests == ["bytes=3000000-"] and (tmp_path / ARCHIVE).read_bytes() == server.body


def test_a_server_that_does_not_say_how_much_comes(tmp_path, server):
    server.sized, seen = False, []
    fetch("cifar10", tmp_path, lambda have, total: seen.append((have, total)), site=server.site)
    assert seen[-1] == (3_000_000, None)
    (tmp_path / ARCHIVE).unlink()
    server.cut = 1000  # looks like the end: the digest tells
    assert "MD5" in refusal("cifar10", tmp_path, site=server.site)


def test_a_wrong_digest(tmp_path, server):
    wanted = server.body
    server.body = wanted[:-1] + b"?" + b"!"
    line = refusal("cifar10", tmp_path, site=server.site)
    assert hashlib.md5(wanted).hexdigest() in line and hashlib.md5(server.body).hexdigest() in line
    assert list(tmp_path.iterdir()) == []  # nothing to go on from
    server.body = wanted
    (tmp_path / f"{ARCHIVE}.part").write_bytes(b"x" * 1000)  # the beginning of something else
    assert "MD5" in refusal("cifar10", tmp_path, site=server.site)
    assert fetch("cifar10", tmp_path, site=server.site).read_bytes() == wanted


def test_a_file_of_the_users_is_not_overwritten(tmp_path, server):
    (tmp_path / ARCHIVE).write_bytes(b"mine")
    assert "must be" in refusal("cifar10", tmp_path, site=server.site)
    assert (tmp_path / ARCHIVE).read_bytes() == b"mine" and server.requests == []


def test_no_network_and_no_file(tmp_path, server):
    line = refusal("cifar100", tmp_path, site=server.site)
    assert "404" in line and str(tmp_path / "cifar-100-python.tar.gz") in line
    line = refusal("cifar10", tmp_path, site="http://127.0.0.1:1")
    assert "refused" in line.lower() and "put the file at" in line and str(tmp_path / ARCHIVE) in line
    (tmp_path / "file").write_text("")
    assert "data_dir" in refusal("cifar10", tmp_path / "file", site=server.site)
    assert "nearest: cifar10" in refusal("cifar1", tmp_path)
    assert "python, binary" in refusal("cifar10", tmp_path, kind="parquet")


# check --------------------------------------------------------------------------------------------


def test_check_of_an_empty_and_of_a_missing_folder(tmp_path):
    assert check(tmp_path) == []
    with pytest.raises(ConfigError, match="must be a folder"):
        check(tmp_path / "absent")


def test_check_names_what_is_there_and_what_is_wrong_with_it(tmp_path, small):
    archive = tiny_cifar.write_archive(tmp_path, "cifar10", "python")
    small("cifar10", archive)
    tiny_cifar.write_archive(tmp_path, "cifar100", "binary")
    tiny_cifar.write_folder(tmp_path, "cifar100", "python")
    (tmp_path / "cifar-100-python" / "test").unlink()
    tiny_cifar.write_parquet(tmp_path, "cifar10", shards=2)
    (tmp_path / "cifar-10-binary.tar.gz.part").write_bytes(b"12345")
    (tmp_path / "cifar10h.npz").write_bytes(b"")
    found = {finding.what: finding for finding in check(tmp_path)}
    assert {what: finding.fault is None for what, finding in found.items()} == {
        "CIFAR-10, official python archive": True,
        "CIFAR-10, parquet files": True,
        "CIFAR-10, official binary archive": False,
        "CIFAR-100, official python folder": False,
        "CIFAR-100, official binary archive": False,
        "CIFAR-10H, human votes": False,
    }
    assert "has 5 bytes of an interrupted download" in str(found["CIFAR-10, official binary archive"])
    assert "has no test" in str(found["CIFAR-100, official python folder"])
    assert "MD5" in str(found["CIFAR-100, official binary archive"])
    assert all("\n" not in str(finding) for finding in found.values())
    (tmp_path / "train-00001-of-00002.parquet").unlink()
    assert "train-00001-of-00002" in str(next(f for f in check(tmp_path) if "parquet" in f.what))
    assert read_cifar("cifar10", tmp_path).source == "CIFAR-10, official python archive"
