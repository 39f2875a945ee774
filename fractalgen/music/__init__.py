"""Music without a model: tokens and piano rolls, MIDI files, keys and labels."""

MAX_STEPS = 65_535  # 4,095 bars of 4/4, over two hours: what is longer is a damaged file
