"""Attributes of music: measured, put into words, learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fractalgen.api import FractalGen
from fractalgen.config import ModelConfig
from fractalgen.data import attributes as measuring
from fractalgen.data.attributes import Measured, measure_attributes, pace
from fractalgen.data.corpus import Corpus, Split, write_corpus
from fractalgen.data.crops import CropDataset, ValidCrops
from fractalgen.data.labeller import chosen
from fractalgen.data.song import Song
from fractalgen.errors import UserError
from fractalgen.model.masking import drop_labels
from fractalgen.music.keys import key_between, key_changes, transposed
from fractalgen.music.labels import KEYS, Attribute, encode_all, spell_key, writes_flats
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import merge_notes, tokens_from_notes
from fractalgen.training.optimisers import make_optimizer
from tests import tiny
from tests.model.properties.helpers import tiny_config

MAJOR = (0, 2, 4, 5, 7, 9, 11, 12)
MINOR = (0, 2, 3, 5, 7, 8, 11, 12)  # harmonic
DENSITY = Attribute("density", (), (1.5, 4.0, 10.0, 12.0, 61.0), (0.0, 0.25, 0.5, 0.75, 1.0), "notes a bar")


def roll(rows: list[tuple[int, int, int, int]], width: int) -> np.ndarray:
    """Tokens (128, width) of notes (pitch, start, stop, velocity bin)."""
    return tokens_from_notes(merge_notes(*np.array(rows).T), 0, width)


def scale(tonic: int, degrees: tuple[int, ...] = MAJOR, times: int = 1, start: int = 0) -> np.ndarray:
    """Quarters up a scale and a chord of its first, third and fifth note, held for a bar, over and over."""
    rows = []
    for turn in range(times):
        begin = start + 48 * turn
        rows += [(tonic + pitch, begin + 4 * i, begin + 4 * i + 4, 9) for i, pitch in enumerate(degrees)]
        rows += [(tonic + degrees[i], begin + 32, begin + 48, 9) for i in (0, 2, 4)]
    return roll(rows, start + 48 * times)


def song(tokens: np.ndarray, name: str = "a", **settings: Any) -> Song:
    style = settings.pop("style", "")
    return replace(Song.from_roll(name, PianoRoll(tokens, time_signatures=((0, 4, 4),), **settings)), style=style)


def vocabulary(songs: list[Song]) -> tuple[Attribute, ...]:
    return measuring.vocabulary((song.style, Measured.of(song, 4, 32)) for song in songs)


def write(path: Path, songs: list[Song], splits: dict[str, Split] | None = None) -> Corpus:
    write_corpus(songs, splits or {song.name: "train" for song in songs}, path)
    return Corpus.open(path)


def test_attributes_of_a_roll_worked_out_by_hand() -> None:
    # two bars: three notes of a C major chord for a bar at bin 10, then C alone for half a bar at bin 20, then silence
    tokens = roll([(60, 0, 16, 10), (64, 0, 16, 10), (67, 0, 16, 10), (72, 16, 24, 20)], 64)
    facts = measure_attributes(tokens)
    assert facts["density"] == pytest.approx(4 / 1.5)  # the silence that follows is no part of the music
    assert facts["polyphony"] == pytest.approx((16 * 3 + 8) / 24)
    assert facts["register"] == pytest.approx((60 + 64 + 67 + 72) / 4)
    assert facts["velocity"] == pytest.approx((3 * 42 + 82) / 4)  # the middles of bins of 4
    assert facts["key"] == "C major"
    assert measure_attributes(tokens, steps_per_quarter=8)["density"] == pytest.approx(4 / 1.0)  # a bar at least


def test_what_silence_does_not_tell_is_unknown() -> None:
    unknown = dict.fromkeys(("polyphony", "register", "velocity", "key"))
    assert measure_attributes(np.zeros((128, 32), np.uint8)) == {"density": 0.0, **unknown}
    held = roll([(60, 0, 16, 1)], 16)[:, 4:]  # sounds, but is not struck
    assert measure_attributes(held)["polyphony"] == 1.0
    assert measure_attributes(held)["register"] is None
    labels = [Attribute("key", KEYS).label(None), DENSITY.label(None), DENSITY.label(float("nan"))]
    assert labels == [0, 0, 0]


@pytest.mark.parametrize("tonic", range(12))
def test_keys_of_scales(tonic: int) -> None:
    assert measure_attributes(scale(48 + tonic, MAJOR))["key"] == KEYS[tonic]
    assert measure_attributes(scale(48 + tonic, MINOR))["key"] == KEYS[12 + tonic]


def test_a_change_of_key_is_found_and_a_passing_chord_is_not() -> None:
    changed = np.concatenate([scale(60, times=4), scale(62, times=4)], axis=1)
    assert key_changes(changed) == ((0, "C major"), (192, "D major"))
    assert key_between(key_changes(changed), 0, 384) == "C major"  # the earlier of equals
    assert key_between(key_changes(changed), 100, 384) == "D major"
    passing = scale(60, times=8)
    passing[:, 196:212] = roll([(66, 0, 16, 9), (70, 0, 16, 9), (73, 0, 16, 9)], 16)
    assert key_changes(passing) == ((0, "C major"),)


def test_transposed_chorales_are_in_the_transposed_key() -> None:
    chorales = Corpus.open("chorales")
    keys = set()
    for index in range(0, len(chorales), 12):
        tokens = chorales.tokens(index)
        for shift in (-6, -1, 1, 2, 5):
            moved = key_changes(np.roll(tokens, shift, axis=0))
            assert moved == tuple((step, transposed(key, shift)) for step, key in key_changes(tokens))
        keys.add(key_changes(tokens)[0][1])
    assert len(keys) > 6
    assert transposed("B minor", 1) == "C minor"
    assert transposed("C major", -1) == "B major"


def test_pace_is_an_average_over_time() -> None:
    assert pace(((0, 60.0), (16, 120.0)), 0, 48) == pytest.approx(48 / (16 / 60 + 32 / 120))
    assert pace(((0, 60.0), (16, 120.0)), 16, 20) == 120.0
    assert pace(((0, 60.0), (16, 120.0)), 0, 8) == 60.0


def test_bins_hold_equally_many_excerpts() -> None:
    # 1 to 64 notes in each of 64 songs of 16 bars, the last of which ends with the last bar
    songs = [
        song(roll([(20 + i, 0, 256, 1) for i in range(n)], 256), str(n), tempos=((0, 60.0 + n),)) for n in range(1, 65)
    ]
    found = {attribute.name: attribute for attribute in vocabulary(songs)}
    assert list(found) == ["key", "density", "polyphony", "register", "tempo"]  # one velocity, no style
    density = found["density"]
    assert (density.edges[0], density.edges[-1], density.size) == (1 / 16, 4.0, 9)
    labels = [density.label(n / 16) for n in range(1, 65)]
    assert np.bincount(labels, minlength=9).tolist() == [0] + [8] * 8
    assert labels == sorted(labels)
    assert density.ranks == pytest.approx(np.linspace(0, 1, 9), abs=1e-6)
    assert density.label(0.0) == 1
    assert density.label(99.0) == 8
    assert [density.encode(text) for text in ("0", "0.12", "0.13", "0.7", "1", "1.5", "4")] == [1, 1, 2, 6, 8, 3, 8]
    assert found["tempo"].edges == pytest.approx((61, *range(69, 120, 8), 124), abs=1e-3)


def test_equal_values_share_a_bin_that_can_be_reached() -> None:
    def bins(paces: list[float]) -> list[Attribute]:
        notes = roll([(60, 0, 16, 1)], 256)
        songs = [song(notes, str(i), tempos=((0, tempo),)) for i, tempo in enumerate(paces)]
        return [attribute for attribute in vocabulary(songs) if attribute.name == "tempo"]

    paces = [60.0] * 50 + [80.0] * 30 + list(range(100, 120))
    (tempo,) = bins(paces)
    used = {tempo.label(value) for value in paces}
    assert used == set(range(1, tempo.size))  # each bin is learned
    assert tempo.encode("0.4") == tempo.label(60.0)
    assert tempo.encode("0.6") == tempo.label(80.0)
    assert tempo.encode("80") == tempo.label(80.0)
    assert tempo.describe(tempo.label(60.0)) == "60 to 80 quarters a minute"
    (tempo,) = bins([60.0] * 10 + [80.0] * 10)
    assert (tempo.edges, tempo.ranks) == ((60.0, 80.0, 80.0), (0.0, 0.5, 1.0))
    assert [tempo.label(value) for value in (60.0, 79.0, 80.0)] == [1, 1, 2]
    assert bins([60.0] * 20) == bins([60.0] * 19 + [80.0]) == []


def test_spellings_of_keys() -> None:
    attribute = Attribute("key", KEYS)
    for key, texts in {
        "A minor": ("A minor", "a MINOR", "Am", "A:min"),
        "Bb minor": ("A# minor", "B♭ minor"),
        "Gb minor": ("f#m",),
        "B major": ("cb major",),
        "C major": ("B# major",),
        "Bb major": ("BB MAJ",),
        "B minor": ("bm",),
    }.items():
        for text in texts:
            assert spell_key(text) == key
            assert attribute.values[attribute.encode(text) - 1] == key
        assert attribute.encode(attribute.describe(attribute.encode(key))) == attribute.encode(key)
    assert {spell_key(text) for text in ("H major", "A", "A minor 7", "")} == {None}


def test_unknown_values_are_refused_with_what_exists() -> None:
    style = Attribute("style", ("chorale", "pop"))
    assert style.encode("Pop") == 2
    assert style.encode(" chorale ") == 1
    expected = {
        (
            Attribute("key", KEYS),
            "H major",
        ): "--key H major: not in this model's vocabulary (C major, Db major, D major",
        (style, "rock"): "--style rock: not in this model's vocabulary (chorale, pop)",
        (DENSITY, "dense"): "--density dense: a percentile of the training set from 0 to 1, or 1.5 to 61 no",
        (DENSITY, "62"): "--density 62: a percentile",
        (DENSITY, "1.2"): "--density 1.2: a percentile",
        (DENSITY, "-1"): "--density -1: a percentile",
        (DENSITY, "nan"): "--density nan: a percentile",
    }
    for (attribute, text), message in expected.items():
        with pytest.raises(UserError) as caught:
            attribute.encode(text)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


def test_wishes_become_one_label_per_attribute() -> None:
    attributes = (Attribute("key", KEYS), DENSITY, Attribute("style", ("chorale", "pop")))
    assert encode_all(attributes, {"style": "pop", "key": "Am", "density": None}) == (22, 0, 2)
    assert encode_all(attributes, {}) == (0, 0, 0)
    assert [attribute.describe(0) for attribute in attributes] == ["free"] * 3
    assert [attribute.size for attribute in attributes] == [25, 5, 3]
    with pytest.raises(UserError, match=r"--tempo 90: this model knows no tempo .it was trained with key, density, st"):
        encode_all(attributes, {"tempo": "90"})
    with pytest.raises(UserError, match=r"--key Am: this model knows no key .it was trained without --attributes"):
        encode_all((), {"key": "Am"})
    with pytest.raises(UserError, match="attribute x: either values, or edges"):
        Attribute("x", ("a",), (1.0, 2.0), (0.0, 1.0))


def test_a_vocabulary_survives_a_header() -> None:
    config = replace(tiny_config(), attributes=(Attribute("key", KEYS), DENSITY))
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.label_sizes == (25, 5)
    assert [table.num_embeddings for table in FractalGen(again).labels] == [25, 5]
    older = {name: value for name, value in tiny_config().to_dict().items() if name != "attributes"}
    assert ModelConfig.from_dict({**older, "label_sizes": []}) == tiny_config()


def styled(path: Path) -> Corpus:
    """Low music in C major and high music in E minor, both in two styles; a song for validation."""
    songs = [
        song(scale(36, MAJOR, 4), "low", style="bass", tempos=((0, 60.0),)),
        song(scale(88, MINOR, 4), "high", style="bells", tempos=((0, 90.0), (96, 180.0))),
        song(scale(36, MAJOR, 4), "new", style="bells", tempos=((0, 75.0),)),
    ]
    return write(path, songs, {"low": "train", "high": "train", "new": "valid"})


def test_a_corpus_keeps_keys_styles_and_vocabulary(tmp_path: Path) -> None:
    corpus = styled(tmp_path / "c.safetensors")
    assert [corpus.keys(i) for i in range(3)] == [((0, "C major"),), ((0, "E minor"),), ((0, "C major"),)]
    assert [corpus.style(i) for i in range(3)] == ["bass", "bells", "bells"]
    assert corpus.vocabulary == vocabulary([corpus.song(0), corpus.song(1)])
    assert {a.name: a.values for a in corpus.vocabulary if a.values} == {"key": KEYS, "style": ("bass", "bells")}


def test_corpora_without_these_tables_can_be_read(tmp_path: Path) -> None:
    corpus, older = styled(tmp_path / "c.safetensors"), tmp_path / "older.safetensors"
    tensors = {name: array for name, array in load_file(corpus.path).items() if "keys" not in name}
    metadata = {name: value for name, value in corpus.metadata.items() if name not in ("styles", "attributes")}
    save_file(tensors, older, {"fractalgen": json.dumps(metadata)})
    read = Corpus.open(older)
    assert [read.keys(i) for i in range(3)] == [corpus.keys(i) for i in range(3)]
    assert [read.style(i) for i in range(3)] == [""] * 3
    assert read.vocabulary == tuple(attribute for attribute in corpus.vocabulary if attribute.name != "style")


def test_attributes_are_chosen_by_name(tmp_path: Path) -> None:
    corpus = styled(tmp_path / "c.safetensors")
    assert chosen(corpus, None) == ()
    assert chosen(corpus, ("all",)) == corpus.vocabulary
    assert [attribute.name for attribute in chosen(corpus, ("style", "key"))] == ["key", "style"]
    with pytest.raises(
        UserError, match=r"--attributes velocity: the training songs of .*c.safetensors differ only by key"
    ):
        chosen(corpus, ("key", "velocity"))


def test_labels_are_those_of_the_crop(tmp_path: Path) -> None:
    corpus = styled(tmp_path / "c.safetensors")
    attributes = corpus.vocabulary
    names = [attribute.name for attribute in attributes]
    crops = ValidCrops(corpus, "train", 64, attributes=attributes)
    for index, (number, start) in enumerate(crops.crops):
        item = crops[index]
        facts = {**measure_attributes(item["tokens"].numpy()), "key": ("C major", "E minor")[number]}
        facts["tempo"] = pace(corpus.tempos(number), start, start + 64)
        facts["style"] = ("bass", "bells")[number]
        expected = [attribute.label(facts[attribute.name]) for attribute in attributes]
        assert item["labels"].tolist() == expected
        assert min(expected) > 0
    assert {"key", "register", "tempo", "style"} <= set(names)
    assert ValidCrops(corpus, "train", 64)[0]["labels"].shape == (0,)


def test_labels_follow_transposition(tmp_path: Path) -> None:
    corpus = styled(tmp_path / "c.safetensors")
    attributes = chosen(corpus, ("key", "register", "style"))
    crops = CropDataset(corpus, "train", 64, transpose=(-6, 6), attributes=attributes)
    torch.manual_seed(0)
    seen = set()
    for _ in range(60):
        item = crops[0]
        key, register, style = item["labels"].tolist()
        tokens = item["tokens"].numpy()
        lowest = int(np.flatnonzero(tokens.any(axis=1))[0])
        assert KEYS[key - 1] == (KEYS[lowest % 12] if style == 1 else KEYS[12 + lowest % 12])
        assert register == attributes[1].label(measure_attributes(tokens)["register"])
        seen.add(KEYS[key - 1])
    assert len(seen) > 12


def test_some_labels_of_a_crop_are_dropped() -> None:
    torch.manual_seed(0)
    labels = [torch.full((40_000,), i + 1) for i in range(3)]
    kept = torch.stack(drop_labels(labels, 0.1))
    assert torch.all((kept == 0) | (kept == torch.stack(labels)))
    counts = torch.bincount((kept > 0).sum(0), minlength=4) / 40_000
    assert torch.allclose(counts, torch.tensor([0.1, 0.3, 0.3, 0.3]), atol=0.01)
    alone = (kept > 0)[:, (kept > 0).sum(0) == 1].float().mean(1)
    assert torch.allclose(alone, torch.full((3,), 1 / 3), atol=0.02)  # none is preferred
    assert torch.equal(torch.stack(drop_labels(labels, 0.0)), torch.stack(labels))
    assert not torch.stack(drop_labels(labels, 1.0)).any()
    (single,) = drop_labels(labels[:1], 0.25)
    assert (single == 0).float().mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.slow
def test_the_right_label_is_more_likely_after_training(tmp_path: Path) -> None:
    corpus = styled(tmp_path / "c.safetensors")
    attributes = chosen(corpus, ("style",))
    torch.manual_seed(0)
    model = FractalGen(replace(tiny.model_config(embed_dims=(32, 16, 16, 16)), attributes=attributes))
    crops = CropDataset(corpus, "train", tiny.WIDTH, attributes=attributes)
    optimizer = make_optimizer(model, "muon", 1e-2)
    for _ in range(70):
        items = [crops[0] for _ in range(4)]
        tokens, labels = torch.stack([item["tokens"] for item in items]), torch.cat([item["labels"] for item in items])
        optimizer.zero_grad()
        (model.nll(tokens, [labels]).total.mean() / 100).backward()
        optimizer.step()
    model.eval()
    held = ValidCrops(corpus, "train", tiny.WIDTH, attributes=attributes)
    tokens = torch.stack([held[i]["tokens"] for i in range(len(held))])
    labels = torch.cat([held[i]["labels"] for i in range(len(held))])
    with torch.no_grad():
        right, wrong = model.nll(tokens, [labels]).total, model.nll(tokens, [3 - labels]).total
        free = model.nll(tokens).total
    assert right.sum() < free.sum() < wrong.sum()
    assert right.sum() < 0.9 * wrong.sum()


def test_keys_with_flats() -> None:
    keys = ["C major", "F major", "Gb major", "B major", "D minor", "E minor", "Ab minor", "Eb minor"]
    flats = ["F major", "Gb major", "D minor", "Eb minor"]  # Ab minor is written as G# minor
    assert [key for key in keys if writes_flats(key)] == flats
