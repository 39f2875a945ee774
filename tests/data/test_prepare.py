"""Folders of MIDI files, good and bad, become one corpus."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fractalgen.config import PrepareConfig
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import ValidCrops
from fractalgen.data.labeller import Labeller
from fractalgen.data.packing import split_by_hash
from fractalgen.data.prepare import Summary, prepare
from fractalgen.data.reading import Skipped
from fractalgen.errors import UserError
from fractalgen.music.labels import Attribute
from fractalgen.parallel import ordered
from tests.midi_files import midi, off, on, read_or_die, scale


def run(folder: Path, **settings: object) -> tuple[Summary, Corpus]:
    out = folder.parent / "out" / "c.safetensors"
    summary = prepare(PrepareConfig(data=str(folder), out=str(out), **settings))  # type: ignore[arg-type]
    return summary, Corpus.open(out)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five good files in odd places, eight bad ones."""
    folder = tmp_path / "music"
    files = {
        "a.mid": midi(scale(first=50)),
        "deep/er/b.MIDI": midi(scale(first=51)),
        "deep/C.MID": midi(scale(first=52), kind=0),
        "ü 音楽 \U0001f3b5.mid": midi(scale(first=53)),
        "leading.mid": midi(on(480 * 9, 60) + off(480, 60)),
        "again.mid": midi(scale(first=50), b""),
        "empty.mid": b"",
        "text.mid": b"no music at all, but some text",
        "cut.mid": midi(scale(99))[:100],
        "silent.mid": midi(b""),
        "drums.mid": midi(on(0, 36, channel=9) + off(9, 36, channel=9)),
        "loose.mid": midi(b"".join(on(50 + 7 * i, 60 + i) + off(20, 60 + i) for i in range(40))),
        "smpte.mid": midi(scale(), division=0xE728),
        "notes.txt": b"not asked for",
        "._a.mid": b"what a Mac leaves behind",
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_good_files_are_packed_and_bad_ones_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary, corpus = run(folder, licence="ours", report=str(folder.parent / "report.tsv"))
    good = {"a.mid", "cut.mid", "deep/C.MID", "deep/er/b.MIDI", "leading.mid", "ü 音楽 🎵.mid"}
    assert set(corpus.song_ids) == good
    reasons = {entry.file: entry.reason for entry in summary.skipped}
    names = list(reasons)
    assert names == sorted(names)
    for name, part in {
        "again.mid": "the same notes as a.mid",
        "empty.mid": "empty file",
        "text.mid": "not a MIDI file",
        "silent.mid": "no notes",
        "drums.mid": "only drums",
        "loose.mid": "off its own grid",
        "smpte.mid": "SMPTE",
    }.items():
        assert part in reasons.pop(name)
    assert not reasons
    printed = capsys.readouterr().out
    for part in ("6 songs", "7 files skipped", "damaged cut.mid: track 0 is cut off", "skipped text.mid: not a MIDI"):
        assert part in printed
    report = (folder.parent / "report.tsv").read_text(encoding="utf-8").splitlines()
    assert list(dict.fromkeys(line.split("\t")[0] for line in report)) == [*names, "cut.mid"]
    assert corpus.metadata["skipped"] == [[entry.file, entry.reason] for entry in summary.skipped]
    assert corpus.metadata["licence"] == "ours"
    leading = corpus.song_ids.index("leading.mid")
    assert corpus.notes(leading)["start"].tolist() == [4]  # two empty bars are dropped
    assert corpus.num_steps(leading) == 16


def test_what_is_asked_for_is_kept(folder: Path) -> None:
    summary, corpus = run(folder, allow_off_grid=True, keep_duplicates=True)
    assert {"loose.mid", "a.mid", "again.mid"} <= set(corpus.song_ids)
    assert len(summary.skipped) == 5


def test_the_same_folder_gives_the_same_bytes(folder: Path) -> None:
    first = run(folder)[1].path.read_bytes()
    assert run(folder, num_workers=2)[1].path.read_bytes() == first


def test_listed_splits_are_used(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"train": ["a.mid"], "test": ["deep/C.MID", "absent.mid"]}), encoding="utf-8")
    summary, corpus = run(folder, splits=str(path))
    assert dict(zip(corpus.song_ids, corpus.splits, strict=True)) == {"a.mid": "train", "deep/C.MID": "test"}
    assert sum("not listed" in entry.reason for entry in summary.skipped) == 5
    path.write_text(json.dumps({"train": ["again.mid"], "test": ["deep/C.MID"]}), encoding="utf-8")
    capsys.readouterr()
    assert run(folder, splits=str(path), pedal="follow")[1].song_ids == ["again.mid", "deep/C.MID"]
    told = capsys.readouterr().out
    assert "skipped a.mid: not listed" in told
    assert "damaged" not in told  # of what is left out nothing else is told
    for text, part in {
        "[]": "id lists",
        "{": "id lists",
        '{"dev": []}': "'dev'",
        '{"train": ["a"], "test": ["a"]}': "twice",
    }.items():
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=part):
            run(folder, splits=str(path))


def test_nothing_is_written_when_nothing_is_usable(tmp_path: Path) -> None:
    bad, empty = tmp_path / "bad", tmp_path / "empty"
    bad.mkdir()
    empty.mkdir()
    (bad / "a.mid").write_bytes(b"text")
    out = tmp_path / "c.safetensors"
    for data, part in {
        str(bad): "1 file skipped; first: a.mid: not a MIDI file",
        str(empty): "no MIDI file in it",
        str(tmp_path / "absent"): "no such file or folder",
        "": "--data is missing",
    }.items():
        with pytest.raises(UserError) as caught:
            prepare(PrepareConfig(data=data, out=str(out)))
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "empty"]


def test_targets_are_checked_before_reading(folder: Path, tmp_path: Path, read_only: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for out in (tmp_path, tmp_path / "file" / "c.safetensors", read_only / "c.safetensors"):
        with pytest.raises(UserError, match="--out"):
            prepare(PrepareConfig(data=str(folder), out=str(out)))


@pytest.mark.skipif(os.name != "posix" or os.uname().sysname != "Linux", reason="file names are bytes on Linux only")
def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    for name, content in {b"\xff\xfe.mid": midi(scale()), b"\xf0bad.mid": b"x"}.items():
        (folder / os.fsdecode(name)).write_bytes(content)
    summary, corpus = run(folder, report=str(tmp_path / "report.tsv"))
    assert corpus.song_ids == [r"\xff\xfe.mid"]
    assert [entry.file for entry in summary.skipped] == [r"\xf0bad.mid"]


def test_hash_splits_are_stable_and_about_80_10_10() -> None:
    names = [f"song {i}" for i in range(2000)]
    splits = split_by_hash(names)
    assert splits == {name: split for name, split in split_by_hash([*names, "one more"]).items() if name in splits}
    counts = Counter(splits.values())
    assert 1520 < counts["train"] < 1680
    assert 150 < counts["valid"] < 250
    assert 150 < counts["test"] < 250
    for n in range(30):
        for seed in range(20):
            few = set(split_by_hash(f"{seed} {i}" for i in range(n)).values())
            assert few >= set(("train", "valid", "test")[: min(n, 3)]), n


@pytest.mark.slow
def test_a_file_that_kills_its_worker_is_skipped() -> None:
    files = [Path(f"{name}.mid") for name in ("harmless", "lethal", *map(str, range(9)))]

    def killed(file: Path) -> Skipped:
        return Skipped(file.name, "kills")

    results = list(ordered(read_or_die, files, killed, num_workers=2, batch=2, few=1))
    assert [result.file for result in results] == [file.name for file in files]
    assert [result.file for result in results if result.reason == "kills"] == ["lethal.mid"]


def test_pop909_layout(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    for number in ("005", "010", "012"):
        song = folder / number
        (song / "versions").mkdir(parents=True)
        # a note every beat at 100 a minute, but the ticks say 120: off the grid without the beat map
        pitch = int(number)
        body = on(0, pitch) + off(10, pitch) + (on(566, pitch) + off(10, pitch)) * 31
        beats = "".join(f"{0.6 * i} 1.0 {float(i % 4 == 0)}\n" for i in range(40))
        (song / "beat_midi.txt").write_text(beats, encoding="utf-8")
        (song / f"{number}.mid").write_bytes(midi(body))
        (song / "versions" / "draft.mid").write_bytes(midi(body))
    (folder / "x.mid").write_bytes(midi(body))
    summary, corpus = run(folder)
    assert dict(zip(corpus.song_ids, corpus.splits, strict=True)) == {"005": "valid", "010": "test", "012": "train"}
    assert [entry.file for entry in summary.skipped] == ["x.mid"]
    assert corpus.notes(0)["start"].tolist() == list(range(0, 128, 4))
    assert [tempo for _, tempo in corpus.tempos(0)] == [pytest.approx(100)]


def test_tracks_are_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files with the tracks of POP909, one without names, and one without any of the tracks."""
    folder = tmp_path / "music"
    folder.mkdir()
    names = {
        name: b"\x00\xff\x03" + bytes([len(name)]) + name.encode() for name in ("MELODY", "BRIDGE", "PIANO", "Lead")
    }
    parts = {"MELODY": scale(4, first=80), "BRIDGE": scale(4, first=70), "PIANO": scale(4, first=50)}
    (folder / "song.mid").write_bytes(midi(b"", *(names[name] + part for name, part in parts.items())))
    strings, piano = b"\x00\xc0\x30", b"\x00\xc0\x00"
    (folder / "plain.mid").write_bytes(midi(strings + scale(4, first=60), piano + scale(4, first=40)))
    (folder / "lead.mid").write_bytes(midi(names["Lead"] + b"\x00\xc0\x50" + scale(4, first=65)))

    def pitches(*tracks: str) -> dict[str, int]:
        _, corpus = run(folder, tracks=tracks)
        return {name: int(corpus.notes(index)["pitch"].min()) for index, name in enumerate(corpus.song_ids)}

    assert pitches() == {"lead.mid": 65, "plain.mid": 40, "song.mid": 50}
    assert pitches("piano", "bridge") == {"song.mid": 50}
    assert pitches("melody", "Lead") == {"lead.mid": 65, "song.mid": 80}
    assert pitches("0") == {"lead.mid": 65, "plain.mid": 60, "song.mid": 80}
    capsys.readouterr()
    assert pitches("program:0-7") == {"plain.mid": 40, "song.mid": 50}
    told = "skipped lead.mid: --tracks program:0-7 means none of its tracks 0 'Lead' (program 80, 4 notes)"
    assert told in capsys.readouterr().out.splitlines()
    _, corpus = run(folder, tracks=("piano",))
    assert corpus.metadata["assumed"].endswith("; only the tracks piano")
    for settings, message in (
        ({"data": str(folder), "tracks": ("1", "program:9-2")}, "--tracks program:9-2: not program:A or program:A-B"),
        ({"data": "jsb.json", "tracks": ("1", "2")}, "--tracks 1 2: the chorales in --data jsb.json have no tracks"),
        ({"merge": ("a", "b"), "tracks": ("1", "2")}, "--tracks 1 2: not together with --merge a"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(PrepareConfig(out=str(tmp_path / "not.safetensors"), **settings))
    assert not (tmp_path / "not.safetensors").exists()


def test_styles_are_sub_folders(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    names = ["plain.mid", "pop/a.mid", "pop/more/b.mid", "chorale/c.mid", "pop/7/7.mid"]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(midi(scale(first=50 + number)))
    beats = "".join(f"{0.5 * i} 1.0 {float(i % 4 == 0)}\n" for i in range(40))
    (folder / "pop/7/beat_midi.txt").write_text(beats, encoding="utf-8")
    splits = tmp_path / "splits.json"
    songs = ["plain.mid", "pop/a.mid", "pop/more/b.mid", "chorale/c.mid", "7"]
    splits.write_text(json.dumps({"train": songs}), encoding="utf-8")
    corpus = run(folder, splits=str(splits))[1]
    styles = {name: corpus.style(index) for index, name in enumerate(corpus.song_ids)}
    assert styles == dict(zip(songs, ["", "pop", "pop", "chorale", "pop"], strict=True))
    assert [attribute.values for attribute in corpus.vocabulary if attribute.name == "style"] == [("chorale", "pop")]
    # a song's own folder is not a style, wherever one begins
    alone = tmp_path / "alone.safetensors"
    prepare(PrepareConfig(data=str(folder / "pop" / "7"), out=str(alone)))
    assert Corpus.open(alone).style(0) == ""


def test_styles_of_a_manifest(folder: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    text = 'style,file,year\npop,a.mid,1999\n"slow, sad",deep/er/b.MIDI,\n,leading.mid,\nrock,absent.mid,\n'
    for content in (text, "file\tstyle\na.mid\tpop\ndeep/er/b.MIDI\tslow, sad\n"):
        manifest.write_text(content, encoding="utf-8")
        corpus = run(folder, manifest=str(manifest))[1]
        styles = {name: corpus.style(index) for index, name in enumerate(corpus.song_ids)}
        assert {name: style for name, style in styles.items() if style} == {
            "a.mid": "pop",
            "deep/er/b.MIDI": "slow, sad",
        }
        assert styles["deep/C.MID"] == ""  # the sub-folder does not count then
    for content, part in {
        "": "columns `file` and `style` are needed .found: no rows",
        "file,genre\na.mid,pop\n": "are needed .found: file, genre",
        "file,style\na.mid,pop\n,\n,\na.mid,rock\n": "'a.mid' is listed twice",
        "file,style\nb.mid,pop\n": "names none of the songs .the first one is a.mid",
        'file,style\n"a.mid,pop\n': "cannot be read",
    }.items():
        manifest.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=f"--manifest {manifest}: .*{part}"):
            run(folder, manifest=str(manifest))
    with pytest.raises(UserError, match=r"--manifest .*absent.csv: cannot be read"):
        run(folder, manifest=str(tmp_path / "absent.csv"))


def test_velocities_of_files_that_a_manifest_calls_flat_mean_nothing(folder: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("file,style,velocities\na.mid,,flat\ndeep/C.MID,,yes\n", encoding="utf-8")
    splits = tmp_path / "splits.json"
    names = ["a.mid", "deep/C.MID"]
    splits.write_text(json.dumps({"train": names}), encoding="utf-8")
    corpus = run(folder, manifest=str(manifest), splits=str(splits))[1]
    flat = {name: corpus.flat(index) for index, name in enumerate(corpus.song_ids)}
    assert flat == {"a.mid": True, "deep/C.MID": False}
    velocity = Attribute("velocity", (), (1.0, 64.0, 127.0), (0.0, 0.5, 1.0), "MIDI velocity")
    for index, name in enumerate(corpus.song_ids):
        label = Labeller(corpus, [velocity])(corpus.tokens(index), index, 0)
        assert (label == 0) == flat[name]  # 0: not known
    items = {name: ValidCrops(corpus, "train").excerpts(index, 0) for index, name in enumerate(corpus.song_ids)}
    assert {name: bool(item["flat"]) for name, item in items.items()} == flat


@pytest.mark.slow
def test_pop909_itself(data_dir: Path, tmp_path: Path) -> None:
    """The figures that published results of this project rest on."""
    if not (data_dir / "POP909").is_dir():
        pytest.skip(f"no POP909 in {data_dir}")
    out = tmp_path / "pop909.safetensors"
    summary = prepare(PrepareConfig(data=str(data_dir / "POP909"), out=str(out), pedal="ignore"))
    assert (summary.songs, summary.notes, len(summary.skipped)) == (791, 1_302_575, 27)
    crops = ValidCrops(Corpus.open(out), "test")
    every_eighth = [crops[i]["tokens"] for i in range(0, len(crops), 8)]
    assert len(every_eighth) == 58
    assert np.mean([(tokens > 1).sum() for tokens in every_eighth]) == pytest.approx(294.8, abs=0.1)
    assert np.mean([(tokens > 0).float().mean() for tokens in every_eighth]) == pytest.approx(0.0278, abs=1e-3)
