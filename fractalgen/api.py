"""FractalGen as users of Python know it: load a model, compose, continue, fill, accompany, vary."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, Unpack, overload

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fractalgen.config import DEFAULT_MODEL, CfgSchedule, ConfigError, SamplingConfig
from fractalgen.errors import UserError, python_terms
from fractalgen.music import MAX_STEPS
from fractalgen.music.bars import parse_meter
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.planning import natural_bars, steps_to_form
from fractalgen.music.selection import bars_to_steps, parse_rectangle, score_bars
from fractalgen.music.tasks import (
    Plane,
    Side,
    Task,
    Voice,
    accompaniment,
    continuation,
    inpainting,
    variation,
    whole_patches,
)
from fractalgen.music.tokens import steps_of_bars
from fractalgen.pretrained import PretrainedModel
from fractalgen.sampling import sample_rolls
from fractalgen.trace import Intermediates, Trace
from fractalgen.wishes import Wishes, compose_wishes


class FractalGen(PretrainedModel):
    """A model to compose with; :class:`PretrainedModel` loads, saves and shares it."""

    def sample(
        self,
        batch_size: int = 1,
        cond_list: Sequence[Int[Tensor, " b"]] | None = None,
        num_iter_list: Sequence[int] = SamplingConfig.num_iter_list,
        cfg: float = SamplingConfig.cfg,
        cfg_schedule: CfgSchedule = SamplingConfig.cfg_schedule,
        temperature: float | tuple[float, ...] = SamplingConfig.temperature,
        filter_threshold: float = SamplingConfig.filter_threshold,
        return_intermediates: bool = False,
        *,
        width: int | None = None,
        known: Int[Tensor, "b p t"] | None = None,
        window: int | None = None,
        allowed: Bool[Tensor, "p t"] | None = None,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
        **sampling: Any,
    ) -> tuple[Int[Tensor, "b p t"], Intermediates | None]:
        """Draw rolls of tokens, see :func:`fractalgen.sampling.sample_rolls`.

        ``num_iter_list`` to ``filter_threshold`` and ``sampling`` are the fields of
        :class:`fractalgen.config.SamplingConfig`.
        """
        settings = SamplingConfig(
            num_iter_list=tuple(num_iter_list),
            cfg=cfg,
            cfg_schedule=cfg_schedule,
            temperature=temperature,
            filter_threshold=filter_threshold,
            **sampling,
        )
        return sample_rolls(
            self,
            self.fit(settings),
            batch_size,
            cond_list,
            return_intermediates=return_intermediates,
            width=width,
            known=known,
            window=window,
            allowed=allowed,
            generator=generator,
            progress=progress,
        )

    @overload
    def generate(
        self,
        num_samples: int = ...,
        *,
        bars: float | None = ...,
        width: int | None = ...,
        tempo: float | None = ...,
        meter: str | None = ...,
        return_trace: Literal[False] = ...,
        **wishes: Unpack[Wishes],
    ) -> list[PianoRoll]: ...
    @overload
    def generate(
        self,
        num_samples: int = ...,
        *,
        bars: float | None = ...,
        width: int | None = ...,
        tempo: float | None = ...,
        meter: str | None = ...,
        return_trace: Literal[True],
        **wishes: Unpack[Wishes],
    ) -> tuple[list[PianoRoll], list[Trace]]: ...
    def generate(
        self,
        num_samples: int = 1,
        *,
        bars: float | None = None,
        width: int | None = None,
        tempo: float | None = None,
        meter: str | None = None,
        return_trace: bool = False,
        **wishes: Unpack[Wishes],
    ) -> list[PianoRoll] | tuple[list[PianoRoll], list[Trace]]:
        """Compose pieces from nothing.

        Args:
            num_samples: number of pieces.
            bars: length in bars (default: of the form, or as many as the model was trained on).
            width: length in time steps instead; without bar columns whole patches.
            meter: time signature, such as ``"3/4"``, for models whose columns are bars (default: 4/4).
            tempo: quarter notes a minute; models that know tempi are asked for it (default: 120, not asked for).
            return_trace: also return how each piece was composed.
            wishes: see :class:`Wishes`.

        Raises:
            ConfigError, UserError: settings or wishes that the model cannot serve.
        """
        with python_terms():
            if bars is not None and width is not None:
                raise ConfigError(f"bars {bars} and width {width}: give only one length")
            if tempo is not None and not 4 <= tempo <= 1000:
                raise ConfigError(f"tempo {tempo}: must be from 4 to 1000")
            beats, unit = (4, 4) if meter is None else parse_meter(meter)
            form, chords = wishes.get("form"), wishes.get("chords")
            if width is None and bars is None and (self.config.bar_columns or form is not None):
                bars = natural_bars(form, chords, self.config.columns)
            length = self._steps(bars, beats, unit) if bars is not None else width
            whole = self.config.bar_columns or length is None or bars is None
            padded = length if whole else whole_patches(length or 0, self.config.column)
            asked = {} if meter is None else {"meter": meter}
            meters = ((0, beats, unit),)
            rolls, traces = compose_wishes(
                self, num_samples, wishes, tempo, asked=asked, width=padded, meters=meters, return_trace=return_trace
            )
        rolls = [replace(roll, tokens=roll.tokens[:, :length]) for roll in rolls]
        return (rolls, traces) if return_trace else rolls

    def continue_(
        self,
        roll: PianoRoll,
        *,
        bars: float | None = None,
        after: int | None = None,
        num_samples: int = 1,
        **wishes: Unpack[Wishes],
    ) -> list[PianoRoll]:
        """Continue a piece: keep its first ``after`` bars (default: all) and compose ``bars`` more.

        The default of ``bars`` is the length trained on.  Tempo and meter continue.  Returns whole pieces, the given
        beginning included.  ``wishes``: see :class:`Wishes`.

        Raises:
            UserError: a length that cannot be, or wishes that the model cannot serve.
        """
        with python_terms():
            steps = roll.width if after is None else bars_to_steps(roll, after, "after")
            _, beats, unit = [meter for meter in roll.time_signatures if meter[0] <= steps][-1]
            length = self.config.crop_length if bars is None else self._steps(bars, beats, unit)
            if bars is None and (form := wishes.get("form")) is not None:
                length = steps_to_form(form, roll.time_signatures, steps, self.config.steps_per_quarter)
                if length < 1:
                    raise ConfigError(f"form {form}: ends within the given beginning")
            task = continuation(roll, steps, length, self.config.column, "roll" if after is None else f"after {after}")
            template = replace(
                roll,
                tempos=tuple(event for event in roll.tempos if event[0] < steps),
                time_signatures=tuple(event for event in roll.time_signatures if event[0] <= steps),
            )
            return self._compose_task(task, template, num_samples, wishes, complete=True)

    def inpaint(
        self,
        roll: PianoRoll,
        *,
        bars: str | Sequence[str] = (),
        mask: str | Sequence[str] | Plane = (),
        num_samples: int = 1,
        **wishes: Unpack[Wishes],
    ) -> list[PianoRoll]:
        """Compose parts of a piece anew, given all the rest.

        ``bars``: as on a score, counted from 1 with the last one included: ``"5-8"`` or ``["1", "5-8"]``.  ``mask``:
        rectangles as ``"time=64:128,pitch=C4:"`` (steps from 0, the end excluded), or bool (128, T).

        Raises:
            UserError: a region that cannot be, or wishes that the model cannot serve.
        """
        with python_terms():
            if isinstance(mask, np.ndarray):
                if mask.shape != roll.tokens.shape or mask.dtype != np.bool_:
                    raise UserError(f"mask: {mask.dtype} {mask.shape}, the roll needs bool {roll.tokens.shape}")
                regions: list[Plane] = [mask]
            else:
                regions = [parse_rectangle(text, roll, "mask") for text in _texts(mask)]
            if bars:
                regions.append(score_bars(_texts(bars), roll, "bars"))
            task = inpainting(roll, regions, self.config.column)
            return self._compose_task(task, roll, num_samples, wishes)

    def accompany(
        self,
        roll: PianoRoll,
        *,
        voice: Voice = "highest",
        side: Side = "below",
        bars: str | Sequence[str] = (),
        num_samples: int = 1,
        **wishes: Unpack[Wishes],
    ) -> list[PianoRoll]:
        """Keep one voice of a piece and compose what lies below or above it.

        ``bars``: only in these bars, written as in :meth:`inpaint`.  ``voice``: ``"highest"``, ``"lowest"``, or
        ``"all"`` where the roll is the voice alone.

        Raises:
            UserError: nothing to accompany, or wishes that the model cannot serve.
        """
        with python_terms():
            self.check_sees_future("accompany")
            within = score_bars(_texts(bars), roll, "bars") if bars else None
            task = accompaniment(roll, voice, side, self.config.column, within)
            return self._compose_task(task, roll, num_samples, wishes, ends=False)

    def vary(
        self,
        roll: PianoRoll,
        *,
        strength: float = 0.3,
        bars: str | Sequence[str] = (),
        num_samples: int = 1,
        **wishes: Unpack[Wishes],
    ) -> list[PianoRoll]:
        """Compose a share ``strength`` of a piece's patches anew; ``seed`` decides which.

        ``bars``: only in these bars, written as in :meth:`inpaint`.

        Raises:
            UserError: a share that cannot be, or wishes that the model cannot serve.
        """
        with python_terms():
            self.check_sees_future("vary")
            within = score_bars(_texts(bars), roll, "bars") if bars else None
            chance = np.random.default_rng(wishes.get("seed"))
            task = variation(roll, strength, chance, (self.config.patch, self.config.column), within)
            return self._compose_task(task, roll, num_samples, wishes)

    def check_sees_future(self, asked: str) -> None:
        """Refuse what needs given music that comes later, as accompanying does.

        Raises:
            UserError: names what was ``asked``.
        """
        if not self.config.sees_future:
            raise UserError(
                f"{asked}: {self.checkpoint_id} is autoregressive and cannot use given music that comes later;"
                f" use --model {DEFAULT_MODEL}, or train with --reveal_share"
            )

    def _steps(self, bars: float, beats: int = 4, unit: int = 4) -> int:
        """Time steps of so many bars."""
        if not math.isfinite(bars):
            raise ConfigError(f"bars {bars}: must be a number")
        steps = steps_of_bars(bars, self.config.steps_per_quarter, beats, unit)
        if not 1 <= steps <= MAX_STEPS:
            raise ConfigError(f"bars {bars}: must be more than 0, and at most {MAX_STEPS:,} time steps")
        return steps

    def _compose_task(
        self,
        task: Task,
        template: PianoRoll,
        num_samples: int,
        wishes: Wishes,
        *,
        complete: bool = False,
        ends: bool = True,
    ) -> list[PianoRoll]:
        """The pieces of a task, in the tempi and meters of ``template``.

        ``complete``: their plans are drawn; ``ends``: they are told of their end.
        """
        config = self.config
        if (template.velocity_bins, template.steps_per_quarter) != (config.velocity_bins, config.steps_per_quarter):
            raise ConfigError(
                f"a roll of {template.steps_per_quarter} steps a quarter and {template.velocity_bins} velocity bins:"
                f" this model has {config.steps_per_quarter} and {config.velocity_bins}"
            )
        known = task.known[:, : task.width] if config.bar_columns else task.known
        meters = template.time_signatures
        rolls, _ = compose_wishes(self, num_samples, wishes, known=known, meters=meters, ends=ends, complete=complete)
        return [replace(template, tokens=roll.tokens[:, : task.width]) for roll in rolls]


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def load_pretrained(
    name_or_path: str | os.PathLike[str] | None = None, device: str | torch.device = "cpu"
) -> FractalGen:
    """The model of a checkpoint, see :meth:`FractalGen.load`."""
    return FractalGen.load(name_or_path, device)
