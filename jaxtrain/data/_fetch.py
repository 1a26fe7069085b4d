"""Files from elsewhere: downloads that are whole and right or absent, archives that are read."""

import gzip
import hashlib
import http.client
import io
import os
import pathlib
import tarfile
import urllib.request
import zlib
from collections.abc import Callable, Collection, Sequence

from jaxtrain import _check
from jaxtrain.errors import DataError

BROKEN_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)


def opener() -> urllib.request.OpenerDirector:
    """Returns an opener that knows https alone, so that no redirect can lead away from it."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def gunzip(body: bytes, size: int) -> bytes:
    """Returns what gzip data hold, and of more than `size` bytes the first `size + 1`."""
    return gzip.GzipFile(fileobj=io.BytesIO(body)).read(size + 1)


def fetch(
    where: str,
    urls: Sequence[str],
    path: pathlib.Path,
    *,
    sha256: str,
    size: int,
    content: Callable[[bytes], bytes] = bytes,
    fix: str,
) -> None:
    """Downloads a file from the first URL that has it.

    Args:
        where: The function that an error names.
        urls: Where to look, in this order; https only.
        path: The file to write, which appears whole or not at all.
        sha256: Of what `content` makes of the file.
        size: The most bytes that the file may have; no more than one beyond is read.
        content: Undoes a compression that differs from mirror to mirror.
        fix: What to do where no URL has it.

    Raises:
        DataError: If no URL yields that content.
    """
    reasons = []
    for url in urls:
        try:
            with opener().open(url, timeout=30) as response:
                body = response.read(size + 1)
            if len(body) > size:
                reasons.append(f"{url}: more than {size} bytes")
                continue
            if hashlib.sha256(content(body)).hexdigest() != sha256:
                reasons.append(f"{url}: another SHA-256")
                continue
        except (OSError, http.client.HTTPException, *BROKEN_GZIP) as error:
            reasons.append(f"{url}: {error!r}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(body)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return
    _check.fail(where, str(path), "a file, there or at a mirror", reasons, fix, DataError)


def read_tar(
    where: str, path: pathlib.Path, names: Collection[str], *, sha256: str, size: int
) -> dict[str, bytes]:
    """Reads members of a gzipped tar archive into memory; nothing is written anywhere.

    Args:
        where: The function that an error names.
        path: The archive.
        names: The members, their folders left out.
        sha256: Of the archive.
        size: The most bytes that it may hold, uncompressed.

    Returns:
        The contents by name.

    Raises:
        DataError: If the archive is another one, broken or too long, lacks a member, has one
            twice, or has links or paths that lead out of it.
    """

    def fail(rule, value):
        _check.fail(where, str(path), rule, value, "delete the file and get it anew", DataError)

    body = path.read_bytes()
    found = hashlib.sha256(body).hexdigest()
    if found != sha256:
        fail(f"of SHA-256 {sha256}", found)
    contents: dict[str, bytes] = {}
    try:
        content = gunzip(body, size)
        if len(content) > size:
            fail(f"an archive of at most {size} bytes", f"more than {size}")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                member_path = pathlib.PurePosixPath(member.name)
                if member_path.is_absolute() or ".." in member_path.parts:
                    fail("an archive of paths that stay in it", member.name)
                if not (member.isreg() or member.isdir()):
                    fail("an archive of files and folders alone", member.name)
                if member_path.name in contents:
                    fail("an archive that has each file once", member.name)
                file = archive.extractfile(member)
                if file and member_path.name in names:
                    contents[member_path.name] = file.read()
    except (*BROKEN_GZIP, tarfile.TarError) as error:
        fail("a whole .tar.gz archive", error)
    missing = sorted(set(names) - set(contents))
    if missing:
        fail(f"an archive with {', '.join(missing)}", sorted(contents))
    return contents
