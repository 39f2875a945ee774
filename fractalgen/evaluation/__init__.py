"""How good is the music: note statistics, distances to real music, copying."""

from __future__ import annotations

from fractalgen.evaluation.notes import note_statistics, statistics_table
