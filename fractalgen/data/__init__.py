"""Corpora: from folders of MIDI files to labelled training crops."""
