"""Files as they are found: each of ``tests/cases/`` stands for a kind of fault that real files have."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractalgen import PianoRoll, Trace
from fractalgen.cli import main
from fractalgen.config import PrepareConfig
from fractalgen.data.corpus import Corpus
from fractalgen.data.prepare import prepare
from fractalgen.errors import UserError
from fractalgen.music.midi import read_midi
from fractalgen.music.midi_events import NoteEvents, read_file
from fractalgen.music.midi_parser import NEVER, Track, read_number, read_track
from fractalgen.music.midi_tracks import find_tracks
from fractalgen.music.splice import splice_midi
from fractalgen.music.tokens import ONSET
from fractalgen.render.canvas import _bars
from tests.midi_files import delta, midi, off, on, scale

CASES = Path(__file__).parent / "cases"
ROOT = Path(__file__).parent.parent


def copied(source: Path, target: Path, cells: Any = (), **settings: Any) -> PianoRoll:
    """A copy of ``source`` in which the ``cells`` (pitch, step, token) were composed; what it holds."""
    events = read_midi(source, tracks=settings.get("tracks"), pedal=settings.get("pedal", True))
    roll = PianoRoll.from_events(events)
    tokens, composed = roll.tokens.copy(), np.zeros(roll.tokens.shape, bool)
    for pitch, step, token in cells:
        tokens[pitch, step], composed[pitch, step] = token, True
    wanted = PianoRoll(tokens, tempos=roll.tempos, time_signatures=roll.time_signatures)
    splice_midi(source, wanted, composed, target, **settings)
    found = PianoRoll.from_events(read_midi(target, pedal=settings.get("pedal", True)))
    assert np.array_equal(found.tokens, tokens)
    return found


def lengths(roll: PianoRoll) -> dict[tuple[int, int], int]:
    return {(pitch, start): length for pitch, start, length, _ in roll.notes().tolist()}


def test_notes_sound_on_under_the_pedal(tmp_path: Path) -> None:
    dry, wet = (read_midi(CASES / "pedal.mid", pedal=pedal) for pedal in (False, True))
    assert np.mean(dry.end - dry.onset) < 1
    assert 10 < np.mean(list(lengths(PianoRoll.from_events(wet)).values())) < 16
    assert wet.pedalled > 0 == dry.pedalled
    assert set(lengths(PianoRoll.from_events(dry)).values()) == {1}
    # kept notes of the copy stay as they were, byte for byte
    copied(CASES / "pedal.mid", tmp_path / "copy.mid", [(100, 0, ONSET + 9)])
    before, after = (read_file(path) for path in (CASES / "pedal.mid", tmp_path / "copy.mid"))
    assert after.tracks[0] == before.tracks[0]
    # where silence was composed into a note that the pedal holds, the note ends there
    pitch, step = next(place for place, length in lengths(PianoRoll.from_events(wet)).items() if length > 4)
    cells = [(pitch, place, 0) for place in range(step + 2, step + lengths(PianoRoll.from_events(wet))[pitch, step])]
    assert lengths(copied(CASES / "pedal.mid", tmp_path / "cut.mid", cells))[pitch, step] == 2
    copied(CASES / "pedal.mid", tmp_path / "dry.mid", [(100, 0, ONSET + 9)], pedal=False)


def pedal(wait: int, value: int, channel: int = 0) -> bytes:
    return delta(wait) + bytes([0xB0 | channel, 64, value])


@pytest.mark.parametrize(
    ("down", "length"), [(64, 8), (127, 8), (63, 2), (0, 2)], ids=["half", "full", "below half", "up"]
)
def test_half_of_the_pedal_is_down(tmp_path: Path, down: int, length: int) -> None:
    path = tmp_path / "a.mid"
    path.write_bytes(midi(pedal(0, down) + on(0, 60) + off(240, 60) + pedal(720, 0) + scale(2)))
    assert lengths(PianoRoll.from_midi(path))[60, 0] == length


def test_every_channel_has_its_pedal_and_a_struck_key_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.mid"
    two = on(0, 60) + on(0, 64, channel=1) + off(240, 60) + off(0, 64, channel=1)
    path.write_bytes(midi(pedal(0, 127, channel=1) + two + on(480, 64, channel=1) + off(240, 64, channel=1)))
    assert lengths(PianoRoll.from_midi(path)) == {(60, 0): 2, (64, 0): 6, (64, 6): 2}  # never released: to the end


@pytest.mark.parametrize(("name", "notes"), [("held.mid", None), ("onlyons.mid", 32)])
def test_notes_that_are_never_ended_sound_to_the_end(tmp_path: Path, name: str, notes: int | None) -> None:
    with pytest.warns(RuntimeWarning, match="never ended") as told:
        roll = PianoRoll.from_midi(CASES / name)
    assert len(told) == 1
    assert notes is None or len(roll.notes()) == notes
    file = read_file(CASES / name)
    never = [note for row in file.notes()[0].tolist() if (note := NoteEvents(*row)).off == NEVER]
    assert len(never) == (notes or 3)
    struck = {(note.pitch, note.start) for note in never}
    assert all(note.end == file.end or (note.pitch, note.end) in struck for note in never)
    assert sum(note.end == file.end for note in never) == len({note.pitch for note in never})
    copied(CASES / name, tmp_path / "copy.mid", [(100, 0, ONSET + 9)])
    assert read_file(tmp_path / "copy.mid").tracks[0] == file.tracks[0]
    # lengthened by composed holds, they get an end
    note = never[-1]
    last = roll.width - 1
    if roll.tokens[note.pitch, last] == 0:
        pytest.fail("it reaches to the end")
    shorter = [(note.pitch, last, 0)]
    copied(CASES / name, tmp_path / "shorter.mid", shorter)


def test_one_lost_end_does_not_lengthen_the_notes_after_it(tmp_path: Path) -> None:
    path = tmp_path / "a.mid"
    again = on(240, 60) + off(240, 60)
    path.write_bytes(midi(on(0, 60) + off(240, 60) + on(240, 60) + again * 3 + on(0, 64) + off(480, 64)))
    with pytest.warns(RuntimeWarning, match=r"never ended \(1\)"):
        roll = PianoRoll.from_midi(path)
    assert lengths(roll) == {(60, 0): 2, (60, 4): 2, (60, 6): 2, (60, 10): 2, (60, 14): 2, (64, 16): 4}
    copied(path, tmp_path / "copy.mid", [(100, 0, ONSET)])
    assert read_file(tmp_path / "copy.mid").tracks[0] == read_file(path).tracks[0]
    # without the note that ended it, it gets an end of its own
    copied(path, tmp_path / "gone.mid", [(60, 6, 0), (60, 7, 0)])


def test_all_notes_off_ends_what_is_never_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.mid"
    path.write_bytes(midi(on(0, 60) + on(0, 64, channel=1) + delta(480) + bytes([0xB0, 123, 0]) + scale(2, first=70)))
    with pytest.warns(RuntimeWarning, match="never ended"):
        roll = PianoRoll.from_midi(path)
    assert lengths(roll) == {(60, 0): 4, (64, 0): 12, (70, 4): 4, (71, 8): 4}


def events_one_by_one(content: bytes) -> list[tuple[int, bytes]]:
    """What a track says, read without any haste, up to its end or to what is wrong."""
    found: list[tuple[int, bytes]] = []
    place = tick = running = 0
    try:
        while place < len(content):
            wait, place = read_number(content, place)
            own = content[place] >= 0x80
            status = content[place] if own else running
            place += own
            if not status:
                break
            begin = place
            if status < 0xF0:
                running = status
                place += 1 if status >> 4 in (0xC, 0xD) else 2
            elif status in (0xF0, 0xF7, 0xFF):
                size, place = read_number(content, place + (status == 0xFF))
                place += size
            else:
                place += {0xF1: 1, 0xF2: 2, 0xF3: 1}.get(status, 0)
            data = content[begin:place]
            if place > len(content) or (status < 0xF0 and max(data) > 127):
                break
            tick += wait
            found.append((tick, bytes([status]) + data))
            if found[-1][1][:2] == b"\xff\x2f":
                break
    except IndexError:
        pass
    return found


def events_of(track: Track) -> list[tuple[int, bytes]]:
    return list(track.events(np.arange(len(track.tick))))


@pytest.mark.parametrize("seed", range(4))
def test_events_of_any_bytes(seed: int) -> None:
    random = np.random.default_rng(seed)
    likely = [0, 1, 60, 64, 100, 0x81, 0x82, 0x90, 0x80, 0xB0, 0xC1, 0xD2, 0xE0, 0xF0, 0xF2, 0xF7, 0xF8, 0xFF, 0x51, 3]
    files = [path.read_bytes() for path in sorted(CASES.glob("*.mid"))]
    for _ in range(400):
        content = bytes(random.choice(likely, random.integers(0, 40)).tolist())
        if random.random() < 0.3:
            changed = bytearray(files[random.integers(len(files))][22:])
            for place in random.integers(0, len(changed), random.integers(0, 3)).tolist():
                changed[place] = random.integers(256)
            content = bytes(changed)
        assert events_of(read_track(content)[0]) == events_one_by_one(content)


def test_a_piece_reaches_to_its_end_completed_to_the_bar(tmp_path: Path) -> None:
    assert PianoRoll.from_midi(CASES / "clip8.mid").width == 8 * 16
    path = tmp_path / "a.mid"
    path.write_bytes(midi(scale(5)))
    assert PianoRoll.from_midi(path).width == 32
    status = main(["generate", "--mode", "inpainting", "--input_midi", str(CASES / "clip8.mid"), "--mask", "bars=8:9"])
    assert status == 2


def test_packets_of_system_exclusive_messages_keep_the_time() -> None:
    events = read_midi(CASES / "spec_packets.mid")
    assert events.grid_distance == 0
    whole = [part for part in read_file(CASES / "spec_packets.mid").tracks[1] if part.data[0] in (0xF0, 0xF7)]
    assert next(bytes(event.data[:2]) for event in whole) == b"\xf0\x03"
    assert len(whole) == 3


def test_running_status_after_a_system_exclusive_message_is_read_whole(tmp_path: Path) -> None:
    first = on(0, 60) + delta(240) + bytes([60, 0])
    packet = delta(0) + b"\xf0\x03\x43\x12\xf7"
    rest = b"".join(delta(0) + bytes([61 + i, 66]) + delta(240) + bytes([61 + i, 0]) for i in range(4))
    path = tmp_path / "a.mid"
    path.write_bytes(midi(first + packet + rest))
    assert PianoRoll.from_midi(path).notes()["pitch"].tolist() == [60, 61, 62, 63, 64]


def test_merged_and_moved_notes_are_counted_with_the_grid_that_keeps_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = read_midi(CASES / "trill.mid")
    merged, moved = events.misplaced()
    assert merged > 0
    doubled = len(events.onset) - len(set(zip(events.pitch.tolist(), events.onset.tolist(), strict=True)))
    assert len(PianoRoll.from_events(events).notes()) == len(events.onset) - doubled - merged
    grid = events.fitting_grid()
    assert grid is not None
    assert read_midi(CASES / "trill.mid", grid).misplaced()[0] == 0
    assert read_midi(CASES / "clip8.mid").misplaced() == (0, 0)
    out = tmp_path / "corpus.safetensors"
    prepare(PrepareConfig(data=str(CASES / "trill.mid"), out=str(out), allow_off_grid=True))
    assert (
        f"1 file: {merged} notes merged with others, {moved} moved by more than a quarter of a step; --steps_per_"
        in (capsys.readouterr().out)
    )


@pytest.mark.parametrize("name", ["swing.mid", "triplets.mid"])
def test_the_hint_names_the_grid_that_fits(tmp_path: Path, name: str) -> None:
    config = PrepareConfig(data=str(CASES / name), out=str(tmp_path / "corpus.safetensors"), max_grid_distance=0.1)
    with pytest.raises(UserError, match="it fits --steps_per_quarter 12; else keep it with --allow_off_grid"):
        prepare(config)
    assert read_midi(CASES / name, 12).misplaced() == (0, 0)


def test_all_kinds_of_files_are_found_and_others_listed(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    (folder / "deep").mkdir(parents=True)
    for name in ("song.kar", "song.rmi", "song.mid.gz"):
        shutil.copy(CASES / name, folder / name)
    (folder / "other.smf").write_bytes(midi(scale(first=40)))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "linked.mid").write_bytes(midi(scale(first=45)))
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / "deep" / "score.mscz").write_bytes(b"a score")
    (folder / "bomb.mid.gz").write_bytes(gzip.compress(bytes(1 << 25)))
    (folder / "broken.mid.gz").write_bytes(gzip.compress(midi(scale()))[:40])
    out = tmp_path / "corpus.safetensors"
    summary = prepare(PrepareConfig(data=str(folder), out=str(out), allow_off_grid=True, keep_duplicates=True))
    names = ["link/linked.mid", "other.smf", "song.kar", "song.mid.gz", "song.rmi"]
    assert sorted(Corpus.open(out).song_ids) == names
    reasons = {entry.file: entry.reason for entry in summary.skipped}
    assert set(reasons) == {"deep/score.mscz", "bomb.mid.gz", "broken.mid.gz"}
    assert "not MIDI" in reasons["deep/score.mscz"]
    assert "too long" in reasons["bomb.mid.gz"]


def test_seconds_of_a_roll_are_those_of_the_file() -> None:
    roll = PianoRoll.from_midi(CASES / "fermata.mid")
    file = read_file(CASES / "fermata.mid")
    ticks, seconds, per_quarter = 0, 0.0, 500_000
    for tick, data in [*file.meta(0x51), (480 * roll.width // 4, b"")]:
        seconds += (tick - ticks) * per_quarter / 480e6
        ticks, per_quarter = tick, int.from_bytes(data, "big")
    assert roll.seconds == pytest.approx(seconds, abs=0.001)
    assert seconds > 22


def test_the_track_that_is_kept_is_named(tmp_path: Path) -> None:
    tracks, named = find_tracks(CASES / "hands.mid", "1")
    assert tracks == ((2, 1),)
    assert "Left" in named or "left" in named
    with pytest.raises(
        UserError, match=r"--voice track:7: .* has the tracks 0 '.+' \(program 0, \d+ notes\), 1 '.+' \(.+\)"
    ):
        find_tracks(CASES / "hands.mid", "7")
    assert find_tracks(CASES / "sjis.mid", "ピアノ")[0]


def test_damaged_files_are_read_with_a_remark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(RuntimeWarning) as told:
        assert len(PianoRoll.from_midi(CASES / "truncated.mid").notes()) > 10
    cut, never = (str(warning.message) for warning in told)
    assert "track 1 is cut off at tick" in cut
    assert "what follows in it is missing" in cut
    assert "never ended (4)" in never
    with pytest.warns(RuntimeWarning, match="the header says 1 tracks, there are 2"):
        assert len(PianoRoll.from_midi(CASES / "count1.mid").notes()) > 10
    out = tmp_path / "corpus.safetensors"
    prepare(PrepareConfig(data=str(CASES / "count1.mid"), out=str(out)))
    assert "damaged count1.mid: the header says 1 tracks" in capsys.readouterr().out


def test_an_empty_tempo_event_is_ignored() -> None:
    assert PianoRoll.from_midi(CASES / "tempoempty.mid").tempos == ((0, 120.0),)


@pytest.mark.slow
def test_a_bar_is_a_bar_of_the_music_given(tmp_path: Path) -> None:
    base = ["generate", "--mode", "conditional", "--condition_midi", str(CASES / "waltz.mid"), "--seed", "1"]
    assert main([*base, "--condition_bars", "2", "--bars", "4", "--output_dir", str(tmp_path)]) == 0
    roll = PianoRoll.from_midi(tmp_path / "conditional_000.mid")
    assert roll.width == (2 + 4) * 12
    assert roll.time_signatures == ((0, 3, 4),)


@pytest.mark.slow
def test_messages_name_the_flag_that_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["generate", "--mode", "conditional", "--condition_midi", str(CASES / "rest.mid")]
    for flags in (["--condition_bars", "2"], ["--condition_length", "32"]):
        assert main([*base, *flags]) == 2
        line = capsys.readouterr().err
        assert " ".join(flags) in line
        assert line.count("--condition_") == 1


@pytest.mark.slow
def test_pictures_and_pages_draw_the_bars_of_a_pickup(tmp_path: Path) -> None:
    roll = PianoRoll.from_midi(CASES / "pickup.mid")
    lines = roll.downbeats().tolist()
    assert lines[:3] == [0, 4, 20]
    assert roll.steps_per_bar == 16
    base = ["generate", "--mode", "variation", "--strength", "0.01", "--input_midi", str(CASES / "pickup.mid")]
    assert main([*base, "--save_trace", "--output_dir", str(tmp_path)]) == 0
    trace = Trace.load(tmp_path / "variation_000.trace.npz")
    for frame in (trace.frames()[0], trace.frames("hierarchical")[-1]):
        assert list(frame.bars or ()) == lines
        assert _bars(frame) == _bars(roll) == lines


@pytest.mark.slow
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}.mid").write_bytes(midi(scale(60, first=number % 40) * 5))
    command = [sys.executable, "-m", "fractalgen", "prepare", "--data", str(folder), "--out", str(tmp_path / "out")]
    process = subprocess.Popen([*command, "--num_workers", "2"], cwd=ROOT, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("looks for children in /proc")
    end = time.monotonic() + 60
    workers: list[str] = []
    while len(workers) < 3 and process.poll() is None:  # one of them tracks resources
        workers = children.read_text(encoding="utf-8").split()
        time.sleep(0.01)
        assert time.monotonic() < end
    process.kill()
    process.wait()
    assert workers
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        time.sleep(0.05)
        assert time.monotonic() < end
