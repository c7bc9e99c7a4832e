"""Protects the disk from archives: nothing leaves the folder, nothing is half there, each fault names its member."""

import errno
import gzip
import io
import random
import shutil
import stat
import tarfile
import tracemalloc
import zipfile
from collections import namedtuple
from hashlib import sha256
from pathlib import Path

import pytest

from clepdg.download import archive_members, archives, folders
from clepdg.errors import SourceError

NOISE = random.Random(0).randbytes(100_000)
CONTENT = {"a b/01.wav": b"angry" * 40_000, "a b/02.wav": NOISE, "readme.txt": b""}
JUNK = ("a b/._01.wav", ".DS_Store", "__MACOSX/a b/01.wav", ".git/config", "x/.hidden/y.wav")
KINDS = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")


def make(path: Path, members: list[tuple[str, bytes]]) -> Path:
    """Write a zip or tar with these members, in this order, whatever their names are."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in members:
                file.writestr(name, data)
        return path
    suffix = path.suffix[1:]
    with tarfile.open(path, "w" if suffix == "tar" else f"w:{suffix}") as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def make_special(path: Path, name: str, kind: bytes, mode: int) -> Path:
    """Write an archive with one file and one link, device or pipe."""
    if path.suffix == ".zip":
        make(path, [("a.wav", b"1")])
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(info, "/etc/passwd")
        return path
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    return path


def extract(archive: Path, out: Path) -> list[folders.File]:
    return archives.extract(archive, out, progress=lambda done, total: None)


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(archive: Path, *words: str) -> str:
    """Extract, expect a SourceError with these words, and look that nothing but the archive is left around it."""
    out = archive.parent / "deep" / "er" / "out"
    out.parent.mkdir(parents=True, exist_ok=True)
    before = set(archive.parent.parent.rglob("*"))
    with pytest.raises(SourceError) as raised:
        extract(archive, out)
    assert set(archive.parent.parent.rglob("*")) == before
    for word in words:
        assert word in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_extracts_what_was_packed_without_junk(tmp_path: Path, kind: str) -> None:
    archive = make(tmp_path / f"corpus.{kind}", [*CONTENT.items(), *((name, b"junk") for name in JUNK)])
    assert archive_members.is_archive(archive)
    files = extract(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == CONTENT
    facts = [folders.File(name, len(CONTENT[name]), 0, sha256(CONTENT[name]).hexdigest()) for name in sorted(CONTENT)]
    assert files == facts
    assert {path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()} == {0}
    assert not (tmp_path / "out.resume").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_progress_ends_at_all_bytes(tmp_path: Path, kind: str) -> None:
    calls: list[tuple[int, int]] = []
    archive = make(tmp_path / f"corpus.{kind}", list(CONTENT.items()))
    archives.extract(archive, tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    size = sum(map(len, CONTENT.values()))
    assert calls[-1] == (size, size if kind == "zip" else 0)


def test_leftover_of_a_killed_extraction_is_not_part_of_the_next(tmp_path: Path) -> None:
    (tmp_path / "out.resume").mkdir()
    (tmp_path / "out.resume" / "half.wav").write_bytes(b"half")
    extract(make(tmp_path / "c.zip", list(CONTENT.items())), tmp_path / "out")
    assert tree(tmp_path / "out") == CONTENT


def test_odd_but_harmless_names_are_kept(tmp_path: Path) -> None:
    members = [("./a/é.wav", b"1"), ("b//c.wav", b"2"), ("d...wav", b"3"), (".gitattributes", b"4"), ("w\\x.wav", b"5")]
    extract(make(tmp_path / "c.tar", members), tmp_path / "out")
    kept = {"a/é.wav": b"1", "b/c.wav": b"2", "d...wav": b"3", ".gitattributes": b"4", "w/x.wav": b"5"}
    assert tree(tmp_path / "out") == kept


def test_folder_entries_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "corpus" / "sub").mkdir(parents=True)
    (tmp_path / "corpus" / "sub" / "a.wav").write_bytes(b"1")
    for kind in ("zip", "tar"):
        shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "corpus")
        assert [file.path for file in extract(tmp_path / f"packed.{kind}", tmp_path / kind)] == ["sub/a.wav"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize(
    "name", ["../evil.wav", "a/../../evil.wav", "/tmp/evil.wav", "C:/evil.wav", "C:evil.wav", "..\\evil.wav", "../._x"]
)
def test_escaping_member_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    refused(make(tmp_path / f"c.{kind}", [("good.wav", b"1"), (name, b"2")]), name.replace("\\", "/"))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_all_bad_members_are_named(tmp_path: Path, kind: str) -> None:
    text = refused(make(tmp_path / f"c.{kind}", [(f"../e{n}.wav", b"2") for n in range(30)]), "../e0.wav", "../e19.wav")
    assert "../e20.wav" not in text and "10 more" in text


def test_nothing_is_written_after_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(archives, "_write", lambda member, folder: written.append(member.name))
    members = [("a.wav", b"1"), ("../b.wav", b"2"), ("c.wav", b"3")]
    refused(make(tmp_path / "c.tar", members), "../b.wav")
    assert written == ["a.wav"]
    refused(make(tmp_path / "c.zip", members), "../b.wav")
    assert written == ["a.wav"]


SPECIAL = [(tarfile.SYMTYPE, stat.S_IFLNK, "link"), (tarfile.LNKTYPE, stat.S_IFLNK, "link")]
SPECIAL += [(tarfile.CHRTYPE, stat.S_IFCHR, "device"), (tarfile.FIFOTYPE, stat.S_IFIFO, "device")]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(("entry", "mode", "word"), SPECIAL)
def test_links_and_devices_are_refused(tmp_path: Path, kind: str, entry: bytes, mode: int, word: str) -> None:
    refused(make_special(tmp_path / f"c.{kind}", "odd.wav", entry, mode), "odd.wav", word)


def test_encrypted_member_is_refused(tmp_path: Path) -> None:
    archive = make(tmp_path / "c.zip", [("secret.wav", b"1")])
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # flag bit 0 in the central directory
    data[6] |= 1  # and in the member's own header
    archive.write_bytes(data)
    refused(archive, "safely", "'secret.wav' is encrypted")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_duplicate_names_are_refused(tmp_path: Path, kind: str) -> None:
    refused(make(tmp_path / f"c.{kind}", [("a/b.wav", b"1"), ("a/./b.wav", b"2")]), "a/./b.wav", "twice")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_file_in_the_place_of_a_folder_is_refused(tmp_path: Path, kind: str) -> None:
    refused(make(tmp_path / f"c.{kind}", [("a", b"1"), ("a/b.wav", b"2")]), "a/b.wav")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_name_too_long_is_refused(tmp_path: Path, kind: str) -> None:
    refused(make(tmp_path / f"c.{kind}", [("n" * 300 + ".wav", b"1")]), "nnn", "too long")


def test_name_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    refused(make(tmp_path / "c.tar", [("\udce9.wav", b"1")]), "Unicode")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("name", ["bomb.wav", ".git/bomb"])
def test_bomb_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    archive = make(tmp_path / f"c.{kind}", [("a.wav", b"1"), (name, bytes(archive_members.BOMB_BYTES))])
    assert archive.stat().st_size * archive_members.BOMB_RATIO < archive_members.BOMB_BYTES
    refused(archive, name, "bomb")


def header_of(path: Path, kind: bytes, data: bytes, count: int = 1) -> Path:
    """Write a tar.gz whose file comes after headers of a kind."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(count):
            info = tarfile.TarInfo("././@LongLink")
            info.type, info.size = kind, len(data)
            file.write(info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512))
        info = tarfile.TarInfo("a.wav")
        info.size = 1
        file.write(info.tobuf() + b"1" + bytes(511) + bytes(1024))
    return path


def pax(name: str, value: str) -> bytes:
    text = f" {name}={value}\n"
    size = len(text) + len(str(len(text) + 8))
    return f"{size}{text}".encode()


HEADERS = [
    (tarfile.GNUTYPE_LONGNAME, b"n" * (64 << 20)),
    (tarfile.GNUTYPE_LONGLINK, b"n" * (64 << 20)),
    (tarfile.XHDTYPE, pax("path", "n" * (64 << 20))),
    (tarfile.XGLTYPE, pax("comment", "n" * (64 << 20))),
]


@pytest.mark.parametrize(("kind", "data"), HEADERS, ids=["long name", "long link", "pax", "global pax"])
def test_a_bomb_in_a_header_is_refused_before_it_is_read(tmp_path: Path, kind: bytes, data: bytes) -> None:
    archive = header_of(tmp_path / "c.tar.gz", kind, data)
    tracemalloc.start()
    try:
        refused(archive, "can't be extracted safely", "headers of a member")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_headers_count_as_bytes_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "BOMB_BYTES", 1 << 20)
    monkeypatch.setattr(archive_members, "BOMB_RATIO", 20)
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for number in range(20):
            info = tarfile.TarInfo(f"{number}.wav")
            info.pax_headers = {"comment": "n" * 100_000}
            tar.addfile(info)
    refused(tmp_path / "c.tar.gz", "a bomb")


def test_long_names_and_pax_records_of_a_common_size_are_read(tmp_path: Path) -> None:
    for tar_format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        archive, name = tmp_path / f"{tar_format}.tar.gz", "/".join(["n" * 200] * 10) + "/ä.wav"
        with tarfile.open(archive, "w:gz", format=tar_format) as tar:
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 1, {"SCHILY.xattr.user.note": "n" * 60_000}
            tar.addfile(info, io.BytesIO(b"1"))
        assert [file.path for file in extract(archive, tmp_path / f"out{tar_format}")] == [name]


@pytest.mark.parametrize(("method", "word"), [(9, "Deflate64"), (98, "PPMd"), (77, "method 77")])
def test_a_compression_that_is_not_known_is_named_with_what_helps(tmp_path: Path, method: int, word: str) -> None:
    archive = make(tmp_path / "c.zip", [("a.wav", NOISE)])
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\3\4") + 8] = data[data.index(b"PK\1\2") + 10] = method
    archive.write_bytes(data)
    text = refused(archive, "compression", f"a.wav: {word}", "extract it with another program", "folder as the source")
    assert "download it again" not in text


@pytest.mark.parametrize(
    ("begin", "word"),
    [(b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07\1\0", "RAR"), (b"\x28\xb5\x2f\xfd", "Zstandard")],
)
def test_archives_of_other_kinds_are_named_with_what_helps(tmp_path: Path, begin: bytes, word: str) -> None:
    (tmp_path / "c.zip").write_bytes(begin + NOISE)
    refused(tmp_path / "c.zip", word, "folder as the source")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_more_than_the_disk_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    archive = make(tmp_path / f"c.{kind}", [("a.wav", b"1" * 500), ("b.wav", b"2" * 501)])
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2000, 1000, 1000))
    needed = "1001 bytes are needed" if kind == "zip" else "at least 1001 bytes are needed"
    with pytest.raises(OSError, match=f"{needed}, 1000 bytes free") as raised:
        extract(archive, tmp_path / "out")
    assert raised.value.errno == errno.ENOSPC and not list(tmp_path.glob("out*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2000, 999, 1001))
    assert len(extract(archive, tmp_path / "out")) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_archive_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    archive = make(tmp_path / f"c.{kind}", list(CONTENT.items()))
    data = archive.read_bytes()
    if kind == "tar":  # tars are padded: cut within what matters
        data = data[: sum(512 + -(-len(value) // 512) * 512 for value in CONTENT.values())]
    archive.write_bytes(data[: int(len(data) * share)])
    refused(archive)


def test_tar_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    archive = make(tmp_path / "c.tar", [("a.wav", b"1" * 512), ("b.wav", b"2" * 512)])
    archive.write_bytes(archive.read_bytes()[:1024])
    refused(archive, "truncated or corrupt", "a.wav")


def test_tar_with_a_broken_header_is_refused(tmp_path: Path) -> None:
    archive = make(tmp_path / "c.tar", [("a.wav", b"1" * 512), ("b.wav", b"2" * 512)])
    data = bytearray(archive.read_bytes())
    data[1024 + 150] ^= 0xFF  # the checksum of the second header
    archive.write_bytes(data)
    refused(archive, "truncated or corrupt", "a.wav")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_altered_bytes_are_refused(tmp_path: Path, kind: str) -> None:
    archive = make(tmp_path / f"c.{kind}", [("a.wav", b"1"), ("noise.wav", NOISE * 20)])
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF  # random bytes are stored as they are: only a check sum can tell
    archive.write_bytes(data)
    refused(archive, "truncated or corrupt")


def test_zip_member_shorter_than_it_says_is_refused(tmp_path: Path) -> None:
    archive = make(tmp_path / "c.zip", [("short.wav", b"1" * 5000)])
    data = bytearray(archive.read_bytes())
    for place in (22, data.index(b"PK\x01\x02") + 24):  # its size, twice; the CRC stays right
        data[place : place + 4] = (6000).to_bytes(4, "little")
    archive.write_bytes(data)
    refused(archive, "truncated or corrupt", "short.wav", "5000 of 6000 bytes")


def test_gzip_with_a_wrong_sum_is_refused(tmp_path: Path) -> None:
    archive = make(tmp_path / "c.tar.gz", [("a.wav", b"1" * 5000)])
    data = bytearray(archive.read_bytes())
    data[-8] ^= 0xFF  # the CRC stands behind the tar's own end
    archive.write_bytes(data)
    refused(archive, "truncated or corrupt")


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"just text " * 1000, gzip.compress(b"not a tar" * 1000, mtime=0), b"PK\x03\x04"]
)
def test_other_files_are_no_archives(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "c.zip"
    path.write_bytes(data)
    assert not archive_members.is_archive(path)
    refused(path, "not a readable archive")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archive_without_files_is_refused(tmp_path: Path, kind: str) -> None:
    refused(make(tmp_path / f"c.{kind}", [("._a", b"1")]), "no files")


def test_tar_that_ends_in_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = make(tmp_path / "inner.zip", [("x.wav", b"1")]).read_bytes()
    archive = make(tmp_path / "c.tar", [("inner.zip", inner)])
    assert [file.path for file in extract(archive, tmp_path / "out")] == ["inner.zip"]


def test_many_members_of_whole_blocks_are_read_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeking back in a compressed stream starts it anew: a corpus would take hours."""
    archive = make(tmp_path / "c.tar.gz", [(f"{n}.wav", NOISE[:8192]) for n in range(50)])
    rewinds: list[int] = []
    original = gzip._GzipReader._rewind  # type: ignore[attr-defined]
    monkeypatch.setattr(gzip._GzipReader, "_rewind", lambda self: (rewinds.append(1), original(self))[1])  # type: ignore[attr-defined]
    assert len(extract(archive, tmp_path / "out")) == 50
    assert len(rewinds) <= 4  # opening, not members
