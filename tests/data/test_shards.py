"""Corpora in folders: shards, runs that go on behind others, and the same songs and crops as in one file."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fractalgen.config import PrepareConfig
from fractalgen.data import corpus as corpora
from fractalgen.data import ledger
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import CropDataset, ValidCrops
from fractalgen.data.prepare import LEDGER, Summary, prepare
from fractalgen.data.shards import INDEX_FORMAT, shard_path
from fractalgen.errors import UserError
from fractalgen.files import write_tensors
from tests.midi_files import midi, scale, tempo

SMALL = 0.002  # megabytes: a few of these songs


def write(folder: Path, numbers: range) -> None:
    """Songs that differ in notes, length and tempo."""
    for number in numbers:
        path = folder / f"{'pop' if number % 3 else 'folk'}" / f"{number:03}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(midi(tempo(0, 400_000 + 5000 * number) + scale(8 + number % 30, 240, 30 + number)))


def music_in(folder: Path) -> Path:
    write(folder / "music", range(24))
    (folder / "music" / "bad.mid").write_bytes(b"text")
    return folder / "music"


@pytest.fixture
def music(tmp_path: Path) -> Path:
    return music_in(tmp_path)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The corpus of the music, to look at or to copy."""
    return run(music_in(tmp_path_factory.mktemp("packed")), "out")[1]


def run(music: Path, out: str, **settings: Any) -> tuple[Summary, Corpus]:
    path = music.parent / out
    summary = prepare(PrepareConfig(**{"data": str(music), "out": str(path), "shard_megabytes": SMALL, **settings}))
    return summary, Corpus.open(path)


def splits(music: Path) -> dict[str, str]:
    """All songs train, but one of each other split."""
    path = music.parent / "splits.json"
    names = [path.relative_to(music).as_posix() for path in sorted(music.rglob("0*.mid"))]
    lists = {"train": names[2:], "valid": names[:1], "test": names[1:2]}
    path.write_text(json.dumps(lists), encoding="utf-8")
    return {"splits": str(path)}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != LEDGER}


def test_a_folder_has_the_songs_and_the_crops_of_one_file(music: Path) -> None:
    told = splits(music)
    (whole, one), (summary, many) = run(music, "one.safetensors", **told), run(music, "many", **told)
    assert (summary.songs, summary.notes, summary.splits) == (whole.songs, whole.notes, whole.splits)
    assert summary.num_skipped == 1
    assert len(many.metadata["shards"]) == 4
    assert list(many.song_ids) == list(one.song_ids)
    assert list(many.splits) == list(one.splits)
    assert many.indices("train") == one.indices("train")
    assert many.splits.count("train") == 22
    assert many.lengths.tolist() == one.lengths.tolist()
    assert many.vocabulary == one.vocabulary
    assert [attribute.name for attribute in one.vocabulary if attribute.name in ("style", "tempo")] == [
        "tempo",
        "style",
    ]
    for index in range(len(one)):
        assert np.array_equal(many.notes(index), one.notes(index))
        for facts in ("style", "keys", "chords", "tempos", "meters", "flat"):
            assert getattr(many, facts)(index) == getattr(one, facts)(index)
    alone = Corpus.open(shard_path(many.path, 1))  # a shard is a corpus of its own
    first = many.metadata["shards"][0]["songs"]
    assert alone.song_ids[0] == many.song_ids[first]
    assert np.array_equal(alone.notes(0), many.notes(first))
    travelled = pickle.loads(pickle.dumps(many))
    crops = []
    for corpus in (one, travelled):
        torch.manual_seed(0)
        data = CropDataset(corpus, "train", 64, (-3, 3), attributes=corpus.vocabulary, bar_columns=True, plans=True)
        crops.append([data[0] for _ in range(30)])
        assert ValidCrops(corpus, "valid", 64, bar_columns=True).crops == [(0, 0)]
    for a, b in zip(*crops, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_corpus_is_the_same_in_shards_of_any_size_and_in_one_run_or_several(
    music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MEASURED", 8)  # fewer than there are
    told = splits(music)
    big, small = (run(music, name, shard_megabytes=size, **told)[1] for name, size in (("big", 1), ("small", SMALL)))
    assert len(big.metadata["shards"]) == 1
    assert big.vocabulary == small.vocabulary != run(music, "one.safetensors", **told)[1].vocabulary
    before = content(small.path)
    summary, _ = run(music, "small", **told)  # nothing is new
    assert content(small.path) == before
    assert summary.songs == 24
    write(music, range(24, 30))
    (music / "twin.mid").write_bytes((music / "folk" / "003.mid").read_bytes())
    (music / "folk" / "006.mid").write_bytes(midi(scale(3)))
    report = music.parent / "report.tsv"
    summary, added = run(music, "small", report=str(report))
    assert summary.songs == len(added) == 30
    told = dict(line.split("\t") for line in report.read_text(encoding="utf-8").splitlines())
    assert told["twin.mid"] == "the same notes as folk/003.mid"
    assert "has changed since it was read" in told["folk/006.mid"]
    assert set(told) == {"bad.mid", "twin.mid", "folk/006.mid"}
    after = content(small.path)
    assert all(after[name] == data for name, data in before.items() if name.startswith("shard"))
    assert list(added.song_ids)[:24] == list(small.song_ids)
    assert sum(name.startswith("index") for name in after) == 1


KILLED = """
import os, signal, sys
from fractalgen.config import PrepareConfig
from fractalgen.data import packing, prepare
from fractalgen.data.ledger import Ledger

def kill(*unused):
    os.kill(os.getpid(), signal.SIGKILL)

where, finished = sys.argv[3], []
add, move = Ledger.add_shard, os.replace
def add_shard(self, about):
    finished.append(about)
    kill() if where == "unlisted" and len(finished) == 3 else add(self, about)
def replace(source, target):
    kill() if where == "half" and target.name == "shard-00002.safetensors" else move(source, target)
Ledger.add_shard, os.replace = add_shard, replace
prepare.prepare(PrepareConfig(data=sys.argv[1], out=sys.argv[2], shard_megabytes=0.002, num_workers=1))
"""


@pytest.mark.skipif(os.name != "posix", reason="no SIGKILL")
@pytest.mark.parametrize("where", ["half", "unlisted"])
def test_a_killed_run_goes_on_behind_its_last_shard(packed: Corpus, music: Path, where: str) -> None:
    out = music.parent / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, str(music), str(out), where], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match=r"no manifest.json in it"):
        Corpus.open(out)
    first = shard_path(out, 0).stat()
    run(music, "out")
    assert content(out) == content(packed.path)
    assert shard_path(out, 0).stat().st_mtime_ns == first.st_mtime_ns  # it was not written again


def test_what_could_not_be_read_is_read_by_the_next_run(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that was out of reach, one that was empty, and songs that only a later list names."""
    song, far = (music / "pop" / "001.mid").read_bytes(), music.parent / "far.mid"
    (music / "away.mid").symlink_to(far)
    (music / "empty.mid").write_bytes(b"")
    lists = {"train": [f"folk/{number:03}.mid" for number in range(0, 24, 3)]}
    names = music.parent / "some.json"
    names.write_text(json.dumps(lists))
    report = music.parent / "report.tsv"
    assert run(music, "small", splits=str(names))[0].songs == 8
    far.write_bytes(song)
    (music / "empty.mid").write_bytes((music / "pop" / "002.mid").read_bytes())
    (music / "pop" / "001.mid").unlink()
    (music / "pop" / "002.mid").unlink()
    names.write_text(json.dumps({**lists, "valid": ["away.mid", "empty.mid", "pop/004.mid"]}))
    capsys.readouterr()
    summary, corpus = run(music, "small", splits=str(names), report=str(report))
    assert "files read by an earlier run: what --splits says of them is not looked at" in capsys.readouterr().out
    assert summary.songs == 11
    assert list(corpus.song_ids)[8:] == ["away.mid", "empty.mid", "pop/004.mid"]
    told = dict(line.split("\t") for line in report.read_text(encoding="utf-8").splitlines())
    assert not told.keys() & set(corpus.song_ids)
    assert told["pop/005.mid"] == f"not listed in {names}"


def test_mistakes_are_told_and_leave_nothing(music: Path) -> None:
    _, corpus = run(music, "good")
    before = content(corpus.path)
    other = music.parent / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    (music.parent / "empty").mkdir()
    (music.parent / "empty" / "bad.mid").write_bytes(b"text")
    for out, settings, message in (
        ("good", {"velocity_bins": 8}, "--velocity_bins 8: the songs in .*good have --velocity_bins 32"),
        ("good", {"tracks": ("MELODY", "2")}, "--tracks MELODY 2: the songs in .*good have --tracks none"),
        ("other", {}, "--out .*other: has other files in it"),
        ("new", {"report": "s3://bucket/new.tsv"}, "--report s3://bucket/new.tsv: must be a path, not an address"),
        ("new", {"data": str(music.parent / "empty")}, "no usable music .1 file skipped; first: bad.mid: not a MIDI"),
        (
            "new",
            {"merge": (str(corpus.path),), "data": ""},
            "--merge writes one file; its name must end in .safetensors",
        ),
        ("new", {"scheduler": "tcp://127.0.0.1:1", "num_workers": 2}, "--num_workers 2: not together with --scheduler"),
    ):
        with pytest.raises(UserError, match=message):
            run(music, out, shard_megabytes=256.0, **settings)
        assert not (music.parent / "new").exists()
    with pytest.raises(UserError, match="--out s3://bucket/new: must be a path, not an address"):
        prepare(PrepareConfig(data=str(music), out="s3://bucket/new"))
    with pytest.raises(UserError, match="corpus s3://bucket/new: must be on a disk of this machine"):
        Corpus.open("s3://bucket/new")
    assert content(corpus.path) == before
    assert len(content(other)) == 1
    busy = ledger.Ledger(corpus.path / LEDGER)
    with pytest.raises(UserError, match="in use by another `fractalgen prepare`"):
        run(music, "good")
    busy.close()


def damage_length(folder: Path) -> None:
    shard_path(folder, 1).write_bytes(shard_path(folder, 1).read_bytes()[:-9])


def damage_notes(folder: Path) -> None:
    data = bytearray(shard_path(folder, 1).read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    place = json.loads(data[8:begin])["notes.pitch"]["data_offsets"]
    data[begin + place[0] : begin + place[1]] = b"\xff" * (place[1] - place[0])
    shard_path(folder, 1).write_bytes(data)


def damage_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def damage_splits(folder: Path) -> None:
    (index,) = folder.glob("index-*")
    arrays = load_file(index)
    write_tensors(index, arrays | {"songs.split": arrays["songs.split"] + 9}, {"format": INDEX_FORMAT, "version": 1})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_length, "shard-00001.safetensors: damaged .truncated"),
        (damage_notes, "damaged .a note lies outside"),
        (partial(damage_manifest, shards=[{"songs": 25}]), "says 25 songs"),
        (damage_splits, "songs.split is not from 0 to 2"),
        (partial(damage_manifest, velocity_bins=0), "velocity_bins is not a number"),
    ],
)
def test_a_damaged_folder_is_told(packed: Corpus, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    folder, second = shutil.copytree(packed.path, tmp_path / "out"), packed.metadata["shards"][0]["songs"]
    damage(folder)

    def first_of_second() -> None:
        Corpus.open(folder).notes(second)

    with pytest.raises(UserError, match=message):
        first_of_second()


def test_a_full_disk_is_told_in_one_line(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for out in ("one.safetensors", "many"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
        try:
            with pytest.raises(UserError, match=r"cannot be written"):
                run(music, out, shard_megabytes=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not (music.parent / out).exists()
    monkeypatch.setattr(ledger, "_TABLES", f"PRAGMA max_page_count = 18;{ledger._TABLES}")
    with pytest.raises(UserError, match=r"--out .*many: ledger.sqlite: the disk is full"):
        run(music, "many", licence="long" * 9000)
    assert not (music.parent / "many").exists()


def test_a_damaged_ledger_is_told_and_stays(music: Path) -> None:
    ledger_file = run(music, "out")[1].path / LEDGER
    pages = bytearray(ledger_file.read_bytes())
    for place in range(3 * 4096, len(pages), 4096):
        pages[place : place + 512] = b"\xff" * 512
    ledger_file.write_bytes(pages)
    with pytest.raises(UserError, match=r"ledger.sqlite: cannot be written, or is damaged"):
        run(music, "out")
    assert ledger_file.exists()


def test_a_corpus_can_be_read_by_others(packed: Corpus) -> None:
    modes = {path.stat().st_mode for path in packed.path.iterdir() if path.name != LEDGER}
    assert len(modes) == 1


def test_more_notes_than_32_bits_count(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert corpora._offsets([2**31 - 1]).dtype == np.int32
    assert corpora._offsets([2**31 - 1, 1]).tolist() == [0, 2**31 - 1, 2**31]
    _, small = run(music, "small.safetensors")
    monkeypatch.setattr(corpora, "_offsets", lambda lengths: np.cumsum([0, *lengths], dtype=np.int64))
    _, large = run(music, "large.safetensors")
    assert large.path.stat().st_size > small.path.stat().st_size
    assert all(np.array_equal(large.notes(index), small.notes(index)) for index in range(24))
