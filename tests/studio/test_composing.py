"""Requests become flags of the command line; what was given stays to the tick, and is watched patch by patch."""

from __future__ import annotations

import base64
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractalgen import FractalGen, Trace
from fractalgen.errors import UserError
from fractalgen.model.grid import windows
from fractalgen.studio.composing import compose
from fractalgen.studio.document import Document, Note, Result
from fractalgen.studio.request import FLAGS, Region, Request, flag_facts
from fractalgen.studio.worker import tidy
from tests.studio.conftest import BAR, checkpoint

Messages = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def model(model_path: str) -> FractalGen:
    return FractalGen.from_pretrained(model_path)


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> FractalGen:
    folder = tmp_path_factory.mktemp("planner")
    return FractalGen.from_pretrained(checkpoint(folder, plan_width=16, bar_columns=True))


def composed(
    model: FractalGen, document: Document, folder: Path, stop_after: int | None = None, **wish: Any
) -> tuple[list[Result], bool, Messages]:
    """The results of a request, whether it was stopped, and what was told."""
    told: Messages = defaultdict(list)

    def tell(kind: str, **message: Any) -> None:
        told[kind].append(message)

    request = Request(state=3, flags={"seed": 1, **wish.pop("flags", {})}, **wish)
    traces = tuple(folder / f"{i}.trace.npz" for i in range(request.num_samples))
    results, stopped = compose(
        request,
        document,
        model,
        {"model": "tiny"},
        folder,
        traces,
        tell,
        lambda: stop_after is not None and len(told["patch"]) >= stop_after,
    )
    return results, stopped, told


def outside(document: Document, start: int, stop: int, low: int = 0, high: int = 128) -> set[Note]:
    """Notes that a region does not touch."""
    return {note for note in document.notes if note.end <= start or note.start >= stop or not low <= note.pitch < high}


def struck(patches: list[dict[str, Any]]) -> set[tuple[int, int]]:
    """Pitch and tick of the notes that begin in patches."""
    return {(note[0], note[1]) for patch in patches for note in patch["notes"] if not note[4]}


def test_a_region_changes_nothing_outside_of_it(model: FractalGen, piece: Document, tmp_path: Path) -> None:
    region = {"start": BAR, "end": 2 * BAR, "low": 60, "high": 128}
    (result,), stopped, told = composed(model, piece, tmp_path, mode="region", region=region)
    assert not stopped
    found = result.document
    kept = outside(piece, BAR, 2 * BAR, 60)
    assert kept <= set(found.notes)
    assert set(piece.notes) - kept != set(found.notes) - kept
    new = [note for note in found.notes if note not in piece.notes]
    assert all(BAR - 120 <= note.start < 2 * BAR + 480 for note in new)
    assert all(note.pitch >= 60 for note in new)
    assert replace(found, notes=(), tempos=()) == replace(piece, notes=(), tempos=())
    assert {tuple(note) for note in told["started"][0]["given"]} >= kept
    assert result.trace is not None
    assert Trace.load(result.trace).roll.width == 64


@pytest.mark.parametrize(
    "wish", [{"mode": "region"}, {"mode": "vary", "flags": {"strength": 1.0}}], ids=["region", "vary"]
)
def test_notes_that_begin_before_a_region_stay_whole(
    wish: dict[str, Any], model: FractalGen, piece: Document, tmp_path: Path
) -> None:
    last = max(note.id for note in piece.notes)
    held = [Note(last + 1, 30, 0, 4 * BAR, 80, 1, 0), Note(last + 2, 97, BAR - 240, 480, 80, 0, 0)]
    given = replace(piece, notes=(*(note for note in piece.notes if note.pitch not in (30, 97)), *held))
    (result,), _, told = composed(model, given, tmp_path, region={"start": BAR, "end": 2 * BAR}, **wish)
    before = {note for note in given.notes if note.start < BAR}
    assert set(held) <= before <= set(result.document.notes)
    assert {tuple(note) for note in told["started"][0]["given"]} >= before
    assert set(given.notes) != set(result.document.notes)


def test_locked_notes_stay_in_a_region(model: FractalGen, piece: Document, tmp_path: Path) -> None:
    locked = {note.id for note in piece.notes if BAR <= note.start < 2 * BAR and note.id % 2}
    given = replace(piece, notes=tuple(note._replace(locked=int(note.id in locked)) for note in piece.notes))
    wishes: list[dict[str, Any]] = [
        {"mode": "region", "region": {"start": 0, "end": 4 * BAR}},
        {"mode": "accompany", "flags": {"voice": "lowest", "side": "above"}},
        {"mode": "vary", "flags": {"strength": 1.0}},
    ]
    for wish in wishes:
        (result,), _, _ = composed(model, given, tmp_path, **wish)
        assert {note for note in given.notes if note.locked} <= set(result.document.notes)
        assert set(given.notes) != set(result.document.notes)
    everything = replace(piece, notes=tuple(note._replace(locked=1) for note in piece.notes))
    first = min(everything.notes, key=lambda note: note.start)
    region = {"start": first.start, "end": first.end, "low": first.pitch, "high": first.pitch + 1}
    with pytest.raises(UserError, match="all of its notes are locked"):
        composed(model, everything, tmp_path, mode="region", region=region)


@pytest.mark.parametrize("hand", [0, 1])
def test_one_hand_is_composed_and_the_other_stays(
    model: FractalGen, piece: Document, tmp_path: Path, hand: int
) -> None:
    region = {"start": BAR, "end": 3 * BAR}
    (result,), _, _ = composed(model, piece, tmp_path, mode="region", region=region, hand=hand)
    found = result.document
    assert {note for note in piece.notes if note.hand != hand} <= set(found.notes)
    assert outside(piece, BAR - 480, 3 * BAR) <= set(found.notes)
    new = set(found.notes) - set(piece.notes)
    assert new
    assert {note.hand for note in new} == {hand}
    gone = set(piece.notes) - set(found.notes)
    assert {note.hand for note in gone} <= {hand}


def test_a_hand_that_is_alone_can_be_composed_too(model: FractalGen, piece: Document, tmp_path: Path) -> None:
    right = replace(piece, notes=tuple(note for note in piece.notes if note.hand == 0))
    region = {"start": 0, "end": 4 * BAR}
    (under,), _, _ = composed(model, right, tmp_path, mode="region", region=region, hand=1)
    assert set(right.notes) < set(under.document.notes)
    (anew,), _, _ = composed(model, right, tmp_path, mode="region", region=region, hand=0)
    assert not set(right.notes) <= set(anew.document.notes)


def test_a_piece_goes_on(model: FractalGen, piece: Document, tmp_path: Path) -> None:
    (result,), _, told = composed(model, piece, tmp_path, mode="continue", flags={"bars": 2})
    assert result.document.length == told["started"][0]["length"] == 6 * BAR
    assert set(piece.notes) <= set(result.document.notes)
    assert [bpm for _, bpm in result.document.tempos] == pytest.approx([100, 132.5], abs=1e-3)
    assert any(note.start >= 4 * BAR for note in result.document.notes)


def test_patches_add_up_to_the_result(model: FractalGen, piece: Document, tmp_path: Path) -> None:
    (result,), _, told = composed(model, piece, tmp_path, mode="new", flags={"bars": 4, "tempo": 90})
    assert struck(told["patch"]) == {(note.pitch, note.start) for note in result.document.notes}
    sounding = sum(note[2] for patch in told["patch"] for note in patch["notes"])
    assert sounding == sum(note.duration for note in result.document.notes)
    assert {note.velocity for note in result.document.notes} == {n[3] for p in told["patch"] for n in p["notes"]}
    counts = [patch["done"] for patch in told["patch"]]
    assert (len(counts), counts, counts[-1]) == (32, sorted(counts), told["patch"][0]["total"])
    trace = Trace.load(tmp_path / "0.trace.npz")
    for patch in told["patch"]:
        planes = np.frombuffer(base64.b64decode(patch["planes"]), np.int8).reshape(3, patch["pitches"], -1)
        low, first = patch["pitch"], patch["tick"] // 120
        part = trace.decided[1:, low : low + patch["pitches"], first : first + planes.shape[2]]
        assert np.array_equal(planes, part)
    assert result.document.tempos[0][1] == pytest.approx(90, abs=1e-3)
    assert {note.hand for note in result.document.notes} == {0, 1}


def test_what_is_stopped_keeps_what_is_decided(model: FractalGen, piece: Document, tmp_path: Path) -> None:
    whole, _, all_told = composed(model, piece, tmp_path, mode="continue", flags={"bars": 4})
    (result,), stopped, told = composed(model, piece, tmp_path, stop_after=12, mode="continue", flags={"bars": 4})
    assert stopped
    assert result.trace is None
    assert told["patch"] == all_told["patch"][:12]
    new = {(note.pitch, note.start) for note in result.document.notes if note not in piece.notes}
    assert new == struck(told["patch"])
    assert result.document.length == whole[0].document.length
    assert set(piece.notes) <= set(result.document.notes)
    nothing, stopped, _ = composed(model, piece, tmp_path, stop_after=0, mode="continue", flags={"bars": 4})
    assert (nothing, stopped) == ([], True)


def test_nothing_is_kept_for_each_length_of_a_piece(model: FractalGen, piece: Document, tmp_path: Path) -> None:
    composed(model, piece, tmp_path, mode="new", flags={"bars": 2})
    assert windows.cache_info().currsize
    tidy()
    assert not windows.cache_info().currsize


def test_alternatives_are_told_apart(model: FractalGen, piece: Document, tmp_path: Path) -> None:
    results, _, told = composed(model, piece, tmp_path, mode="new", num_samples=3, flags={"bars": 2})
    assert len({result.document.notes for result in results}) == 3
    for sample, result in enumerate(results):
        patches = [patch for patch in told["patch"] if patch["sample"] == sample]
        assert struck(patches) == {(note.pitch, note.start) for note in result.document.notes}


def test_the_chord_lane_is_given_where_something_is_composed(
    planner: FractalGen, piece: Document, tmp_path: Path
) -> None:
    chords = ((0, "Dm"), (BAR + 960, "Gm7"), (2 * BAR, "A7"), (3 * BAR + 960, "N.C."), (5 * BAR, "Eb/G"))
    lane = replace(piece, chords=chords)
    region = {"start": BAR, "end": 4 * BAR}
    (result,), _, told = composed(planner, lane, tmp_path, mode="region", region=region, lane=True)
    told_lane = [tuple(row) for row in told["plan"][0]["chords"] if row[0] >= BAR]
    assert told_lane == [(BAR, "Dm"), (BAR + 960, "Gm7"), (2 * BAR, "A7"), (3 * BAR + 960, "N.C.")]
    assert result.document.chords == lane.chords
    (longer,), _, told = composed(planner, lane, tmp_path, mode="continue", flags={"bars": 3}, lane=True)
    assert longer.document.chords[:4] == lane.chords[:4]
    assert longer.document.chords[-1] == (5 * BAR, "Eb/G")
    (free,), _, told = composed(planner, lane, tmp_path, mode="new", flags={"bars": 2})
    assert list(free.document.chords) == [tuple(row) for row in told["plan"][0]["chords"]]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"mode": "no"}, "mode\n  Input should be 'new'"),
        ({"mode": "region"}, "region is needed"),
        ({"mode": "region", "region": {"start": 5, "end": 5}}, "it is empty"),
        (
            {"mode": "region", "region": {"start": 0, "end": 5, "low": 0, "high": 129}},
            "region.high\n  Input should be less than or equal to 128",
        ),
        ({"mode": "region", "region": {"start": 40 * BAR, "end": 41 * BAR}}, "lies behind the piece"),
        ({"mode": "new", "num_samples": 99}, "num_samples\n  Input should be less"),
        ({"mode": "new", "hand": 2}, "hand\n  Input should be less"),
        ({"mode": "new", "hand": True}, "hand\n  Input should be a valid integer"),
        ({"mode": "new", "odd": 1}, "odd\n  Extra inputs"),
        ({"mode": "new", "flags": {"output_dir": "/"}}, "--output_dir: not a flag"),
        ({"mode": "new", "flags": {"checkpoint": "/x"}}, "--checkpoint: not a flag"),
        ({"mode": "new", "flags": {"lead_sheet": "/x"}}, "--lead_sheet: not a flag"),
        ({"mode": "new", "flags": {"like": "/x"}}, "--like: not a flag"),
        ({"mode": "new", "flags": {"soundfont": "/x"}}, "--soundfont: not a flag"),
        ({"mode": "new", "flags": {"bars": "x"}}, "--bars: expected number or none, not 'x'"),
        ({"mode": "new", "flags": {"bars": 1e9}}, "the studio composes at most 512"),
        ({"mode": "new", "flags": {"temperature": -1}}, "--temperature -1"),
        ({"mode": "new", "flags": {"chords": "Q"}}, "'Q' is no chord"),
        ({"mode": "new", "flags": {"key": "C major"}}, "this model knows no key"),
        ({"mode": "new", "flags": {"side": "above"}}, "--side above: belongs to --mode accompany"),
        ({"mode": "accompany", "flags": {"voice": "track:7"}}, "--voice track:7: piece.mid has the tracks"),
    ],
)
def test_mistakes_are_those_of_the_command_line(
    model: FractalGen, piece: Document, tmp_path: Path, wish: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  of pydantic, or a mistake of the user
        composed(model, piece, tmp_path, **wish)
    assert message in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("mode", ["vary", "accompany"])
def test_an_empty_piece_is_refused_at_once(model: FractalGen, tmp_path: Path, mode: str) -> None:
    with pytest.raises(UserError, match=r"^the piece is empty$"):
        composed(model, Document(0), tmp_path, mode=mode)


def test_pages_know_the_flags_and_no_file_is_among_them() -> None:
    facts = {fact["name"]: fact for fact in flag_facts()}
    assert facts.keys() == FLAGS.keys()
    assert {
        "bars",
        "key",
        "chords",
        "form",
        "tempo",
        "density",
        "temperature",
        "seed",
        "model",
        "scale",
    } <= facts.keys()
    assert not {name for name in facts if "midi" in name or "dir" in name or name in ("device", "soundfont")}
    assert facts["quality"]["choices"] == ["fast", "balanced", "best"]
    assert (facts["tempo"]["type"], facts["tempo"]["low"], facts["tempo"]["high"]) == ("float", 4, 1000)
    assert facts["seed"]["type"] == "int"


def test_long_pieces_are_refused_before_they_wait(piece: Document) -> None:
    Request(state=0, mode="continue", flags={"bars": 500}).check(piece)
    for flags, samples in (({"bars": 510}, 1), ({"bars": 500}, 3)):
        request = Request(state=0, mode="continue", flags=flags, num_samples=samples)
        with pytest.raises(UserError, match="at most 512"):
            request.check(piece)
    whole: list[dict[str, Any]] = [
        {"form": "A500 B13"},
        {"chords": "C | G" + "| %" * 511},
        {"seconds": 1100.0, "tempo": 120.0},
    ]
    for flags in whole:
        with pytest.raises(UserError, match="at most 512"):
            Request(state=0, mode="new", flags=flags).check(piece)
    Request(state=0, mode="new", flags={"form": "A500 B12"}).check(piece)
    Request(state=0, mode="region", flags={"chords": "C"}, region=Region(start=0, end=BAR)).check(piece)
