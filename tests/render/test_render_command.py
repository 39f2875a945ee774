"""``fractalgen render``: formats, several traces, and mistakes, each told in one line before anything is drawn."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fractalgen import render
from fractalgen.config import RenderCommandConfig, RenderConfig
from fractalgen.errors import UserError
from fractalgen.render.canvas import Canvas
from fractalgen.render.colours import RAMP, palette
from fractalgen.render.command import ENDINGS
from fractalgen.render.compare import names_of, side_by_side
from tests import decoding
from tests.decoding import decoded
from tests.render.test_render_files import needs_ffmpeg, with_chances
from tests.trace.test_trace import made_up

PLAIN = RenderConfig()
FORMS = [pytest.param(form, marks=needs_ffmpeg) if form == "mp4" else form for form in ENDINGS]


def saved(folder: Path, *names: str, width: int = 16) -> tuple[str, ...]:
    """Trace files, each of another roll."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        made_up(seed, width=width * (seed + 1)).save(folder / f"{name}.trace.npz")
    return tuple(str(folder / f"{name}.trace.npz") for name in names)


def run(*traces: str, **settings: Any) -> None:
    """The command."""
    render.run_render(RenderCommandConfig(traces=traces, **settings))


@pytest.mark.parametrize("form", FORMS)
def test_every_format(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "piece.trace.npz"
    with_chances().save(path)
    run(str(path), format=form, view="hierarchical")
    out = tmp_path / f"piece_hierarchical{ENDINGS[form]}"
    assert out.exists()
    assert capsys.readouterr().out == f"{out}: 9 frames\n"
    content = out.read_bytes() if out.is_file() else b""
    signs = {"gif": b"GIF89a", "webp": b"RIFF", "apng": b"\x89PNG", "png": b"\x89PNG", "poster": b"\x89PNG"}
    assert content.startswith(signs.get(form, b""))
    if form == "mp4":
        assert content[4:8] == b"ftyp"
        assert np.abs(decoding.sound(out)).max() > 0.01
    if form == "frames":
        assert len(list(out.iterdir())) == 9
    if form == "png":
        with Image.open(out) as file:
            last = made_up().frames(view="hierarchical")[-1]
            assert np.array_equal(np.asarray(file), np.asarray(render.image(last, PLAIN)))


@needs_ffmpeg
def test_silent_mp4(tmp_path: Path) -> None:
    import imageio_ffmpeg

    (path,) = saved(tmp_path, "a")
    run(path, format="mp4", silent=True)
    count, _ = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "a_process.mp4"))
    assert count == 5
    assert b"mp4a" not in (tmp_path / "a_process.mp4").read_bytes()


def test_settings_reach_the_picture(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, "a")
    few: dict[str, Any] = {"record_interval": 1, "gif_max_frames": 3}
    run(path, **few, gif_scale=2, gif_fps=10.0, no_gif_labels=True, out=str(tmp_path / "b"))
    pictures, durations, _ = decoded(tmp_path / "b")
    assert durations == [100] * 3
    assert pictures[0].shape == (32, 32, 3)


def test_several_traces_get_a_file_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = saved(tmp_path, "a", "b")
    run(*paths)
    assert {path.name for path in tmp_path.glob("*.gif")} == {"a_process.gif", "b_process.gif"}
    run(*paths, out=str(tmp_path / "v1.2"), format="png")
    assert {path.name for path in (tmp_path / "v1.2").iterdir()} == {"a_process.png", "b_process.png"}
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize("known", [0, 8])
def test_side_by_side_runs_begin_and_end_together(known: int) -> None:
    """Five frames beside nine: each picture holds those that are as far along, on a shared palette."""
    one, other = made_up(1, known_until=known).frames(record_interval=1), made_up(2).frames(view="hierarchical")
    cfg = RenderConfig(gif_max_frames=0)
    film = side_by_side([("one", one), ("other", other)], cfg)
    assert (film.length, film.width) == (9, 64 + 14 + 64)
    tinted = known > 0
    canvases = [
        Canvas(frames[-1], dataclasses.replace(cfg, gif_title=name), tinted=tinted)
        for name, frames in (("one", one), ("other", other))
    ]
    assert film.height == canvases[0].height
    for index, partner in enumerate((0, 0, 1, 2, 2, 2, 3, 4, 4)):
        picture = film.draw(index)
        assert np.array_equal(picture[:, :64], canvases[0].draw(one[partner]))
        assert np.array_equal(picture[:, 78:], canvases[1].draw(other[index]))
        assert (picture[:, 64:78] == RAMP).all()
    assert np.array_equal(film.colours, palette("viridis", known=tinted))


@pytest.mark.parametrize("form", [form for form in FORMS if form != "html"])
def test_side_by_side_in_every_format(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = saved(tmp_path, "a", "b")
    run(*paths, side_by_side=True, format=form, gif_title="Both")
    out = tmp_path / f"a_vs_b_process{ENDINGS[form]}"
    assert out.exists()
    assert capsys.readouterr().out == f"{out}: 9 frames\n"
    if form in ("gif", "apng"):
        pictures, durations, loop = decoded(out)
        assert (len(pictures), sum(durations), loop) == (9, 4500, 0)
        assert pictures[0].shape[1] == 64 + 14 + 128  # of different widths


def test_names_above_runs() -> None:
    assert names_of(["x/a.trace.npz", "y/b.trace.npz", "c.npz"]) == ["a", "b", "c"]
    assert names_of(["/z/x/a.trace.npz", "/z/y/a.trace.npz", "b.npz"]) == ["x/a", "y/a", "b"]
    assert names_of(["a.npz", "a.npz"]) == ["a", "a"]


@needs_ffmpeg
@pytest.mark.parametrize(("width", "wanted"), [(192, 3 * 192 * 3 + 28), (1024, 1920)])
def test_a_video_of_several_runs_is_as_large_as_fits(width: int, wanted: int, tmp_path: Path) -> None:
    """Three runs of 192 steps are 2,304 pixels at four a cell, too many, and 1,728 at three; 1,024 steps never fit."""
    for seed, name in enumerate("abc"):
        made_up(seed, width=width).save(tmp_path / f"{name}.npz")
    paths = [str(tmp_path / f"{name}.npz") for name in "abc"]
    run(*paths, side_by_side=True, format="mp4", gif_max_frames=2, out=str(tmp_path / "a.mp4"))
    raw = decoding.ffmpeg(tmp_path / "a.mp4", "-frames:v", "1", "-f", "image2pipe", "-c:v", "png")
    with Image.open(io.BytesIO(raw)) as picture:
        assert wanted - 3 <= picture.width <= wanted


def test_a_window_for_each_of_several_wide_runs() -> None:
    runs = [(name, made_up(seed, width=256).frames()) for seed, name in enumerate("abc")]
    film = side_by_side(runs, PLAIN, 500)
    assert film.width <= 500
    assert film.draw(4).shape == (film.height, film.width)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gif_cmap": "rainbows"}, "--gif_cmap rainbows"),
        ({"gif_background": "blackish"}, "--gif_background blackish"),
        ({"gif_theme": "dim"}, "--gif_theme dim: choose one of dark, light"),
        ({"gif_fps": 0.0}, "--gif_fps 0.0"),
        ({"gif_fps": 99.0}, "--gif_fps 99.0"),
        ({"gif_scale": 0}, "--gif_scale 0"),
        ({"gif_font_size": 1}, "--gif_font_size 1"),
        ({"gif_max_frames": -1}, "--gif_max_frames -1"),
    ],
)
def test_settings_that_cannot_be_drawn(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        render.check_settings(dataclasses.replace(PLAIN, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        ("a", {"view": "upside_down"}, "a.trace.npz: --view upside_down: choose one of process, hierarchical, levels,"),
        ("a", {"view": "density"}, "a.trace.npz: --view density: this trace was recorded without chances"),
        ("a", {"format": "bmp"}, "--format bmp: choose one of gif, mp4, webp, apng, png, poster, frames, html"),
        ("a", {"side_by_side": True}, "--side_by_side: needs at least two traces, not 1"),
        ("a", {"record_interval": -1}, "--record_interval -1: must be at least 0"),
        ("a", {"page_piano": "full"}, "--page_piano full: belongs to --format html; --format gif has no page"),
        pytest.param("a", {"format": "mp4", "soundfont": "a.sf2"}, "--soundfont a.sf2", marks=needs_ffmpeg),
        ("a b", {"out": "both.gif"}, "--out both.gif: 2 traces are drawn into a folder"),
        ("x/a y/a", {"out": "folder"}, "--out folder: traces of the same name would overwrite each other"),
        ("a b", {"side_by_side": True, "format": "html"}, "--format html shows one trace"),
        ("", {}, "--traces: name at least one .trace.npz file"),
    ],
)
def test_mistakes(names: str, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    paths = saved(tmp_path, *names.split())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        run(*paths, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
