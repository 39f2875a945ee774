"""``fractalgen render``: draw saved traces again, with other settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from fractalgen.config import RenderCommandConfig
from fractalgen.errors import UserError
from fractalgen.render.animations import Film, film, write_apng, write_gif, write_webp
from fractalgen.render.compare import names_of, side_by_side, stem_of
from fractalgen.render.settings import check_settings
from fractalgen.render.stills import join, poster_pixels, save_pixels, write_frames, write_last
from fractalgen.render.video import WIDEST, check_ffmpeg, write_mp4, write_music_mp4
from fractalgen.trace import Trace
from fractalgen.trace.views import Frames

ENDINGS = {
    "gif": ".gif",
    "mp4": ".mp4",
    "webp": ".webp",
    "apng": ".apng",
    "png": ".png",
    "poster": "_poster.png",
    "frames": "_frames",
    "html": ".html",
}
Writer = Callable[[Film, Path], None]


def run_render(cfg: RenderCommandConfig) -> None:
    """Draw every trace into a file of its own, or all of them into one animation.

    Raises:
        UserError: a setting, a file or a combination of them that cannot work; nothing has been drawn then.
    """
    check_settings(cfg)
    if cfg.format not in ENDINGS:
        raise UserError(f"--format {cfg.format}: choose one of {', '.join(ENDINGS)}")
    if cfg.format == "mp4":
        check_ffmpeg()
    for flag, given in ((f"--soundfont {cfg.soundfont}", cfg.soundfont), ("--silent", cfg.silent)):
        if given and (cfg.format != "mp4" or cfg.side_by_side):
            what = "--side_by_side" if cfg.side_by_side else f"--format {cfg.format}"
            raise UserError(f"{flag}: belongs to --format mp4 of one trace; {what} has no sound")
    if cfg.page_piano == "full" and cfg.format != "html":
        raise UserError(f"--page_piano full: belongs to --format html; --format {cfg.format} has no page")
    if cfg.soundfont and cfg.silent:
        raise UserError(f"--soundfont {cfg.soundfont} and --silent: give only one of them")
    if cfg.soundfont:
        from fractalgen.render.sound import check_soundfont

        check_soundfont(cfg.soundfont)
    if not cfg.traces:
        raise UserError("--traces: name at least one .trace.npz file")
    targets = _targets(cfg)
    runs = [(path, Trace.load(path)) for path in cfg.traces]
    if cfg.no_gif_plan:
        runs = [(path, trace.without_plan()) for path, trace in runs]
    frames = [_frames(cfg, *run) for run in runs]
    if cfg.side_by_side:
        count = _draw_together(cfg, list(zip(names_of(cfg.traces), frames, strict=True)), targets[0])
        print(f"{targets[0]}: {count} frames")
        return
    for (_, trace), shown, target in zip(runs, frames, targets, strict=True):
        _draw(cfg, trace, shown, target)
        print(f"{target}: {len(shown)} frames")


def _frames(cfg: RenderCommandConfig, path: str, trace: Trace) -> Frames:
    """What is shown of a trace."""
    try:
        return trace.frames(cfg.view, cfg.record_interval, cfg.gif_max_frames)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _targets(cfg: RenderCommandConfig) -> list[Path]:
    """The files to write: one for each trace, or one for all."""
    ending = f"_{cfg.view}{ENDINGS[cfg.format]}"
    suffix = Path(cfg.out or "").suffix.lower()
    files = {Path(f"a{end}").suffix for end in ENDINGS.values()} - {""}
    if suffix in files and cfg.format != "frames" and suffix != Path(f"a{ENDINGS[cfg.format]}").suffix:
        raise UserError(f"--out {cfg.out}: --format {cfg.format} ends in {ENDINGS[cfg.format]}")
    if cfg.side_by_side:
        if len(cfg.traces) < 2:
            raise UserError(f"--side_by_side: needs at least two traces, not {len(cfg.traces)}")
        if cfg.format == "html":
            raise UserError("--side_by_side: --format html shows one trace; choose another format")
        name = "_vs_".join(stem_of(path) for path in cfg.traces)[:150]
        return [Path(cfg.out) if cfg.out else Path(cfg.traces[0]).with_name(name + ending)]
    targets = [Path(path).with_name(stem_of(path) + ending) for path in cfg.traces]
    where = str(targets[0])
    if cfg.out:
        where, out = f"--out {cfg.out}", Path(cfg.out)
        if len(targets) == 1:
            return [out]
        if out.is_file() or suffix in ENDINGS.values():
            raise UserError(f"{where}: {len(targets)} traces are drawn into a folder (or --side_by_side into one file)")
        targets = [out / path.name for path in targets]
    if len(set(targets)) < len(targets):
        raise UserError(f"{where}: traces of the same name would overwrite each other; draw one at a time")
    return targets


def _draw(cfg: RenderCommandConfig, trace: Trace, frames: Frames, path: Path) -> None:
    """One trace."""
    if cfg.format == "html":
        from fractalgen.render.page import save_html

        save_html(trace, path, cfg, view=cfg.view)
    elif cfg.format == "poster":
        save_pixels(*poster_pixels(frames, cfg), path)
    elif cfg.format == "mp4" and not cfg.silent:
        write_music_mp4(frames, path, cfg, trace.roll)
    else:
        _writer(cfg)(film(frames, cfg, WIDEST if cfg.format == "mp4" else 0), path)


def _draw_together(cfg: RenderCommandConfig, runs: Sequence[tuple[str, Frames]], path: Path) -> int:
    """Several traces; the number of frames."""
    if cfg.format == "poster":
        tinted = any(frames[-1].known is not None for _, frames in runs)
        posters = [poster_pixels(frames, cfg, name, tinted) for name, frames in runs]
        save_pixels(join([pixels for pixels, _ in posters], 2 * cfg.gif_font_size), posters[0][1], path)
        return max(len(frames) for _, frames in runs)
    pictures = side_by_side(runs, cfg)
    if cfg.format == "mp4":  # as large as fits, and in windows only where even two pixels a cell are too many
        scales = range(cfg.gif_scale, 1, -1)
        sizes = (side_by_side(runs, replace(cfg, gif_scale=scale)) for scale in scales)
        pictures = next((film for film in sizes if film.width <= WIDEST), None) or side_by_side(runs, cfg, WIDEST)
    _writer(cfg)(pictures, path)
    return pictures.length


def _writer(cfg: RenderCommandConfig) -> Writer:
    """What writes a film in the format asked for."""
    timed = {"gif": write_gif, "apng": write_apng, "webp": write_webp, "mp4": write_mp4}
    if cfg.format in timed:
        return partial(timed[cfg.format], rate=cfg.gif_fps)
    return {"png": write_last, "frames": write_frames}[cfg.format]
