import hashlib
import io
import re
import socket
import stat
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from cyclegan.commands import data
from cyclegan.data import fetch, published, unpack

COUNTS = {"trainA": 2, "trainB": 1, "testA": 1, "testB": 1}
PICTURES = [f"{folder}/{i}.jpg" for folder, count in COUNTS.items() for i in range(count)]
PICTURE = bytes(range(256)) * 400  # 100 kB: several pieces of a download


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch, "PAUSE", 0)


def zipped(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def archive(tmp_path):
    return zipped(tmp_path / "small.zip", {f"small/{name}": PICTURE for name in PICTURES})


@pytest.fixture
def small(archive, monkeypatch):
    """A published set that `cyclegan data fetch small` knows, without mirrors of its own."""
    content = archive.read_bytes()
    wanted = published.PublishedSet("small", "", "", COUNTS, ("http://127.0.0.1:1",), len(content), sum_of(content))
    monkeypatch.setitem(published.SETS, "small", wanted)
    return wanted


def sum_of(content):
    return hashlib.sha256(content).hexdigest()


@contextmanager
def served(content, ranges=True, cuts=0, etag='"1"', length=True):
    """A web folder where every file is `content`; the first `cuts` answers break off half-way. Yields URL and log."""
    log = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range") if self.headers.get("If-Range") == etag else None
            start = int(re.match(r"bytes=(\d+)-", asked).group(1)) if ranges and asked else 0
            log.append(start)
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if length:
                self.send_header("Content-Length", str(len(content) - start))
            if etag:
                self.send_header("ETag", etag)
            self.end_headers()
            rest = content[start:]
            self.wfile.write(rest[: len(rest) // 2] if len(log) <= cuts else rest)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/sets/", log
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def closed():
    """A web folder on a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}/sets"


def at(wanted, *mirrors):
    return replace(wanted, mirrors=mirrors)


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_set_is_downloaded_checked_unpacked_and_counted(small, archive, tmp_path, capsys):
    with served(archive.read_bytes()) as (url, _):
        folder = fetch.fetch(at(small, url), tmp_path / "sets")
    assert names_in(tmp_path / "sets") == sorted(f"small/{name}" for name in PICTURES)
    assert (folder / "trainA/1.jpg").read_bytes() == PICTURE
    assert "trainA 2, trainB 1, testA 1, testB 1 images, as published" in capsys.readouterr().out


def test_a_download_without_announced_length_works(small, archive, tmp_path):
    with served(archive.read_bytes(), length=False) as (url, _):
        assert fetch.fetch(at(small, url), tmp_path / "sets").is_dir()


def test_a_cut_download_goes_on_where_it_stopped(small, archive, tmp_path):
    content = archive.read_bytes()
    with served(content, cuts=2) as (url, log):
        fetch.fetch(at(small, url), tmp_path / "sets")
    assert log == [0, len(content) // 2, len(content) // 2 + (len(content) - len(content) // 2) // 2]


def test_a_later_command_goes_on_with_what_an_earlier_one_left(small, archive, tmp_path):
    content = archive.read_bytes()
    with served(content, cuts=99, ranges=False) as (url, log), pytest.raises(fetch.FetchError):
        fetch.fetch(at(small, url), tmp_path / "sets")
    assert log == [0, 0]  # the second try brought nothing new
    with served(content) as (url, log):
        fetch.fetch(at(small, url), tmp_path / "sets")
    assert log == [len(content) // 2]


@pytest.mark.parametrize("server", [{"ranges": False}, {"etag": ""}, {"etag": 'W/"1"'}, {"etag": '"2"'}])
def test_it_starts_again_when_the_server_cannot_go_on_or_the_file_has_changed(server, small, archive, tmp_path):
    content = archive.read_bytes()
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/small.zip.part").write_bytes(b"something else" * 1000)
    (tmp_path / "sets/small.zip.part.version").write_text('"1"')
    with served(content, **server) as (url, log):
        fetch.fetch(at(small, url), tmp_path / "sets")
    assert log == [0]


def test_it_starts_again_when_the_partial_file_is_too_long(small, archive, tmp_path):
    content = archive.read_bytes()
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/small.zip.part").write_bytes(content + b"more")
    (tmp_path / "sets/small.zip.part.version").write_text('"1"')
    with served(content) as (url, log):
        fetch.fetch(at(small, url), tmp_path / "sets")
    assert log == [len(content) + 4, 0]


def test_a_partial_file_of_unknown_version_is_not_trusted(small, archive, tmp_path):
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/small.zip.part").write_bytes(b"something else")
    with served(archive.read_bytes()) as (url, log):
        fetch.fetch(at(small, url), tmp_path / "sets")
    assert log == [0]


def test_a_download_with_the_wrong_sum_is_removed_and_the_next_mirror_asked(small, archive, tmp_path, capsys):
    content = archive.read_bytes()
    wrong = content[:-1] + b"x"
    with served(wrong) as (bad, _), served(content) as (good, _):
        with pytest.raises(fetch.FetchError):
            fetch.fetch(at(small, bad), tmp_path / "sets")
        assert names_in(tmp_path / "sets") == []
        assert f"sha256 {sum_of(wrong)}, expected {small.sha256}" in capsys.readouterr().err
        assert fetch.fetch(at(small, bad, good), tmp_path / "sets").is_dir()


def test_a_file_of_another_size_is_not_even_downloaded(small, tmp_path, capsys):
    with served(b"<html>please log in</html>") as (url, _), pytest.raises(fetch.FetchError):
        fetch.fetch(at(small, url), tmp_path / "sets")
    assert f"offers 26 bytes where {small.size:,} are expected" in capsys.readouterr().err


def test_the_sum_is_printed_where_none_is_published(small, archive, tmp_path, capsys):
    with served(archive.read_bytes()) as (url, _):
        fetch.fetch(replace(small, mirrors=(url,), sha256=None, size=None), tmp_path / "sets")
    assert small.sha256 in capsys.readouterr().out


def test_a_web_page_in_place_of_an_archive_is_not_kept(small, tmp_path):
    with served(b"<html>please log in</html>") as (url, _), pytest.raises(unpack.ArchiveError, match="neither zip nor"):
        fetch.fetch(replace(small, mirrors=(url,), sha256=None, size=None), tmp_path / "sets")
    assert names_in(tmp_path / "sets") == []


def test_a_dead_mirror_is_followed_by_the_next(small, archive, closed, tmp_path, capsys):
    with served(archive.read_bytes()) as (url, _):
        assert fetch.fetch(at(small, closed, url), tmp_path / "sets").is_dir()
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_network_one_line_a_mirror_and_what_to_do(small, closed, tmp_path, capsys):
    published.SETS["small"] = at(small, closed, closed)
    root = tmp_path / "sets"
    assert data.main(["fetch", "small", "--root", str(root)]) == 1
    *mirrors, last = capsys.readouterr().err.splitlines()
    assert [line.startswith(f"{closed}/small.zip: [Errno") for line in mirrors] == [True, True]
    assert f"Download {closed}/small.zip on another machine, put it at {root / 'small.zip'}" in last


@pytest.mark.parametrize("there", [False, True])
def test_what_was_not_had_leaves_no_empty_folder(small, closed, there, tmp_path):
    wanted, root = replace(at(small, closed), name="deep/small"), tmp_path / "new" / "sets"
    if there:
        root.mkdir(parents=True)
    with pytest.raises(fetch.FetchError):
        fetch.fetch(wanted, root)
    assert list(root.parent.rglob("*")) == [root] * there and root.parent.exists() == there


def test_a_silent_mirror_is_given_up(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(fetch.FetchError):
        fetch.fetch(at(small, f"http://127.0.0.1:{silent.getsockname()[1]}"), tmp_path / "sets")
    assert "timed out" in capsys.readouterr().err


def test_a_full_disk_is_said_before_the_download(small, archive, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with served(archive.read_bytes()) as (url, log):
        assert data.main(["fetch", "small", "--root", str(tmp_path / "sets"), "--mirror", url]) == 1
    assert log == []
    assert "not enough space" in capsys.readouterr().err


def test_a_complete_set_is_left_alone(small, tmp_path, capsys):
    for name in PICTURES[:-1]:
        picture = tmp_path / "sets/small" / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.touch()
    with pytest.raises(fetch.FetchError, match="move it away"):
        fetch.fetch(small, tmp_path / "sets")
    (tmp_path / "sets/small/testB").mkdir()
    (tmp_path / "sets/small/testB/own.PNG").touch()
    fetch.fetch(small, tmp_path / "sets")
    assert "already there" in capsys.readouterr().out
    assert len(names_in(tmp_path / "sets")) == len(PICTURES)


def test_a_link_in_a_set_s_place_is_refused_before_the_download(small, archive, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sets").mkdir()
    for target in ("elsewhere", "gone"):
        (tmp_path / "sets" / "small").symlink_to(tmp_path / target)
        with served(archive.read_bytes()) as (url, log), pytest.raises(fetch.FetchError, match="move it away"):
            fetch.fetch(at(small, url), tmp_path / "sets")
        assert log == []
        (tmp_path / "sets" / "small").unlink()


def test_a_hand_placed_archive_is_used_and_kept(small, archive, tmp_path):
    assert data.main(["fetch", "small", "--root", str(tmp_path)]) == 0
    assert small.is_in(tmp_path / "small")
    assert archive.is_file()


def test_a_named_archive_is_used_wherever_it_lies(small, archive, tmp_path, capsys):
    other = archive.rename(tmp_path / "from elsewhere.zip")
    command = ["fetch", "small", "--root", str(tmp_path / "sets"), "--from", str(other)]
    assert data.main([*command, "--sha256", "0" * 64]) == 1
    assert "is damaged or another file" in capsys.readouterr().err
    assert other.is_file()
    assert data.main(command) == 0


def test_a_downloaded_archive_is_kept_on_request(small, archive, tmp_path):
    with served(archive.read_bytes()) as (url, _):
        assert data.main(["fetch", "small", "--root", str(tmp_path / "x"), "--mirror", url, "--keep-archive"]) == 0
    assert (tmp_path / "x/small.zip").read_bytes() == archive.read_bytes()


def test_folders_at_the_top_of_the_archive_and_tar_archives_work(small, tmp_path):
    packed = tmp_path / "small.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        for name in PICTURES:
            archive.addfile(tarred(name, size=3), io.BytesIO(b"abc"))
    unpack.unpack(packed, tmp_path / "sets", small.is_in)
    assert names_in(tmp_path / "sets") == sorted(PICTURES)


def tarred(name, kind=tarfile.REGTYPE, target="", size=0):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, target, size
    return entry


def zip_link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize("name", ["../evil.jpg", "small/../../evil.jpg", "/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"])
def test_entries_that_leave_the_folder_are_refused(name, tmp_path):
    packed = zipped(tmp_path / "small.zip", {"small/trainA/0.jpg": b"a", name: b"evil"})
    refused(packed, tmp_path, "leads out of the folder")


def test_links_and_devices_are_refused(tmp_path):
    packed = tmp_path / "small.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zip_link("small/trainA"), "/etc")
    refused(packed, tmp_path, "link or a device")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        packed = tmp_path / "small.tar"
        with tarfile.open(packed, "w") as archive:
            archive.addfile(tarred("small/trainA", kind, "/etc/passwd"))
        refused(packed, tmp_path, "link or a device")


def test_a_bomb_is_refused_before_it_grows(tmp_path):
    packed = zipped(tmp_path / "small.zip", {"0.jpg": bytes(5_000_000)}, zipfile.ZIP_DEFLATED)
    refused(packed, tmp_path, "would grow beyond")


def test_damaged_and_foreign_files_are_said_to_be_so(archive, tmp_path):
    content = archive.read_bytes()
    archive.write_bytes(content.replace(PICTURE[:100], PICTURE[:99] + b"!", 1))
    refused(archive, tmp_path, "damaged")
    archive.write_bytes(b"<html>")
    refused(archive, tmp_path, "neither zip nor tar")
    refused(zipped(archive, {"other/a.jpg": b"a"}), tmp_path, "does not hold")


def refused(packed, tmp_path, why):
    wanted = published.PublishedSet("small", "", "", COUNTS)
    before = names_in(tmp_path)
    with pytest.raises(unpack.ArchiveError, match=why):
        unpack.unpack(packed, tmp_path / "sets", wanted.is_in)
    assert names_in(tmp_path) == before
    assert not (tmp_path / "sets").exists()


def test_an_interrupted_extraction_is_not_taken_for_a_set(small, archive, tmp_path, monkeypatch):
    half_done = tmp_path / ".small.unpacking/small/trainA/leftover.jpg"  # as a killed process leaves it
    half_done.parent.mkdir(parents=True)
    half_done.touch()

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(unpack.shutil, "copyfileobj", interrupted)
        assert data.main(["fetch", "small", "--root", str(tmp_path)]) == 1
    assert names_in(tmp_path) == ["small.zip"]
    assert data.main(["fetch", "small", "--root", str(tmp_path)]) == 0
    assert names_in(tmp_path / "small") == sorted(PICTURES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: action"),
        (["fetch", "horse2zebr"], "did you mean horse2zebra"),
        (["fetch", "maps", "--mirror", "file:///etc"], "does not begin with http"),
        (["fetch", "maps", "--from", "nowhere.zip"], "no file nowhere.zip"),
        (["fetch", "maps", "--sha256", "12"], "64 hexadecimal digits"),
        (["fetch", "maps", "facades", "--sha256", "0" * 64], "go with one NAME"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        data.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_root_that_is_no_folder_is_an_error_without_a_traceback(archive, capsys):
    assert data.main(["fetch", "facades", "--root", str(archive)]) == 1
    assert str(archive) in capsys.readouterr().err


def test_cityscapes_says_how_to_get_it(tmp_path, capsys):
    assert data.main(["fetch", "cityscapes", "--root", str(tmp_path)]) == 1
    assert f"mkdir -p {tmp_path}/cityscapes/trainA" in capsys.readouterr().err


def test_the_list_names_every_set_and_tells_what_is_there(capsys):
    root = Path(__file__).parents[2] / "datasets"
    assert data.main(["list", "--root", str(root)]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in published.SETS)
    assert f"flat2fluent3d (in {root / 'flat2fluent3d'})" in printed


def test_the_readme_gives_the_same_counts():
    readme = (Path(__file__).parents[2] / "datasets/README.md").read_text()
    for name in (*published.ARCHIVES, "cityscapes"):
        counts = " / ".join(map(str, published.SETS[name].counts.values()))
        assert re.search(rf"^\| {name} \|.*\| {counts} \|", readme, re.MULTILINE), name
