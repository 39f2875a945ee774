"""The labels of the crops of a corpus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fractalgen.data.attributes import meter_between, numbers, pace
from fractalgen.data.corpus import Corpus
from fractalgen.errors import UserError
from fractalgen.music.keys import key_between, transposed
from fractalgen.music.labels import Attribute


def chosen(corpus: Corpus, names: Sequence[str] | None) -> tuple[Attribute, ...]:
    """The attributes of a corpus that ``--attributes`` names, in its own order; ``all``: what it has.

    Raises:
        UserError: the songs of the corpus do not differ by one of them.
    """
    if not names:
        return ()
    known = corpus.vocabulary
    has = [attribute.name for attribute in known]
    for name in names:
        if name not in ("all", *has):
            which = ", ".join(has) or "nothing"
            raise UserError(f"--attributes {name}: the training songs of {corpus.path} differ only by {which}")
    return known if "all" in names else tuple(attribute for attribute in known if attribute.name in names)


class Labeller:
    """Labels of the crops of a corpus, one per attribute; a crop takes less than a millisecond."""

    def __init__(self, corpus: Corpus, attributes: Sequence[Attribute]) -> None:
        self.corpus, self.attributes = corpus, tuple(attributes)

    def __call__(self, tokens: npt.NDArray[np.uint8], song: int, start: int, shift: int = 0) -> npt.NDArray[np.int64]:
        """Labels (num_attributes,) of ``tokens`` (128, T): ``song`` from ``start`` on, ``shift`` semitones up."""
        if not self.attributes:
            return np.zeros(0, np.int64)
        corpus, stop = self.corpus, start + tokens.shape[1]
        facts = numbers(tokens, corpus.steps_per_quarter, corpus.velocity_bins)
        if corpus.flat(song):
            facts["velocity"] = None
        key = key_between(corpus.keys(song), start, stop)
        facts["key"] = None if key is None else transposed(key, shift)
        facts["tempo"] = pace(corpus.tempos(song), start, stop)
        facts["style"] = corpus.style(song)
        facts["meter"] = meter_between(corpus.meters(song), start, stop)
        return np.array([attribute.label(facts[attribute.name]) for attribute in self.attributes], np.int64)
