"""The table of the features of the two-sample test: names, units and what each of them measures.

A bar is counted from the left edge of the excerpt, and a beat is a quarter of a bar.  What is undefined is 0.
"""

from __future__ import annotations

from typing import NamedTuple

LAGS = (1, 2, 4, 8)  # bars


class Feature(NamedTuple):
    """What a feature is called, its unit, and what it measures."""

    label: str
    unit: str
    about: str


FEATURES = {
    # how much is played, and where
    "notes": Feature("notes", "per bar", "notes struck"),
    "notes_spread": Feature("spread of notes", "per bar", "standard deviation over bars of the notes struck"),
    "notes_first": Feature("notes in the first bar", "notes", "notes struck in the first bar"),
    "notes_last": Feature("notes in the last bar", "notes", "notes struck in the last bar"),
    "notes_low": Feature("low notes", "per bar", "notes struck below C3"),
    "notes_middle": Feature("middle notes", "per bar", "notes struck from C3 to B4"),
    "notes_high": Feature("high notes", "per bar", "notes struck from C5 on"),
    "density": Feature("density", "% of cells", "cells that sound"),
    "empty_bars": Feature("empty bars", "share", "bars in which nothing sounds"),
    "silence": Feature("silence", "share", "time steps in which nothing sounds"),
    "silence_before": Feature("silence before", "bars", "time until the first note is struck"),
    "silence_after": Feature("silence after", "bars", "time after the last note has ended"),
    # rhythm
    "downbeats": Feature("notes on downbeats", "share", "notes that begin with the bar"),
    "beats": Feature("notes on other beats", "share", "notes that begin on another beat than the first"),
    "half_beats": Feature("notes between beats", "share", "notes that begin half-way between two beats"),
    "off_beats": Feature("notes off the eighths", "share", "notes that begin on no half of a beat"),
    "onsets": Feature("onsets", "per bar", "time steps at which anything is struck"),
    "groove": Feature("groove consistency", "share", "onset times that neighbouring bars have in common"),
    "chords_1": Feature("single notes", "share", "onsets at which one note is struck"),
    "chords_2": Feature("pairs of notes", "share", "onsets at which two notes are struck"),
    "chords_3": Feature("chords of three", "share", "onsets at which three notes are struck"),
    "chords_4": Feature("chords of four or more", "share", "onsets at which four notes or more are struck"),
    "shorter": Feature("notes of less than half a beat", "share", "notes shorter than half a beat"),
    "one_beat": Feature("notes of a beat", "share", "notes of one beat to less than two"),
    "two_beats": Feature("notes of two beats", "share", "notes of two beats to less than a bar"),
    "longer": Feature("notes of a bar", "share", "notes of a bar or longer"),
    "held_over": Feature("held into the next bar", "share", "notes that sound across a bar line"),
    # melody
    "melody_notes": Feature("melody notes", "per bar", "notes that are the highest ones when they are struck"),
    "melody_pitch": Feature("melody pitch", "MIDI pitch", "mean pitch of the melody"),
    "melody_range": Feature("melody range", "semitones", "highest minus lowest pitch of the melody"),
    "melody_repeats": Feature("melody repeats", "share", "successive notes of the melody at the same pitch"),
    "melody_steps": Feature("melody steps", "share", "intervals of the melody of 1 or 2 semitones"),
    "melody_skips": Feature("melody skips", "share", "intervals of the melody of 3 or 4 semitones"),
    "melody_leaps": Feature("melody leaps", "share", "intervals of the melody of 5 semitones or more"),
    "melody_turns": Feature("melody turns", "share", "moves of the melody that change its direction"),
    "melody_legato": Feature("melody legato", "share", "notes of the melody that last until the next one"),
    # bass
    "bass_pitch": Feature("bass pitch", "MIDI pitch", "mean of the lowest notes struck in each half bar"),
    "bass_bars": Feature("bass on downbeats", "share", "bars that begin with a note below E3"),
    "bass_roots": Feature("bass on the root", "share", "half bars whose lowest note is the root of their chord"),
    "bass_steps": Feature("bass steps", "share", "intervals of the bass of 1 or 2 semitones"),
    "bass_fifths": Feature("bass fourths and fifths", "share", "intervals of the bass of 5 or 7 semitones"),
    "bass_octaves": Feature("bass octaves and wider", "share", "intervals of the bass of an octave or more"),
    # harmony
    "chord_fit": Feature("chord fit", "share", "sounding time that belongs to the estimated chord"),
    "chord_changes": Feature("chord changes", "per bar", "changes of the estimated chord"),
    "chord_off_downbeat": Feature("chords off the downbeat", "share", "changes of chord that are not on a downbeat"),
    "octaves": Feature("octaves", "share", "pairs of notes that sound together, whole octaves apart"),
    "semitones": Feature("semitones", "share", "pairs of notes a semitone apart (or a major seventh, a ninth ...)"),
    "seconds": Feature("major seconds", "share", "pairs of notes a major second apart (or a minor seventh ...)"),
    "thirds": Feature("thirds", "share", "pairs of notes a third or a sixth apart"),
    "fifths": Feature("fifths", "share", "pairs of notes a fifth or a fourth apart"),
    "tritones": Feature("tritones", "share", "pairs of notes a tritone apart"),
    "clusters": Feature("clusters", "per onset", "pairs of notes 1 or 2 semitones apart"),
    "pitch_entropy": Feature("pitch-class entropy", "bits", "entropy of the pitch classes struck"),
    "bar_entropy": Feature("pitch-class entropy of a bar", "bits", "entropy of the pitch classes struck in each bar"),
    "scale": Feature("scale consistency", "share", "notes in the best major or natural minor scale"),
    "key_stays": Feature("key stays", "0 or 1", "both halves fit the same key best"),
    "halves": Feature("halves alike", "cosine", "pitch classes that sound in the first and in the second half"),
    "parallel_fifths": Feature("parallel fifths", "per 1000", "pairs of voices that move in fifths"),
    "parallel_octaves": Feature("parallel octaves", "per 1000", "pairs of voices that move in octaves"),
    # form: how alike two bars are is the share of their onsets (step, pitch) that both have
    **{
        f"like_{lag}": Feature(f"like the bar {lag} before", "share", f"onsets in common with the bar {lag} before")
        for lag in LAGS
    },
    "like_best": Feature("like an earlier bar", "share", "onsets in common with the most similar earlier bar"),
    "like_most": Feature("most similar bars", "share", "onsets in common of the two bars that are most alike"),
    "bars_again": Feature("bars that come back", "share", "bars that have the onsets of an earlier bar"),
    # dynamics, in velocity bins
    "velocity": Feature("velocity", "bins", "mean velocity"),
    "velocity_in_bar": Feature("velocity within bars", "bins", "standard deviation of velocities in a bar"),
    "velocity_of_bars": Feature("velocity across bars", "bins", "standard deviation of the means of the bars"),
    "velocity_lead": Feature("melody above the rest", "bins", "mean velocity of the melody minus that of other notes"),
    "velocity_together": Feature("velocity in chords", "bins", "loudest minus softest of notes struck together"),
    "velocity_before": Feature(
        "velocity memory", "correlation", "velocity of each note of the melody and of the one before"
    ),
    "velocity_same": Feature("same velocity again", "share", "notes of the melody as loud as the one before"),
    "velocity_downbeat": Feature("accent of downbeats", "bins", "mean velocity on downbeats minus all others"),
    "velocity_pitch": Feature("velocity by pitch", "correlation", "velocity and pitch of the notes"),
    # texture
    "polyphony": Feature("polyphony", "notes", "notes that sound together, where anything sounds"),
    "polyphony_spread": Feature("spread of polyphony", "notes", "standard deviation over time steps of the polyphony"),
    "pitch_range": Feature("pitch range", "semitones", "highest minus lowest pitch struck"),
    "width": Feature("distance of outer voices", "semitones", "highest minus lowest note that sounds"),
    "inner": Feature("inner notes", "share", "notes of neither melody nor bass"),
    "hands": Feature("distance of the hands", "semitones", "mean pitch of the right hand minus that of the left"),
    "wide_grips": Feature("wide grips", "share", "onsets at which a hand strikes notes that it cannot reach"),
}
