"""Rolls as sound: a sampled grand piano that is part of the package, or any soundfont.

Of the piano (``assets/piano``) every third key was recorded, at one loudness.  A key sounds as its nearest neighbour
does, resampled; a soft note is turned down and made duller.  ``assets/player/piano.js`` plays the same samples by the
same rules.  Soundfonts (.sf2, .sf3) are played by the library ``tinysoundfont``.  Nothing is ever downloaded.
"""

from __future__ import annotations

import json
import wave
from fractions import Fraction
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fractalgen.errors import UserError
from fractalgen.files import ASSETS, replacing
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import midi_velocity

Ints: TypeAlias = NDArray[np.int64]
Sound: TypeAlias = NDArray[np.float32]
Played: TypeAlias = tuple[Ints, Ints, Ints, Ints]  # notes: pitch, the samples from and up to which, MIDI velocity

RATE = 44_100  # samples a second
TAIL = 1.0  # seconds after the last step in which the last notes die away
MAX_SECONDS = 3_600.0  # an hour takes about 2 GB while it is made
CEILING = 0.98  # what the limiter lets through; the rest is room for rounding
BLOCK = 256  # samples (6 ms): the limiter's grain
LIMITER_BLOCKS = 40  # the limiter begins to turn down, and is back, 2 * 40 blocks (0.46 s) away from a peak

PIANO = ASSETS / "piano"
RELEASE, DAMPING = 0.5, 0.07  # seconds: what is left of a tone after its key is let go, and its time constant
CUT = 0.01  # seconds in which a recording ends that is longer than the note

SOUNDFONT_GAIN = 6.0  # dB; one loud note of a General MIDI piano then peaks near 0.25
FADE = 0.1  # seconds: soundfonts may ring longer than the tail


def synthesise(roll: PianoRoll, soundfont: str | Path | None = None) -> tuple[Sound, int]:
    """Sound of a roll: float32 (samples, 2), left and right in -1 to 1, and the sampling rate, 44,100 Hz.

    Notes are those of ``roll.to_midi``: an orphan hold is struck where it begins, at the middle velocity.  They begin
    and end at the seconds that the roll's tempi give, and ``TAIL`` seconds follow the last step.  ``soundfont`` is a
    .sf2 or .sf3 file, of which the first piano is taken (bank 0, preset 0; where there is none, the first preset);
    without one the sampled piano plays.  Loud passages are turned down smoothly: no sample passes full scale.

    Raises:
        UserError: the soundfont cannot be used (see :func:`check_soundfont`), or the piece is longer than an hour.
    """
    if soundfont is not None:
        check_soundfont(soundfont)
    if roll.seconds > MAX_SECONDS:
        raise UserError(f"the piece lasts {roll.seconds:,.0f} s; sound is made for {MAX_SECONDS:,.0f} s at most")
    notes = roll.notes()
    start = _samples(roll.time_of(notes["start"]))
    stop = np.maximum(_samples(roll.time_of(notes["start"] + notes["duration"])), start + 1)
    velocity = midi_velocity(notes["velocity"], roll.velocity_bins)
    played = (notes["pitch"].astype(np.int64), start, stop, velocity)
    length = int(_samples(roll.seconds + TAIL))
    sound = np.zeros((-(-length // BLOCK) * BLOCK, 2), np.float32)  # whole blocks, for the limiter
    if soundfont is None:
        _play_piano(sound[:length], played)
    elif len(notes):
        _play_soundfont(sound[:length], played, Path(soundfont))
    _limit(sound)
    return sound[:length], RATE


def save_wav(roll: PianoRoll, path: str | Path, soundfont: str | Path | None = None) -> None:
    """Write :func:`synthesise`'s sound as 16-bit PCM stereo; the file appears whole or not at all.

    Raises:
        UserError: the file cannot be written, or as :func:`synthesise` says.
    """
    sound, rate = synthesise(roll, soundfont)
    np.rint(np.multiply(sound, 32_767, out=sound), out=sound)  # in place, since an hour fills a gigabyte
    with replacing(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setparams((2, 2, rate, len(sound), "NONE", "not compressed"))
        file.writeframes(sound.astype(np.int16).data)


def check_soundfont(path: str | Path) -> None:
    """Refuse what cannot be played, before any work is done.

    Raises:
        UserError: one line that names the flag, the file and the reason: missing, no soundfont, truncated, or the
            library that plays soundfonts is not installed.
    """
    try:
        with Path(path).open("rb") as file:
            reason = _damage(file)
    except OSError as error:
        raise UserError(f"--soundfont {path}: cannot be read ({error.strerror or error})") from error
    if reason:
        raise UserError(f"--soundfont {path}: {reason}")
    _library()


def _damage(file: BinaryIO) -> str:
    """Why a file is no soundfont, or nothing: a RIFF file of the form "sfbk" with the lists INFO, sdta and pdta.

    Source: SoundFont Technical Specification 2.04 (E-mu Systems, 2006), section 4.
    """
    header = file.read(12)
    if header[:4] != b"RIFF" or header[8:] != b"sfbk":
        return "no soundfont (it does not begin with RIFF and sfbk)"
    said, size = int.from_bytes(header[4:8], "little") + 8, file.seek(0, 2)
    if said > size:
        return f"truncated (its header says {said:,} bytes, the file has {size:,})"
    found, position = [], 12
    while position + 12 <= said:
        file.seek(position)
        chunk = file.read(12)
        found += [chunk[8:]] if chunk[:4] == b"LIST" else []
        position += 8 + int.from_bytes(chunk[4:8], "little")
    missing = [name.decode() for name in (b"INFO", b"sdta", b"pdta") if name not in found]
    return f"damaged soundfont (without {', '.join(missing)})" if missing else ""


def _library() -> Any:
    try:
        return import_module("tinysoundfont")
    except ImportError as error:
        # What it asks for beside, pyaudio, only plays through loudspeakers, and must be compiled on Linux.
        hint = "pip install --no-deps tinysoundfont"
        raise UserError(
            f"--soundfont: needs the library tinysoundfont ({hint}); without the flag nothing is needed"
        ) from error


def _play_soundfont(sound: Sound, notes: Played, path: Path) -> None:
    """Fill ``sound`` (samples, 2): switch keys at their samples and let the library render what lies between."""
    pitch, start, stop, velocity = notes
    synth = _library().Synth(gain=SOUNDFONT_GAIN, samplerate=RATE)
    try:
        font = synth.sfload(str(path))
        presets = (place for place in product(range(128), range(128)) if synth.sfpreset_name(font, *place) is not None)
        synth.program_select(0, font, *next(presets))
    except (RuntimeError, StopIteration) as error:
        raise UserError(f"--soundfont {path}: damaged, or without instruments ({error or 'no preset'})") from error
    # At one sample keys are let go before keys are struck: what is struck again must not be cut at once.
    events = np.r_[np.c_[stop, np.zeros_like(stop), pitch], np.c_[start, velocity, pitch]]
    events = events[np.lexsort(events.T[::-1])]
    now = 0
    for sample, loud, key in tqdm(events.tolist(), "sound", unit="event", disable=None, delay=1, leave=False):
        if sample > now:
            synth.generate(sample - now, sound[now:sample].data.cast("B"))
            now = sample
        if loud:
            synth.noteon(0, key, loud)
        else:
            synth.noteoff(0, key)
    synth.generate(len(sound) - now, sound[now:].data.cast("B"))
    fade = int(FADE * RATE)
    sound[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)[:, None]


def _play_piano(sound: Sound, notes: Played) -> None:
    """Add the notes to ``sound`` (samples, 2); each tone (a pitch, a brightness) is made once, for its longest note.

    Amplitude is the square of a line in velocity (Dannenberg, "The interpretation of MIDI velocity", 2006), here over
    40 dB.
    """
    pitch, start, stop, velocity = notes
    samples = json.loads((PIANO / "samples.json").read_text(encoding="utf-8"))["notes"]
    recorded = np.array([sample["pitch"] for sample in samples])
    release = np.arange(int(RELEASE * RATE), dtype=np.float32) / np.float32(RATE)
    release = np.exp(-release / DAMPING) * (1 - release / RELEASE)
    hammer = (velocity // 8 * 8 + 4) / 127  # sixteen kinds of brightness are as good as all
    loudness = ((0.1 + 0.9 * velocity / 127) ** 2).astype(np.float32)
    for key in tqdm(np.unique(pitch).tolist(), "sound", unit="key", disable=None, delay=1, leave=False):
        nearest = samples[np.abs(recorded - key).argmin()]
        spectrum, length = _spectrum(nearest, key, int((stop - start)[pitch == key].max()) + len(release))
        frequency = np.arange(length // 2 + 1, dtype=np.float32) * np.float32(RATE / length)
        for force in np.unique(hammer[pitch == key]):
            tone = np.fft.irfft(spectrum * _brightness(frequency, key, force), length)
            for note in np.flatnonzero((pitch == key) & (hammer == force)):
                held = stop[note] - start[note]
                piece = tone[:, : held + len(release)] * loudness[note]
                piece[:, held:] *= release[: max(0, piece.shape[1] - held)]
                for side in (0, 1):  # ten times as fast as both at once, which makes many small vectors of two
                    sound[start[note] : start[note] + piece.shape[1], side] += piece[side]


def _spectrum(sample: dict[str, Any], pitch: int, longest: int) -> tuple[NDArray[np.complex64], int]:
    """Of a recording at another pitch, ``longest`` samples or as many as it has: spectrum (2, bins), and the length.

    Tones end after ``longest``, or with the recording, in silence: so that their spectrum may stand for all time.
    """
    import soundfile

    ratio = Fraction(2 ** ((pitch - sample["pitch"]) / 12)).limit_denominator(40)  # a semitone, 18/17, to a cent
    with soundfile.SoundFile(PIANO / sample["file"]) as file:
        longest = min(longest, int(file.frames / ratio))
        grain = 1 << max(0, longest.bit_length() - 9)  # lengths of small factors have fast transforms
        parts = -(-(longest + int(CUT * RATE)) // (ratio.denominator * grain)) * grain
        content = file.read(parts * ratio.numerator, dtype="float32", fill_value=0)
    content[-int(CUT * RATE) :] *= np.linspace(1, 0, int(CUT * RATE), dtype=np.float32)[:, None]
    length = parts * ratio.denominator
    spectrum = np.fft.rfft(content.T)[:, : length // 2 + 1] * np.float32(sample["gain"] / ratio)
    return np.pad(spectrum, ((0, 0), (0, length // 2 + 1 - spectrum.shape[1]))), length


def _brightness(frequency: NDArray[np.float32], pitch: int, force: float) -> NDArray[np.complex64]:
    """What a hammer of force 0 to 1 excites at frequencies in Hz: two low passes of the first order."""
    corner = (600 + 880 * 2 ** ((pitch - 69) / 12)) * 2 ** (4.5 * force)
    return 1 / (1 + frequency * np.complex64(1j / corner)) ** 2


def _limit(sound: Sound) -> None:
    """Turn ``sound`` (whole blocks, 2) down in place around the peaks above ``CEILING``, smoothly, and only there.

    The gain at a block's edge is a weighted mean of minima, each taken over a window that holds every block whose
    gain this edge shares: so it is never above what the block itself needs.
    """
    blocks = sound.reshape(-1, BLOCK * 2)
    peak = np.maximum(blocks.max(axis=1), -blocks.min(axis=1))
    if peak.max() <= CEILING:
        return
    wide = LIMITER_BLOCKS
    needed = np.pad(np.minimum(1.0, CEILING / np.maximum(peak, CEILING)), 2 * wide, constant_values=1.0)
    lowest = np.lib.stride_tricks.sliding_window_view(needed, 2 * wide).min(axis=1)
    weights = np.hanning(2 * wide + 1)[1:-1]
    edges = np.convolve(lowest, weights / weights.sum(), "valid")[1:-1].astype(np.float32)
    ramp = np.arange(BLOCK, dtype=np.float32) / BLOCK
    gain = edges[:-1, None] + np.diff(edges)[:, None] * ramp
    sound *= gain.reshape(-1, 1)
    np.clip(sound, -1.0, 1.0, out=sound)  # rounding only


def _samples(seconds: Any) -> Ints:
    return np.rint(np.asarray(seconds) * RATE).astype(np.int64)
