"""Files in folders, archives, tables and far away become the same songs."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import parquet

from fractalgen.config import PrepareConfig
from fractalgen.data.corpus import Corpus
from fractalgen.data.prepare import prepare
from fractalgen.data.reading import Skipped, SourceFile
from fractalgen.data.sources import Source
from fractalgen.errors import UserError
from tests.midi_files import midi, scale

FILES = {f"data/{'aa' if i < 4 else 'bb'}/{i:06}_0.mid": midi(scale(first=40 + i)) for i in range(8)}


def songs(data: Path | str, folder: Path, **settings: Any) -> dict[str, list[int]]:
    """Pitches of each song, by its id."""
    out = folder / "out.safetensors"
    prepare(PrepareConfig(data=str(data), out=str(out), **settings))
    corpus = Corpus.open(out)
    return {name: corpus.notes(index)["pitch"].tolist() for index, name in enumerate(corpus.song_ids)}


def archive(path: Path, files: dict[str, bytes], mode: Any) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def table(path: Path, **columns: Any) -> Path:
    parquet.write_table(pyarrow.table(columns), path, row_group_size=3)
    return path


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, list[int]]:
    for name, content in FILES.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    found = songs(tmp_path / "folder", tmp_path)
    assert list(found) == list(FILES)
    return found


def test_archives(tmp_path: Path, expected: dict[str, list[int]]) -> None:
    """In Aria-MIDI's layout."""
    inside = {f"aria/{name}": content for name, content in FILES.items()}
    inside |= {"aria/metadata.json": b"{}", "aria/data/._x.mid": b"", "aria/data/aa/bad.mid": b"text"}
    packed = [("a.tar", "w"), ("b.tar.gz", "w:gz"), ("c.tgz", "w:gz"), ("d.tar.bz2", "w:bz2"), ("e.tar.xz", "w:xz")]
    for path in (
        *(archive(tmp_path / name, inside, mode) for name, mode in packed),
        zipped(tmp_path / "f.zip", inside),
    ):
        assert {song.removeprefix("aria/"): pitches for song, pitches in songs(path, tmp_path).items()} == expected
    cut = tmp_path / "cut.tar"
    cut.write_bytes((tmp_path / "a.tar").read_bytes()[:5000])
    report = tmp_path / "report.tsv"
    assert 0 < len(songs(cut, tmp_path, report=str(report))) < 8
    assert "cut.tar\tdamaged after" in report.read_text()
    cut = tmp_path / "folder" / "cut.zip"
    cut.write_bytes((tmp_path / "f.zip").read_bytes()[:1000])
    (tmp_path / "folder" / "other.7z").write_bytes(b"7z")
    assert songs(tmp_path / "folder", tmp_path, report=str(report)) == expected
    assert "cut.zip\tdamaged after 0 files (File is not a zip file)" in report.read_text()
    assert "other.7z\tan archive of a kind that is not read; unpack it" in report.read_text()


def test_a_packed_archive_that_is_cut_is_not_taken_for_complete(tmp_path: Path) -> None:
    whole = archive(tmp_path / "a.tar.gz", FILES, "w:gz").read_bytes()
    cut = tmp_path / "cut.tar.gz"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        *files, end = Source(str(cut))
        if isinstance(end, Skipped):
            assert "damaged after" in end.reason
        else:  # what is cut off lies behind the last file
            assert [file.name for file in (*files, end) if isinstance(file, SourceFile)] == list(FILES), length


def test_how_far_reading_is(tmp_path: Path, expected: dict[str, list[int]]) -> None:
    """Each file says where in the source it ends; archives end where their last block does."""
    for source, exact in (
        (tmp_path / "folder", True),
        (archive(tmp_path / "a.tar", FILES, "w"), False),
        (archive(tmp_path / "a.tar.gz", FILES, "w:gz"), False),
        (table(tmp_path / "a.parquet", md5=list(FILES), music=list(FILES.values())), True),
    ):
        found = Source(str(source))
        ends = [file.end for file in found if isinstance(file, SourceFile)]
        assert len(ends) == 8
        assert ends == sorted(ends)
        assert 0 < ends[0] <= ends[-1] <= found.size
        assert ends[-1] == found.size or not exact
    size = found.size
    (tmp_path / "folder" / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes())
    assert [file.end for file in Source(str(tmp_path / "folder")) if isinstance(file, SourceFile)][-8] > size // 8


def test_a_folder_is_listed_once(
    tmp_path: Path, expected: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    ls = LocalFileSystem.ls

    def spy(self: LocalFileSystem, path: str, **settings: Any) -> Any:
        listed.append(path)
        return ls(self, path, **settings)

    monkeypatch.setattr(LocalFileSystem, "ls", spy)
    assert songs(tmp_path / "folder", tmp_path) == expected
    assert len(listed) == len(set(listed)) == 4


def test_nothing_to_read(tmp_path: Path) -> None:
    for name, files, message in (
        ("a.tar", {"readme.txt": b"x"}, r"a.tar: no MIDI file in it \(.mid, "),
        ("b.tar", {"bad.mid": b"x"}, r"no usable music \(1 file skipped; first: bad.mid: not a MIDI file"),
    ):
        with pytest.raises(UserError, match=message):
            songs(archive(tmp_path / name, files, "w"), tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "score.mscz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"1 file skipped; first: score.mscz: not MIDI; export it"):
        songs(tmp_path / "folder", tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_no_file(tmp_path: Path, expected: dict[str, list[int]]) -> None:
    os.mkfifo(tmp_path / "folder" / "pipe.mid")
    report = tmp_path / "report.tsv"
    assert songs(tmp_path / "folder", tmp_path, report=str(report)) == expected
    assert report.read_text() == "pipe.mid\tnot a regular file\n"
    os.mkfifo(tmp_path / "pipe.tar")
    for pipe in (tmp_path / "folder" / "pipe.mid", tmp_path / "pipe.tar"):
        with pytest.raises(UserError, match="not a regular file"):
            songs(pipe, tmp_path)


def test_odd_names_in_an_archive(tmp_path: Path) -> None:
    """No name leads out of the archive or breaks a line."""
    names = ["/abs.mid", "../../up.mid", "a\nb.mid", "./x/../in.mid"]
    inside = dict(zip(names, FILES.values(), strict=False))
    found = songs(archive(tmp_path / "odd.tar", inside, "w"), tmp_path)
    assert list(found) == ["abs.mid", "up.mid", "a\\x0ab.mid", "in.mid"]


def test_tables(tmp_path: Path, expected: dict[str, list[int]]) -> None:
    """In GigaMIDI's layout, and in the one that data sets of Hugging Face have."""
    names, contents = list(FILES), list(FILES.values())
    giga = table(tmp_path / "giga.parquet", md5=names, music=contents, NOMML=[12] * 8)
    assert songs(giga, tmp_path) == expected
    packed = [{"bytes": content, "path": name} for name, content in FILES.items()]
    assert songs(table(tmp_path / "hub.parquet", midi=packed, label=[0] * 8), tmp_path) == expected
    with pytest.raises(UserError, match=r"no column of bytes in this table \(it has a, b\)"):
        songs(table(tmp_path / "none.parquet", a=[1], b=["x"]), tmp_path)
    (tmp_path / "text.parquet").write_bytes(b"no table at all")
    with pytest.raises(UserError, match="not a Parquet table, or damaged"):
        songs(tmp_path / "text.parquet", tmp_path)


def test_archives_and_tables_in_a_folder_stand_for_folders(tmp_path: Path) -> None:
    files = list(FILES.items())
    mixed = tmp_path / "mixed"
    (mixed / "train").mkdir(parents=True)
    archive(mixed / "train" / "1.tar", dict(files[:3]), "w")
    table(mixed / "train" / "2.parquet", md5=["x", "y"], music=[content for _, content in files[3:5]])
    (mixed / "plain.mid").write_bytes(files[5][1])
    out = tmp_path / "out.safetensors"
    prepare(PrepareConfig(data=str(mixed), out=str(out)))
    corpus = Corpus.open(out)
    styles = {name: corpus.style(index) for index, name in enumerate(corpus.song_ids)}
    assert styles == {
        "plain.mid": "",
        **{f"train/1.tar/{name}": "train" for name, _ in files[:3]},
        "train/2.parquet/x": "train",
        "train/2.parquet/y": "train",
    }


def test_far_away(tmp_path: Path, expected: dict[str, list[int]]) -> None:
    there = fsspec.filesystem("memory")
    for name, content in FILES.items():
        there.pipe(f"/bucket/music/{name}", content)
    there.pipe("/bucket/music/notes.txt", b"x")
    there.pipe("/bucket/all.tar.gz", archive(tmp_path / "a.tar.gz", FILES, "w:gz").read_bytes())
    try:
        assert songs("memory://bucket/music", tmp_path) == expected
        assert songs("memory://bucket/all.tar.gz", tmp_path) == expected
        one = songs("memory://bucket/music/data/aa/000000_0.mid", tmp_path)
        assert one == {"000000_0.mid": expected["data/aa/000000_0.mid"]}
        with pytest.raises(UserError, match="--data memory://bucket/none: no such file or folder"):
            songs("memory://bucket/none", tmp_path)
    finally:
        there.rm("/bucket", recursive=True)


def test_addresses_without_their_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("s3fs", "aiobotocore"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"--data s3://bucket/music: Install s3fs"):
        songs("s3://bucket/music", tmp_path)
    with pytest.raises(UserError, match=r"--data nonsense://x: Protocol not known"):
        songs("nonsense://x", tmp_path)


def test_scores_in_a_folder(tmp_path: Path, expected: dict[str, list[int]]) -> None:
    pytest.importorskip("music21")
    from fractalgen.music.musicxml_writer import write_musicxml

    corpus = Corpus.open(tmp_path / "out.safetensors")
    write_musicxml(corpus.roll(0), tmp_path / "folder" / "score.musicxml")
    (tmp_path / "folder" / "old.mscz").write_bytes(b"x")
    report = tmp_path / "report.tsv"
    found = songs(tmp_path / "folder", tmp_path, keep_duplicates=True, report=str(report))
    assert found["score.musicxml"] == expected["data/aa/000000_0.mid"]
    assert "old.mscz\tnot MIDI" in report.read_text()
    assert np.array_equal(sorted(found), sorted([*expected, "score.musicxml"]))
