"""Settings of ``fractalgen generate``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fractalgen.config.fields import DEFAULT_MODEL, Groups, Pedal, View, setting
from fractalgen.config.render import PICTURES, RenderConfig
from fractalgen.config.sampling import SamplingConfig


@dataclass(frozen=True)
class GenerateConfig(SamplingConfig, RenderConfig):
    """``fractalgen generate``: what to compose and what to write."""

    groups: ClassVar[Groups] = {
        "most used": (
            *("mode", "condition_midi", "input_midi", "compose_bars", "bars", "key", "chords", "form"),
            *("num_samples", "seed", "save_gif", "output_dir"),
        ),
        "model": ("model", "checkpoint", "device", "threads", "batch_size", "scheduler"),
        "given music": (
            *("condition_bars", "condition_length", "pedal", "mask", "mask_start", "mask_end"),
            *("voice", "side", "strength", "lead_sheet"),
        ),
        "length": ("seconds", "target_width", "generation_length"),
        "labels, for models that were trained with them": (
            *("density", "polyphony", "register", "velocity", "tempo", "style", "meter"),
        ),
        "limits": ("scale", "pitch_range", "max_polyphony", "silence"),
        "sampling": (
            *("temperature", "plan_temperature", "filter_threshold", "cfg", "cfg_schedule", "candidates"),
            *("best_of", "quality", "num_iter_list", "mar_order", "batch_generate_size"),
        ),
        "files": (
            *("save_html", "save_mp4", "save_wav", "save_musicxml", "soundfont", "page_piano", "save_trace"),
            *("save_frames", "hands", "gif_view", "gif_samples", "record_interval"),
            *("overwrite", "resume", "like", "sample"),
        ),
        "pictures": PICTURES,
    }

    model: str | None = setting(None, f"name of a shipped model, or hf://owner/name (default: {DEFAULT_MODEL})")
    checkpoint: str | None = setting(None, "your own model instead: .ckpt, .safetensors or the folder of a saved model")
    mode: Literal["unconditional", "conditional", "inpainting", "accompany", "variation"] = setting(
        "unconditional",
        "unconditional: from nothing; conditional: continue a piece; inpainting: fill gaps; accompany: keep one voice;"
        " variation: compose random parts anew",
    )
    num_samples: int = setting(1, "number of pieces", low=1)
    best_of: int | None = setting(
        None,
        "candidates for each piece; the model's critic keeps the one that is most like songs (default: 4 if the model"
        " has a critic, else 1)",
        low=1,
        high=64,
    )
    quality: Literal["fast", "balanced", "best"] | None = setting(
        None,
        "models with MAR levels (pop909-mar): 4, 8 or 32 iterations at L0, in place of --num_iter_list",
        instead_of="num_iter_list",
    )
    # what is given
    condition_midi: str | None = setting(None, "conditional: MIDI file to continue")
    condition_length: int | None = setting(None, "conditional: keep its first time steps (default: all)")
    condition_bars: int | None = setting(None, "conditional: keep its first bars (default: all)")
    input_midi: str | None = setting(None, "inpainting, accompany, variation: MIDI file")
    pedal: Pedal = setting(
        "follow", "given music: notes sound while the sustain pedal is down (follow) or only while the key is (ignore)"
    )
    mask_start: int | None = setting(None, "inpainting: first time step to compose")
    mask_end: int | None = setting(None, "inpainting: time step after the last one to compose")
    mask: tuple[str, ...] = setting(
        (),
        "inpainting, accompany, variation: rectangles to compose, as time=64:192,pitch=C4:C6 or bars=4:8 (from 0, the"
        " end excluded)",
        repeat=True,
    )
    compose_bars: tuple[str, ...] = setting(
        (), "inpainting, accompany, variation: bars to compose as numbered on a score: 5-8 12"
    )
    voice: str | None = setting(
        None,
        "accompany: voice to keep: highest, lowest, all, melody, right, left (hand), or track:N, a word as for `prepare"
        " --tracks` (default: highest, or the melody of a lead sheet)",
    )
    lead_sheet: str | None = setting(
        None,
        "accompany: a MIDI file with a melody and chords as markers, or a text file of chords beside --input_midi",
    )
    side: Literal["below", "above"] = setting("below", "accompany: compose below or above that voice")
    strength: float = setting(0.3, "variation: share of the patches to compose anew (above 0, at most 1)")
    # how long
    target_width: int | None = setting(None, "length in time steps (default: the model's crop length)")
    bars: float | None = setting(
        None,
        "length in bars, of the given music's meter if there is one, else of four quarters (default: those of --form;"
        " else 16, or those of --chords if there are more)",
    )
    seconds: float | None = setting(None, "length in seconds")
    generation_length: int | None = setting(None, "conditional: time steps to compose after the beginning")
    # the plan, for models that know plans
    chords: str | None = setting(
        None,
        'chords, such as "C G/B Am F" (a bar each) or "C G/B | Am F" (bar lines: they share a bar); %: as the bar'
        " before, .: as the chord before, ?: as the model likes; repeated to the end",
    )
    form: str | None = setting(None, 'sections and their bars, such as "A8 A8 B8 A8": a name that returns comes back')
    # what it is to be like, where the model was trained with such labels
    key: str | None = setting(
        None,
        "A minor, F# major ..., or free for none (default: the key of --scale or of the given music; without either a"
        " random key for each piece)",
    )
    density: str | None = setting(
        None,
        "notes per bar; values from 0 to 1 are percentiles of the training set, values above 1 are numbers (default:"
        " left open; accompany under given chords: 0.6)",
    )
    polyphony: str | None = setting(
        None,
        "average number of notes that sound together; percentile or number (default: left open; accompany under given"
        " chords: 0.7)",
    )
    register: str | None = setting(None, "average MIDI pitch; percentile or number")
    velocity: str | None = setting(None, "average MIDI velocity; percentile or number")
    style: str | None = setting(None, "a style of the training set")
    meter: str | None = setting(
        None,
        "time signature, such as 3/4 or 6/8, for models whose columns are bars (default: 4/4; given music: its own)",
    )
    # what may sound
    pitch_range: str | None = setting(None, "pitches that may be composed: 48:84 or C3:C6 (the end excluded)")
    scale: str | None = setting(None, "pitch classes that may be composed: A minor, D dorian, or C D E G A")
    silence: tuple[str, ...] = setting((), "rectangles that stay silent, written as for --mask", repeat=True)
    output_dir: str = setting("outputs/generated", "folder for all files")
    overwrite: bool = setting(False, "number the pieces from 0 and replace older ones (default: continue the numbers)")
    resume: bool = setting(
        False,
        "go on where the same command with the same --seed was interrupted: pieces are numbered from 0, and those that"
        " are there with all their neighbours of a part (256 pieces) are not composed again",
    )
    like: str | None = setting(
        None, "a MIDI file that was composed: use its seed, model and flags again; flags given here override them"
    )
    sample: int | None = setting(None, "write only this one of the pieces, counted from 0")
    seed: int | None = setting(
        None, "the same seed gives the same files (default: a random one, which is printed)", low=0, high=2**63 - 1
    )
    device: str = setting("auto", "cpu, cuda, cuda:1, mps, or auto (cuda if there is one, else cpu)")
    tempo: float | None = setting(
        None,
        "quarter notes per minute, for the label of models that know it and for the MIDI file; given music keeps its"
        " own tempo (default: 120)",
        low=4,
        high=1000,
    )
    # Sampling defaults of its own, chosen on validation songs (docs/experiments.md); 1 and 0: the model itself.
    cfg: float | None = setting(  # type: ignore[assignment]  # a number as soon as the model is known
        None,
        "classifier-free guidance scale: uncond + cfg * (cond - uncond); 1 is no guidance (default: 2 for models with"
        " plans, 4 where they accompany under given chords, 1 for others)",
        low=0,
        high=1000,
    )
    plan_temperature: float = setting(
        0.8, "models with plans: divisor of the logits of chords and returns; below 1 is more usual", low=0.01, high=100
    )
    filter_threshold: float = setting(
        0.01, "exclude choices whose probability is below this value (0: exclude none)", low=0, high=1
    )
    batch_size: int = setting(8, "samples that are generated together", low=1)
    scheduler: str | None = setting(
        None, "address of a Dask scheduler whose workers compose (tcp://HOST:8786), see docs/distributed.md"
    )
    hands: bool = setting(False, "write the two hands on two tracks of the MIDI file")
    save_gif: bool = setting(False, "write the process GIF")
    save_mp4: bool = setting(False, "write the process as an MP4 film with the music at its end")
    save_trace: bool = setting(False, "write the trace (.npz), from which `fractalgen render` draws any picture later")
    save_frames: bool = setting(False, "write every frame as a numbered PNG file")
    save_html: bool = setting(False, "write a page that plays the process and the music in a browser")
    save_wav: bool = setting(False, "write the sound")
    save_musicxml: bool = setting(False, "write a score on two staves, for notation programs (MusicXML)")
    gif_view: View = setting("process", "view of the animations, see `fractalgen render --help`")
    gif_samples: str = setting("first", "samples that get a GIF, MP4 and frames: first, all or a number")
