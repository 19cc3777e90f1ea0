"""Getting a published image set: the first mirror that has the right archive, gone on with after a cut, unpacked."""

from __future__ import annotations

import hashlib
import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from cyclegan.data.published import PublishedSet
from cyclegan.data.unpack import MOST_BYTES, ArchiveError, need_space, unpack

TIMEOUT = 30  # seconds without a byte
PAUSE = 2  # seconds before a broken download goes on
PIECE = 1 << 16


class FetchError(Exception):
    """The set cannot be had; the message says why and what to do."""


class MirrorError(Exception):
    """One mirror failed; the next may do better."""


class ConnectionCut(MirrorError):
    """The download broke off; what has arrived is kept."""


def fetch(
    wanted: PublishedSet, root: Path, mirror: str | None = None, given: Path | None = None, keep_archive: bool = False
) -> Path:
    """The folder of a set below `root`; a complete one is left alone, otherwise it is downloaded and unpacked.

    An archive that is `given`, or lies where a download would go, is used instead of the network and never deleted.
    """
    folder, archive = root / wanted.name, wanted.archive(root)
    if wanted.is_in(folder):
        print(f"{wanted.name}: already there. {_report(wanted, folder)}")
        return folder
    if folder.is_symlink() or (folder.exists() and any(folder.iterdir())):  # nothing is renamed onto a link
        raise FetchError(f"{folder} exists, without images in each of {', '.join(wanted.counts)}: move it away first")
    if given is None and archive.is_file():
        given = archive
    with _made(folder.parent):
        if given is not None:
            check_sum(given, wanted)
        elif wanted.mirrors:
            download(wanted, archive, (mirror, *wanted.mirrors) if mirror else wanted.mirrors)
        else:
            raise FetchError(wanted.by_hand.format(folder=folder))
        try:
            unpack(given or archive, folder, wanted.is_in)
        except ArchiveError:
            if given is None:
                archive.unlink()  # or the next try would take it for placed by hand
            raise
        if given is None and not keep_archive:
            archive.unlink()
    print(f"{wanted.name}: {_report(wanted, folder)}")
    return folder


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder to fill; where nothing came of it, it goes again, and those above that were made for it."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # the first that something is in
            for one in new:
                one.rmdir()


def download(wanted: PublishedSet, target: Path, mirrors: tuple[str, ...]) -> None:
    """The archive of a set from the first mirror that has the right one; it gets its name only when it is whole."""
    part = target.with_name(target.name + ".part")
    urls = [f"{mirror.rstrip('/')}/{target.name}" for mirror in mirrors]
    if wanted.size:
        need_space(target.parent, 2 * wanted.size - _length(part))  # the archive, and about as much unpacked
    for url in urls:
        try:
            _receive(url, part, wanted.size)
            _check_part(part, wanted)
            part.replace(target)
            _version(part).unlink(missing_ok=True)
            return
        except MirrorError as error:
            print(f"{url}: {error}", file=sys.stderr)
    published = f"{wanted.mirrors[0].rstrip('/')}/{target.name}"
    raise FetchError(
        f"{wanted.name}: no mirror helped. Download {published} on another machine, put it at {target}, "
        "and give the same command again (or name the file with --from FILE)."
    )


def check_sum(archive: Path, wanted: PublishedSet) -> None:
    """Refuse an archive that is not the published one; print its sha256 if none was published."""
    found = hashlib.sha256()
    with archive.open("rb") as file:
        while piece := file.read(PIECE):
            found.update(piece)
    if wanted.sha256 is None:
        print(f"{wanted.name}: sha256 {found.hexdigest()} (none is published; --sha256 holds a later fetch to it)")
    elif found.hexdigest() != wanted.sha256.lower():
        raise FetchError(
            f"{archive} is damaged or another file: sha256 {found.hexdigest()}, expected {wanted.sha256} "
            "(--sha256 to expect another)"
        )


def _check_part(part: Path, wanted: PublishedSet) -> None:
    try:
        check_sum(part, wanted)
    except FetchError as error:
        part.unlink()
        _version(part).unlink(missing_ok=True)
        raise MirrorError(f"{error}; removed") from error


def _receive(url: str, part: Path, size: int | None) -> None:
    """The file at `url` as `part`; after a cut it goes on, as long as every try brings something new."""
    while not size or _length(part) != size:
        before = _length(part)
        try:
            return _go_on(url, part, size)
        except ConnectionCut:
            if _length(part) <= before:
                raise
            time.sleep(PAUSE)


def _go_on(url: str, part: Path, size: int | None) -> None:
    with _ask(url, part) as response:
        start = _length(part) if response.status == 206 else 0  # 200: it cannot go on, or the file has changed since
        if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise MirrorError("answers with another range than the one asked for")
        rest = response.headers.get("Content-Length", "")
        total = start + int(rest) if rest.isdigit() else size
        if size and total != size:
            raise MirrorError(f"offers {total:,} bytes where {size:,} are expected")
        need_space(part.parent, (total or 0) - start)
        _store(response, part, start, total)
    if total and _length(part) < total:
        raise ConnectionCut(f"the connection broke off after {_length(part):,} of {total:,} bytes")


def _ask(url: str, part: Path) -> http.client.HTTPResponse:
    """The server's answer: what `part` lacks, if the file is still the one it began with, otherwise all of it."""
    headers = {"User-Agent": "cyclegan"}
    if _length(part) and _length(_version(part)):
        headers |= {"Range": f"bytes={_length(part)}-", "If-Range": _version(part).read_text()}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and "Range" in headers:  # the part is as long as the file, or longer
            part.unlink()
            return _ask(url, part)
        raise MirrorError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise MirrorError(getattr(error, "reason", None) or error) from error


def _store(response: http.client.HTTPResponse, part: Path, start: int, total: int | None) -> None:
    most = total or MOST_BYTES
    with (
        part.open("ab" if start else "wb") as file,
        tqdm(desc=part.stem, total=total, initial=start, unit="B", unit_scale=True, disable=None) as bar,
    ):
        if not start:  # only now is the old content gone
            tag = response.headers.get("ETag", "W/")
            stamp = response.headers.get("Last-Modified", "") if tag.startswith("W/") else tag  # W/: not byte for byte
            _version(part).write_text(stamp)
        for piece in _body(response):
            bar.update(file.write(piece))
            if file.tell() > most:
                raise MirrorError(f"sends more than {most:,} bytes")


def _body(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := response.read(PIECE):
            yield piece
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionCut(f"the connection broke off: {error}") from error


def _version(part: Path) -> Path:
    """Where If-Range's value is kept: which version of the file `part` is the beginning of."""
    return part.with_name(part.name + ".version")


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _report(wanted: PublishedSet, folder: Path) -> str:
    found = wanted.found(folder)
    verdict = "as published" if found == wanted.counts else f"BUT {_listed(wanted.counts)} were published"
    return f"{folder} holds {_listed(found)} images, {verdict}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
