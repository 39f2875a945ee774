"""The classifier two-sample test: how well a classifier tells generated excerpts from real ones.

D. Lopez-Paz and M. Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017.  Two classifiers see the features of
:mod:`fractalgen.features.vector`.  Their cross-validated AUC is the probability that they find a generated excerpt
more likely to be generated than a real one: 0.5 where they cannot tell, 1 where they always can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fractalgen.features.critic import STRENGTH
from fractalgen.features.notes import Ints, as_rolls
from fractalgen.features.statistics import Floats, ratio_error
from fractalgen.features.table import FEATURES
from fractalgen.features.vector import feature_rows

if TYPE_CHECKING:
    from fractalgen.data.corpus import Corpus

FEWEST = 10  # songs, and generated rolls
FOLDS, REPEATS, TREES, PERMUTATIONS = 5, 3, 300, 500
CLASSIFIERS = {"forest": "random forest", "linear": "logistic regression"}
Edge = Literal["end", "any"]
EDGES = {
    "end": "The excerpts begin on a bar line inside of a song and end with it, because samples have an end, too.",
    "any": "The excerpts begin and end on bar lines anywhere in a song.",
}


def two_sample_test(
    real: Any, real_groups: Sequence[int] | Ints, generated: Any, *, steps_per_bar: int = 16, seed: int = 0
) -> dict[str, Any]:
    """How well classifiers tell ``generated`` rolls (m, 128, T) from ``real`` ones (n, 128, T), on the same grid.

    Rolls of both sides should begin and end alike, see :func:`song_excerpts`: a difference of the edges is found, too.
    ``real_groups`` (n,) is the song of each real roll.  The rolls of a song are all in one fold, and every generated
    roll is a group of its own.  Both sides have equally many rolls: of the larger one a random choice, from as many
    songs as possible.  Each of ``REPEATS`` repetitions has its own choice, folds and trees.  The same seed gives the
    same result.

    Returns:
        - ``excerpts``: rolls of each side; ``songs``: of the real side; ``bars``: of each roll
        - ``forest`` (``TREES`` trees) and ``linear`` (logistic regression of standardised features): ``auc`` and
          ``stderr``, its standard error over songs, samples and repetitions; ``floor`` and ``floor_stderr``: the same
          between two halves of the real rolls, split by song, and as many of them at most (None with fewer than
          ``FEWEST`` songs in each half); ``floor_excerpts``: rolls of each half
        - ``features``: all of :data:`FEATURES`, the most telling one first: ``name``; ``auc`` of this feature alone,
          from 0.5 to 1; ``real_mean``, ``real_std``, ``generated_mean``, ``generated_std``
        - ``chance``: the ``auc`` that the most telling feature exceeds by chance once in twenty times

    Raises:
        ValueError: too few rolls or songs (:func:`too_few`), or rolls of different widths.
    """
    real, generated = as_rolls(real), as_rolls(generated)
    if real.shape[2] != generated.shape[2]:
        raise ValueError(f"real rolls have {real.shape[2]} steps, generated ones {generated.shape[2]}")
    if reason := too_few(real_groups, len(generated)):
        raise ValueError(reason)
    songs = np.unique(np.asarray(real_groups), return_inverse=True)[1]
    one, two = (feature_rows(rolls, steps_per_bar) for rolls in (real, generated))
    samples, many, count = np.arange(len(two)), int(songs.max()) + 1, min(len(one), len(two))
    tested, floor = [], []
    fits = (1 + (many >= 2 * FEWEST)) * REPEATS * FOLDS * len(CLASSIFIERS)
    with tqdm(desc="two-sample test", total=fits, unit="fit", dynamic_ncols=True) as bar:
        for repeat in range(REPEATS):
            random = np.random.default_rng((seed, repeat))
            tested.append(_cross_validated((one, two), (songs, samples), count, random, bar))
            if many >= 2 * FEWEST:
                half = random.permutation(many)[songs] % 2 == 0
                halves = (one[half], one[~half]), (songs[half], songs[~half])
                floor.append(_cross_validated(*halves, count, random, bar))
    result: dict[str, Any] = {"excerpts": count, "songs": many, "bars": real.shape[2] / steps_per_bar}
    for name in CLASSIFIERS:
        auc, error = _together([found[name] for found in tested])
        least, spread = _together([found[name] for found in floor]) if floor else (None, None)
        result[name] = {"auc": auc, "stderr": error, "floor": least, "floor_stderr": spread}
    return result | {
        "floor_excerpts": min(found["excerpts"] for found in floor) if floor else None,
        "features": telling(one, two),
        "chance": chance(
            np.concatenate([one, two]), np.r_[songs, many + samples], many, np.random.default_rng((seed, REPEATS))
        ),
    }


def telling(real: Floats, generated: Floats) -> list[dict[str, Any]]:
    """What each feature tells alone, the most telling one first; values of both sides: (n, f) and (m, f)."""
    values, second = np.concatenate([real, generated]), np.arange(len(real) + len(generated)) >= len(real)
    aucs = _folded(single_aucs(values, second)).tolist()
    columns = {
        f"{side}_{name}": figure(of, axis=0).tolist()
        for name, figure in (("mean", np.mean), ("std", np.std))
        for side, of in (("real", real), ("generated", generated))
    }
    found = [
        {"name": name, "auc": auc, **dict(zip(columns, figures, strict=True))}
        for name, auc, *figures in zip(FEATURES, aucs, *columns.values(), strict=True)
    ]
    return sorted(found, key=lambda feature: -feature["auc"])


def compare_with_songs(
    corpus: Corpus, songs: Sequence[int], generated: Any, *, ends: bool, bar_columns: bool, seed: int = 0
) -> dict[str, Any]:
    """The :func:`two_sample_test` of generated rolls (n, 128, T) and comparable excerpts of songs.

    ``ends``: the rolls end as songs do (models with plans are told how many bars are left), so the excerpts are the
    ends of songs, if there are enough.  ``bar_columns``: the rolls are all in 4/4, so the excerpts are, too.  Where
    more than half of the songs are shorter than T, only half of the rolls is compared, or a quarter ...

    Returns:
        the result of the test with ``edge``, where the excerpts are from; or ``left_out``, why there is none.
    """
    rolls, bar = as_rolls(generated), 4 * corpus.steps_per_quarter
    width, lengths = rolls.shape[2], np.array([corpus.num_steps(song) for song in songs])
    while width > bar and np.mean(lengths >= width) < 0.5:
        width = max(bar, width // 2 // bar * bar)
    steps_per_bar = bar if bar_columns else None
    edges: tuple[Edge, ...] = ("end", "any") if ends else ("any",)
    for edge in edges:
        real, groups = song_excerpts(corpus, songs, width, edge, steps_per_bar)
        reason = too_few(groups, len(rolls))
        if not reason:
            part = rolls[:, :, -width:] if edge == "end" else rolls[:, :, :width]
            return two_sample_test(real, groups, part, steps_per_bar=bar, seed=seed) | {"edge": edge}
    return {"left_out": reason}


def too_few(real_groups: Sequence[int] | Ints, generated: int) -> str:
    """Why real rolls of these songs and so many generated ones cannot be tested; empty if they can."""
    songs = len(np.unique(np.asarray(real_groups)))
    if min(songs, generated) >= FEWEST:
        return ""
    return f"{generated} samples and excerpts of {songs} songs; it needs {FEWEST} of each"


def single_aucs(values: Floats, second: npt.NDArray[np.bool_]) -> Floats:
    """Probability (..., f) that a feature is higher in an item of the second set than in one of the first.

    ``values``: of all items (n, f); ``second``: which are of the second set, (..., n).
    """
    pairs = zip(np.sort(values, axis=0).T, values.T, strict=True)
    ranks = [np.searchsorted(row, of) + np.searchsorted(row, of, side="right") + 1 for row, of in pairs]
    many = second.sum(axis=-1, keepdims=True)
    return (second @ np.stack(ranks, axis=1) / (2 * many) - (many + 1) / 2) / (second.shape[-1] - many)


def chance(values: Floats, groups: Ints, songs: int, random: np.random.Generator) -> float:
    """AUC that the most telling feature exceeds once in twenty times where the groups are exchanged at random.

    ``songs``: so many of the groups, numbered from 0, are the first set.
    """
    shuffled = np.stack([random.permutation(groups.max() + 1) for _ in range(PERMUTATIONS)])
    return float(np.quantile(_folded(single_aucs(values, shuffled[:, groups] >= songs)).max(axis=1), 0.95))


def _folded(aucs: Floats) -> Floats:
    """The same whichever set is higher."""
    return np.maximum(aucs, 1 - aucs)


def _together(found: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean of the (AUC, standard error) of repetitions, and the error with what the repetitions differ by."""
    aucs, errors = np.array(found).T
    return float(aucs.mean()), float(np.hypot(errors.mean(), aucs.std(ddof=1) / np.sqrt(len(aucs))))


def spread_choice(groups: Ints, count: int, random: np.random.Generator) -> Ints:
    """``count`` items at random: one of each group, then a second one of each, until there are enough."""
    order = random.permutation(len(groups))
    order = order[np.argsort(groups[order], kind="stable")]
    size = np.bincount(groups)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(size) - size, size)
    return order[np.lexsort((random.random(len(order)), rank))[:count]]


def _cross_validated(
    values: Sequence[Floats], groups: Sequence[Ints], most: int, random: np.random.Generator, bar: tqdm[Any]
) -> dict[str, Any]:
    """AUC and standard error of each classifier between two sets of values (n, f), at most ``most`` items of each."""
    # Imported here: it takes a second or two.
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = min(most, *map(len, values))
    chosen = [spread_choice(of, count, random) for of in groups]
    items = np.concatenate([of[where] for of, where in zip(values, chosen, strict=True)])
    apart = (0, groups[0].max() + 1)  # no group has items of both sets
    group = np.concatenate([of[where] + more for of, where, more in zip(groups, chosen, apart, strict=True)])
    label = np.repeat([0, 1], count)
    seed = int(random.integers(2**31))
    fold = folds(label, group, seed)
    result: dict[str, Any] = {"excerpts": count}
    for name in CLASSIFIERS:
        scores = np.zeros(2 * count)
        for number in range(FOLDS):
            model = (
                RandomForestClassifier(TREES, random_state=seed + number)
                if name == "forest"
                else make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=1000))
            )
            model.fit(items[fold != number], label[fold != number])
            scores[fold == number] = model.predict_proba(items[fold == number])[:, 1]
            bar.update()
        result[name] = auc_and_error(scores, label, fold, group)
    return result


def folds(label: Ints, groups: Ints, seed: int) -> Ints:
    """The fold of each item: all items of a group are in one, and the labels are spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold = np.zeros(len(label), np.int64)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for number, (_, test) in enumerate(splitter.split(label, label, groups)):
        fold[test] = number
    return fold


def auc_and_error(scores: Floats, label: Ints, fold: Ints, groups: Ints) -> tuple[float, float]:
    """AUC over all pairs of items of one fold and different ``label`` (0 or 1), and its standard error over groups.

    Scores of different folds come from different classifiers and are not compared.  Each group has one label; the
    variances of both sides add up (N. Obuchowski, "Nonparametric Analysis of Clustered ROC Curve Data", 1997).
    """
    zeros, ones = np.flatnonzero(label == 0), np.flatnonzero(label == 1)
    pairs = (fold[zeros, None] == fold[ones]).astype(np.float64)
    wins = pairs * ((scores[zeros, None] < scores[ones]) + 0.5 * (scores[zeros, None] == scores[ones]))
    of_real, of_generated = (
        ratio_error(wins.sum(axis), pairs.sum(axis), groups[items]) for axis, items in ((1, zeros), (0, ones))
    )
    return float(wins.sum() / pairs.sum()), float(np.hypot(of_real, of_generated))


def song_excerpts(
    corpus: Corpus, songs: Sequence[int], width: int, edge: Edge, steps_per_bar: int | None = None
) -> tuple[npt.NDArray[np.uint8], Ints]:
    """Excerpts of songs from bar lines on, (n, 128, width), and the song of each (n,); silent ones are left out.

    ``edge``: the last ``width`` steps of each song, or any that follow each other.  Songs that are shorter
    have none.  ``steps_per_bar``: only excerpts in which all bars have so many steps (default: any bars).
    """
    rolls, groups = [], []
    for song in songs:
        end, lines = corpus.num_steps(song), corpus.downbeats(song).astype(np.int64)
        free = 0
        for start in lines[lines <= end - width].tolist():
            bars = lines[(lines >= start) & (lines < start + width)] - start
            if (edge == "end" and start < end - width) or start < free:
                continue
            if steps_per_bar and not np.array_equal(bars, np.arange(0, width, steps_per_bar)):
                continue
            roll = corpus.tokens(song, start, start + width)
            if roll.any():
                rolls.append(roll)
                groups.append(song)
            free = start + width
    return np.array(rolls, np.uint8).reshape(len(rolls), 128, width), np.array(groups, np.int64)


def sides(result: Mapping[str, Any]) -> str:
    """What is compared with what."""
    count, bars, songs = result["excerpts"], f"{result['bars']:g} bars", result["songs"]
    if result["edge"] == "end":
        choice = f" out of {songs}" if songs > count else ""
        return f"the last {bars} of {count} samples and of {count} songs{choice}"
    return f"the first {bars} of {count} samples and {count} excerpts as long from anywhere in {songs} songs"


def two_sample_text(result: Mapping[str, Any], most: int = 10) -> str:
    """The test for the terminal: the AUCs, and the ``most`` telling features."""
    if "left_out" in result:
        return f"two-sample test left out: {result['left_out']}"
    lines = [f"two-sample test ({sides(result)}); AUC, 0.5: cannot be told apart"]
    for name, label in CLASSIFIERS.items():
        found = result[name]
        floor = ""
        if found["floor"] is not None:
            floor = f"; between real songs {found['floor']:.3f} +- {found['floor_stderr']:.3f}"
        lines.append(f"  {label} {found['auc']:.3f} +- {found['stderr']:.3f}{floor}")
    for found in result["features"][:most]:
        feature = FEATURES[found["name"]]
        lines.append(
            f"  {found['auc']:.2f} {feature.label} ({feature.unit}): real {found['real_mean']:.3g}"
            f" +- {found['real_std']:.2g}, generated {found['generated_mean']:.3g} +- {found['generated_std']:.2g}"
        )
    return "\n".join(lines)
