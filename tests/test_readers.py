"""Readers: what they return, and that what is broken, hostile or absent is refused by name."""

import gzip
import hashlib
import http.client
import http.server
import io
import pathlib
import re
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

import jaxtrain
from jaxtrain import data
from jaxtrain.data import _cifar, _fetch, _mnist
from jaxtrain.errors import ConfigError, DataError


def idx(shape=(2, 3), body=b"abcdef", magic=b"\0\0\x08"):
    return magic + bytes([len(shape)]) + np.array(shape, ">u4").tobytes() + body


@pytest.mark.fast
@pytest.mark.parametrize("name, pack", [("x", bytes), ("x.gz", gzip.compress)])
def test_read_idx(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(idx()))
    x = data.read_idx(tmp_path / name)
    assert x.dtype == np.uint8
    np.testing.assert_array_equal(x, [[97, 98, 99], [100, 101, 102]])


def flip(content):
    return content[:20] + bytes([content[20] ^ 1]) + content[21:]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x", b"", "an IDX file of unsigned bytes, got b''"),
        ("x", idx(magic=b"\0\0\x0d"), "an IDX file of unsigned bytes"),
        ("x", idx()[:9], "a file with 2 lengths in its header"),
        ("x", idx(body=b"abcde"), r"6 bytes after its header, as \(2, 3\) says, got 5"),
        ("x", idx(body=b"abcdefg"), "6 bytes after its header.*got 'more than 6'"),
        ("x", idx(shape=(2**32 - 1,) * 3), "got 6"),
        ("x", idx(shape=(1,) * 255, body=b"a"), "a file of a shape that NumPy has, got .*255"),
        ("x", idx(shape=(0,) + (2**32 - 1,) * 3, body=b""), "a file of a shape that NumPy has"),
        ("x.gz", idx(), "whole gzip data"),
        ("x.gz", gzip.compress(idx(), mtime=0)[:-9], "whole gzip data"),
        ("x.gz", flip(gzip.compress(idx(), mtime=0)), "whole gzip data|IDX|after its header"),
        ("x.gz", gzip.compress(idx(body=b"a" * 10**7), mtime=0), "got 'more than 6'"),
    ],
)
def test_broken_idx_files_are_refused_by_name(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        data.read_idx(path)
    assert str(path) in str(error.value)


def test_mnist_and_its_pinned_hashes(mnist_dir):
    train, test = data.mnist(mnist_dir)
    assert train.image.shape == (60000, 28, 28, 1) and test.image.shape == (10000, 28, 28, 1)
    assert train.label[:5].tolist() == [5, 0, 4, 1, 9] and train.label.dtype == np.int32
    for name, (_, sha256) in _mnist.FILES.items():
        content = gzip.decompress((mnist_dir / f"{name}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == sha256


def test_mnist_of_another_shape_is_refused(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx())
    with pytest.raises(DataError, match=r"of shape \(60000, 28, 28\), got \(2, 3\)"):
        data.mnist(tmp_path)


BODY = gzip.compress(idx(), mtime=0)
SHORT = "/short"
REPLIES = {
    "/good": (200, {}, BODY),
    "/other": (200, {}, gzip.compress(idx(body=b"ABCDEF"), mtime=0)),
    "/long": (200, {}, gzip.compress(idx() + b"g" * 10**6, mtime=0)),
    "/plain": (200, {}, idx()),
    "/endless": (200, {}, b"x" * 10**6),
    SHORT: (200, {"Content-Length": str(len(BODY))}, BODY[:-5]),
    "/moved": (302, {"Location": "/good"}, b""),
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        away = (302, {"Location": f"http://{self.headers['Host']}/good"}, b"")
        status, headers, body = {**REPLIES, "/away": away}.get(self.path, (404, {}, b""))
        self.send_response(status)
        for header in headers.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class LocalHTTPS(urllib.request.HTTPSHandler):
    """Serves https addresses without TLS."""

    def https_open(self, request):
        return self.do_open(http.client.HTTPConnection, request)


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def fetch(server, monkeypatch, tmp_path):
    monkeypatch.setattr(urllib.request, "HTTPSHandler", LocalHTTPS)
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def fetch(*paths):
        target = tmp_path / "data" / "x.gz"
        sha256 = hashlib.sha256(idx()).hexdigest()
        urls = [f"https://{server}{path}" for path in paths]
        options = dict(content=lambda body: _fetch.gunzip(body, 200), fix="put it there")
        _fetch.fetch("test", urls, target, sha256=sha256, size=200, **options)
        return target

    return fetch


def test_download_takes_the_first_mirror_that_is_right(fetch):
    target = fetch("/nowhere", "/other", "/moved")
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    "path, reason",
    [
        ("/other", "another SHA-256"),
        ("/long", "more than 200 bytes|another SHA-256"),
        ("/endless", "more than 200 bytes"),
        ("/plain", "BadGzipFile"),
        (SHORT, "EOFError|IncompleteRead"),
        ("/nowhere", "HTTPError 404"),
        ("/away", "unknown url type: http"),
    ],
)
def test_a_bad_download_leaves_nothing(fetch, tmp_path, path, reason):
    with pytest.raises(DataError, match=reason):
        fetch(path)
    assert list(tmp_path.iterdir()) == []


def test_http_is_never_opened(server):
    with pytest.raises(urllib.error.URLError, match="unknown url type: http"):
        _fetch.opener().open(f"http://{server}/good")


def test_offline_the_error_says_what_to_put_where(monkeypatch, tmp_path):
    class Offline:
        def open(self, url, timeout):
            raise urllib.error.URLError(f"no route to {url}")

    monkeypatch.setattr(_fetch, "opener", Offline)
    with pytest.raises(DataError, match="put train-images-idx3-ubyte and .* there") as error:
        data.mnist(tmp_path)
    assert all(mirror in str(error.value) for mirror in _mnist.MIRRORS)
    assert str(tmp_path) in str(error.value)


def records(source, classes, seed=0):
    """Files of random images with their labels, as many as `source` has."""
    rng, files = np.random.default_rng(seed), {}
    for name, n in source.images.items():
        labels = rng.integers(0, classes, (n, source.labels), np.uint8)
        files[name] = np.hstack([labels, rng.integers(0, 256, (n, 3072), np.uint8)])
    return files


def tar(*members):
    """A gzipped archive of (name, content) or of TarInfos."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return packed.getvalue()


@pytest.fixture
def small(monkeypatch):
    """CIFAR of a few images, in archives whose hashes are not yet known."""
    ten = {name: 3 for name in _cifar.CIFAR10.images}
    monkeypatch.setattr(_cifar, "CIFAR10", _cifar.CIFAR10._replace(images=ten))
    hundred = {"train.bin": 5, "test.bin": 2}
    monkeypatch.setattr(_cifar, "CIFAR100", _cifar.CIFAR100._replace(images=hundred))

    def pack(source, path, *members):
        path.write_bytes(tar(*members))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(_cifar, source, getattr(_cifar, source)._replace(sha256=sha256))

    return pack


@pytest.mark.fast
def test_cifar10_from_its_archive_and_its_folder(small, tmp_path):
    files = records(_cifar.CIFAR10, 10)
    members = [(f"cifar-10-batches-bin/{name}", x.tobytes()) for name, x in files.items()]
    archive = tmp_path / "cifar-10-binary.tar.gz"
    # In another order, and with the names of the classes, as the real one.
    small("CIFAR10", archive, *members[::-1], ("cifar-10-batches-bin/batches.meta.txt", b"cat"))
    folder = tmp_path / "extracted" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, x in files.items():
        (folder / name).write_bytes(x.tobytes())
    whole = np.concatenate(list(files.values()))
    for directory in (tmp_path, archive, folder, folder.parent):
        train, test = data.cifar10(directory)
        assert (len(train), len(test), train.classes) == (15, 3, 10)
        assert train.image.dtype == np.uint8 and train.label.dtype == np.int32
        np.testing.assert_array_equal(np.append(train.label, test.label), whole[:, 0])
        # Rows of a plane after another, red first.
        assert test.image[1, 2, 3].tolist() == files["test_batch.bin"][1][[68, 1092, 2116]].tolist()
        image = train.image[14].transpose(2, 0, 1).ravel()
        np.testing.assert_array_equal(image, files["data_batch_5.bin"][2, 1:])


@pytest.mark.fast
def test_cifar100_has_two_kinds_of_labels(small, tmp_path):
    files = records(_cifar.CIFAR100, 20)
    for name, x in files.items():
        x[:, 1] += 75
        (tmp_path / name).write_bytes(x.tobytes())
    for labels, column, classes in (("coarse", 0, 20), ("fine", 1, 100)):
        train, test = data.cifar100(tmp_path, labels=labels)
        assert train.classes == classes and test.image.shape == (2, 32, 32, 3)
        np.testing.assert_array_equal(train.label, files["train.bin"][:, column])
    np.testing.assert_array_equal(
        train.image[4].transpose(2, 0, 1).ravel(), files["train.bin"][4, 2:]
    )
    with pytest.raises(ConfigError, match="labels must be one of"):
        data.cifar100(tmp_path, labels="super")


def test_broken_cifar_files_are_refused_by_name(small, tmp_path):
    files = records(_cifar.CIFAR100, 20)
    for name, x in files.items():
        (tmp_path / name).write_bytes(x.tobytes())
    path = tmp_path / "train.bin"
    for bad in (path.read_bytes()[:-1], path.read_bytes() + b"x", b""):
        path.write_bytes(bad)
        with pytest.raises(DataError, match="train.bin must be 5 records of 3074 bytes, got"):
            data.cifar100(tmp_path)
    files["train.bin"][3, 1] = 100
    path.write_bytes(files["train.bin"].tobytes())
    with pytest.raises(DataError, match=r"train.bin must be labels in \[0, 100\), got 100"):
        data.cifar100(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="must be a folder of train.bin, test.bin, got 'no .*train"):
        data.cifar100(tmp_path)


LINK, DEVICE, FIFO = (tarfile.TarInfo("train.bin") for _ in range(3))
LINK.type, LINK.linkname = tarfile.SYMTYPE, "/etc/passwd"
DEVICE.type, FIFO.type = tarfile.CHRTYPE, tarfile.FIFOTYPE
HARD = tarfile.TarInfo("train.bin")
HARD.type, HARD.linkname = tarfile.LNKTYPE, "../x"


@pytest.mark.parametrize(
    "members, message",
    [
        ([("../train.bin", b"")], r"paths that stay in it, got '../train.bin'"),
        ([("a/../../b", b"")], "paths that stay in it"),
        ([("/train.bin", b"")], "paths that stay in it, got '/train.bin'"),
        ([LINK], "files and folders alone, got 'train.bin'"),
        ([HARD], "files and folders alone"),
        ([DEVICE], "files and folders alone"),
        ([FIFO], "files and folders alone"),
        ([("train.bin", b"a"), ("b/train.bin", b"b")], "each file once, got 'b/train.bin'"),
        ([("train.bin", b"a")], "an archive with test.bin, got"),
        ([("train.bin", b"0" * 2 * 10**6)], "an archive of at most 1070094 bytes"),
    ],
)
def test_hostile_archives_are_refused(small, tmp_path, members, message):
    archive = tmp_path / "cifar-100-binary.tar.gz"
    small("CIFAR100", archive, *members)
    with pytest.raises(DataError, match=message) as error:
        data.cifar100(tmp_path)
    assert str(archive) in str(error.value)
    assert list(tmp_path.iterdir()) == [archive]


def test_changed_and_truncated_archives_are_refused(small, tmp_path):
    archive = tmp_path / "cifar-100-binary.tar.gz"
    archive.write_bytes(b"nonsense")
    with pytest.raises(DataError, match="of SHA-256 58a81ae1.*; delete the file and get it anew"):
        data.cifar100(tmp_path)
    whole = tar(("train.bin", b"a" * 10**4))
    # Cut in the compressed stream, and in the tar inside of it.
    for body in (whole[:-20], gzip.compress(gzip.decompress(whole)[:2000]), b"nonsense"):
        archive.write_bytes(body)
        sha256 = hashlib.sha256(body).hexdigest()
        with pytest.raises(DataError, match="a whole .tar.gz archive"):
            _fetch.read_tar("test", archive, ["train.bin"], sha256=sha256, size=10**6)


@pytest.mark.fast
@pytest.mark.parametrize(
    "load, name",
    [
        (data.cifar10, "cifar-10-python.tar.gz"),
        (data.cifar10, "cifar-10-batches-py"),
        (data.cifar10, "data_batch_1"),
        (data.cifar100, "cifar-100-python.tar.gz"),
        (data.cifar100, "cifar-100-python"),
    ],
)
def test_pickles_are_refused(tmp_path, load, name):
    (tmp_path / name).write_bytes(b"")
    for directory in (tmp_path, tmp_path / name):
        with pytest.raises(DataError, match=r"whose pickles .* get https://.*-binary.tar.gz"):
            load(directory)


def test_cifar_is_downloaded_where_it_is_missing(small, server, monkeypatch, tmp_path):
    monkeypatch.setattr(urllib.request, "HTTPSHandler", LocalHTTPS)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(_cifar, "HOME", f"https://{server}/")
    with pytest.raises(DataError, match="404.*; put cifar-100-binary.tar.gz there"):
        data.cifar100(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    files = records(_cifar.CIFAR100, 20)
    packed = tmp_path / "packed"
    small("CIFAR100", packed, *[(name, x.tobytes()) for name, x in files.items()])
    monkeypatch.setitem(REPLIES, "/cifar-100-binary.tar.gz", (200, {}, packed.read_bytes()))
    train, _ = data.cifar100(tmp_path / "new")
    np.testing.assert_array_equal(train.label, files["train.bin"][:, 1])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cifar-100-binary.tar.gz"]
    monkeypatch.setattr(_cifar, "CIFAR100", _cifar.CIFAR100._replace(size=100))
    with pytest.raises(DataError, match="more than 100 bytes"):
        data.cifar100(tmp_path / "again")


def write(path, text, **options):
    path.write_text(text, **options)
    return path


@pytest.mark.fast
def test_csv_reads_numbers_and_classes(tmp_path):
    path = write(tmp_path / "x.csv", 'a,b,kind\n1,2.5,"big, red"\n\n-3e2, 4,blue\n5,6,blue\n')
    table = data.csv(path, label="kind", classes=True)
    assert table.columns == ["a", "b"] and table.classes == ["big, red", "blue"]
    np.testing.assert_array_equal(table.dataset.image, [[1, 2.5], [-300, 4], [5, 6]])
    assert table.dataset.image.dtype == np.float32 and table.dataset.classes == 2
    assert table.dataset.label.tolist() == [0, 1, 1]
    again = data.csv(path, label=-1, classes=["blue", "green", "big, red"]).dataset
    assert again.label.tolist() == [2, 0, 0] and again.classes == 3
    numbers = data.csv(write(path, "\ufeff1;2\n3;4\n"), label=0, header=False, delimiter=";")
    assert numbers.columns == ["1"] and numbers.classes is None
    assert numbers.dataset.image.tolist() == [[2], [4]]
    assert numbers.dataset.label.tolist() == [[1], [3]] and numbers.dataset.classes is None
    digits = data.csv(write(path, "x,y\n1,10\n2,9\n"), label="y", classes=True)
    assert digits.classes == ["9", "10"]
    spaced = data.csv(write(path, "x,y\n1,1\n2,1 \n3,01\n4,2\n"), label="y", classes=True)
    assert spaced.classes == ["01", "1", "2"] and spaced.dataset.label.tolist() == [1, 1, 0, 2]
    largest = data.csv(write(path, "x,y\n1,-3.4028235e38\n"), label="y").dataset
    assert largest.label.tolist() == [[np.finfo(np.float32).min]]
    # Equal as numbers: in no order of Python's sets, which is another in each process.
    alike = ["0" * i + "1" for i in range(9, -1, -1)]
    text = "x,y\n" + "".join(f"1,{label}\n" for label in alike[::-1])
    assert data.csv(write(path, text), label="y", classes=True).classes == alike


@pytest.mark.fast
@pytest.mark.parametrize(
    "text, options, message",
    [
        ("a,y\n1,2\n3\n", {}, r"line 3 must be a row of 2 cells, as the first, got \"1: "),
        ("a,y\n1,2,3\n", {}, "line 2 must be a row of 2 cells"),
        ("a,y\n1,2\n\nx,4\n", {}, "line 4 must be a finite number in column 'a', got 'x'"),
        ("a,y\nnan,2\n", {}, "line 2 must be a finite number in column 'a', got 'nan'"),
        ("a,y\n1,2\n1,-inf\n", {}, "line 3 must be a finite number in column 'y', got '-inf'"),
        ("a,y\n,2\n", {}, "line 2 must be a finite number in column 'a', got ''"),
        ("a,y\n1_000,2\n", {}, "got '1_000'"),
        ("a,y\n1,2\n1,cat\n", {}, "line 3 must be a finite number in column 'y', got 'cat'"),
        ("a,y\n1,b\n", {"classes": ["c"]}, r"line 2 must be one of the classes \['c'\] in col"),
        ("a,y\n", {}, "line 1 must be followed by at least one row"),
        ("a,y\n1,b\n2, \n", {"classes": True}, "line 3 must be a class in column 'y', got ''"),
        ("a,y\n1,2\n3.5e38,2\n", {}, "line 3 must be a number that float32 can hold in column 'a'"),
        ("a,y\n1,-3.5e38\n", {}, "line 2 must be a number that float32 can hold in column 'y'"),
        ("", {}, "line 1 must be a row of two or more columns"),
        ("a,a,y\n1,2,3\n", {}, "no two alike, got"),
        ('a,y\n1,"2\n', {}, "must be CSV, got Error"),
        ("y,a\n1,2\n1,\xe9\n1,2\n", {"encoding": "latin-1"}, r"line 3 must be UTF-8, got b'.xe9'$"),
        ("y,a\n", {"encoding": "utf-16"}, r"line 1 must be UTF-8, got b'.xf[ef]'$"),
    ],
)
def test_a_broken_table_is_refused_with_its_line(tmp_path, text, options, message):
    path = write(tmp_path / "x.csv", text, encoding=options.pop("encoding", None))
    with pytest.raises(DataError, match=message) as error:
        data.csv(path, label="y", **options)
    assert str(path) in str(error.value)


def test_csv_refuses_bad_options(tmp_path):
    path = write(tmp_path / "x.csv", "size,y\n1,2\n")
    with pytest.raises(ConfigError, match="label must be one of .* did you mean 'size'"):
        data.csv(path, label="sise")
    for label in (2, -3, 1.0, True):
        with pytest.raises(ConfigError, match=r"a name or a position in \[-2, 2\)"):
            data.csv(path, label=label)
    for classes in ("y", 3, [1, 2], None, ["2", b"1"]):
        with pytest.raises(TypeError, match="csv: classes must be True, False or names in order"):
            data.csv(path, label="y", classes=classes)
    with pytest.raises(ConfigError, match="csv: classes must be names of which no two are alike"):
        data.csv(path, label="y", classes=["2", "1", "2"])
    for delimiter in (None, ",,", "", 1, '"', "\n"):
        with pytest.raises(ConfigError, match="csv: delimiter must be one character"):
            data.csv(path, label="y", delimiter=delimiter)
    with pytest.raises(TypeError, match="csv: path must be a path, got 7"):
        data.csv(7, label="y")


@pytest.fixture
def pillow():
    return pytest.importorskip("PIL.Image")


@pytest.mark.fast
def test_image_folder(pillow, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("dog/b.png", "cat/a.png", "cat/deeper/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pillow.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).save(tmp_path / name)
    gray = np.full((4, 4), 7, np.uint8)
    pillow.fromarray(gray).save(tmp_path / "dog" / "a.png")
    (tmp_path / "dog" / ".hidden").write_text("no image")
    (tmp_path / ".notes").write_text("no class")
    dataset, names = data.image_folder(tmp_path, size=(6, 8))
    assert names == ["cat", "dog"] and dataset.classes == 2
    assert dataset.label.tolist() == [0, 0, 1, 1] and dataset.image.dtype == np.uint8
    for i, name in ((0, "cat/a.png"), (1, "cat/deeper/c.png"), (3, "dog/b.png")):
        np.testing.assert_array_equal(dataset.image[i], pillow.open(tmp_path / name))
    assert (dataset.image[2] == 7).all()
    narrow, _ = data.image_folder(tmp_path, size=6)
    np.testing.assert_array_equal(narrow.image[0], dataset.image[0][:, 1:7])
    stretched, _ = data.image_folder(tmp_path, size=3, channels=1, fit="stretch")
    image = pillow.open(tmp_path / "cat/a.png").convert("L").resize((3, 3), pillow.BILINEAR)
    np.testing.assert_array_equal(stretched.image[0, ..., 0], image)


def test_images_are_turned_as_their_camera_was_and_lose_alpha(pillow, tmp_path):
    (tmp_path / "cat").mkdir()
    rgba = np.random.default_rng(0).integers(0, 256, (3, 3, 4), np.uint8)
    image = pillow.fromarray(rgba)
    exif = image.getexif()
    exif[0x0112] = 6  # the orientation: turn it clockwise to see it upright
    image.save(tmp_path / "cat" / "a.png", exif=exif)
    dataset, _ = data.image_folder(tmp_path, size=3)
    np.testing.assert_array_equal(dataset.image[0], np.rot90(rgba[..., :3], -1))


def test_broken_images_are_refused_by_name(pillow, tmp_path, monkeypatch):
    with pytest.raises(
        DataError, match="must be a folder with a folder for each class, got 'none'"
    ):
        data.image_folder(tmp_path, size=4)
    path = tmp_path / "cat" / "a.png"
    path.parent.mkdir()
    (tmp_path / "dog").mkdir()
    pillow.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    with pytest.raises(DataError, match="dog must be a folder with an image, got 'none'"):
        data.image_folder(tmp_path, size=4)
    (tmp_path / "dog").rmdir()
    for bad in (b"", b"text", whole[:1000], whole[:20], whole.replace(b"IDAT", b"XXXX")):
        path.write_bytes(bad)
        with pytest.raises(DataError, match="a.png must be an image of 8 bits that is whole"):
            data.image_folder(tmp_path, size=4)
    pillow.fromarray(np.zeros((4, 4), np.uint16)).save(path)
    with pytest.raises(DataError, match="got ValueError.'mode I;16"):
        data.image_folder(tmp_path, size=4)
    path.write_bytes(whole)
    monkeypatch.setattr(pillow, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(DataError, match="DecompressionBombWarning"):
        data.image_folder(tmp_path, size=4)
    with pytest.raises(ConfigError, match="image_folder: size must be an int >= 1, got 0"):
        data.image_folder(tmp_path, size=(4, 0))
    for size in ((8,), (8, 8, 3), ()):
        with pytest.raises(ConfigError, match="image_folder: size must be one int or a pair of"):
            data.image_folder(tmp_path, size=size)
    (tmp_path / "notes.txt").write_text("no class")
    with pytest.raises(DataError, match="notes.txt must be in the folder of a class"):
        data.image_folder(tmp_path, size=4)


def test_nothing_unpickles():
    for path in pathlib.Path(jaxtrain.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"import (pickle|shelve|joblib|dill)|allow_pickle=True", text), path


def test_importing_data_brings_in_no_optional_package():
    code = (
        "import sys, jaxtrain.data; print({'PIL', 'pandas', 'sklearn', 'grain'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
