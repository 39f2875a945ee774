"""The 256 colours of a picture: a ramp for velocities, a ramp from paper to ink for all else, and "as before".

Where cells were given and not composed, their notes have a ramp of their own, in a muted tint.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from fractalgen.errors import UserError

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

Pixels: TypeAlias = NDArray[np.uint8]

# 0..223 velocity 0..1, 224..254 from paper to ink, 255 transparent.
RAMP = 224
INK = 254
SAME = 255
# Where cells are known the 224 are shared: 0..127 velocity of composed notes, 128..222 of known ones, 223 the line.
KNOWN = 128
LINE = 223

# The tints of known notes, earthen and slate: a colour map lies far from one of them, even for a colour-blind viewer.
TINTS = ((158, 106, 76), (110, 146, 200))
PALE_TINT = (160, 184, 222)  # one more where silence is white, and notes of a map may have any darker colour
FAINTEST = 0.8  # the share of the tint in the softest known note: soft ones would meet the colour map again
FADE = 0.12  # light theme: the share of the ramp in which white turns into the map's own colour

# Silence black, soft notes cool, loud ones warm; brightness grows all the way, so that it reads in grey as well.
VELOCITY_MAP = (
    "#000000",
    "#0d2a5c",
    "#1f57b0",
    "#5a7df0",
    "#b58af5",
    "#f58ac8",
    "#ff9f80",
    "#ffd080",
    "#fff6d0",
)
LUMA = np.array([0.299, 0.587, 0.114])


@lru_cache
def palette(cmap: str, background: str | None = None, known: bool = False, light: bool = False) -> Pixels:
    """The 256 colours, uint8 (256, 3).

    Args:
        cmap: a colour map of matplotlib, or "velocity".
        background: the paper, any colour that Pillow knows (default: black, or white if ``light``).
        known: with room for known notes.
        light: silence is white; the map is turned round where its own silence is its darker end.

    Raises:
        UserError: a colour map or a colour that does not exist.
    """
    count = KNOWN if known else RAMP
    ramp = _colour_map(cmap)(np.linspace(0, 1, count), bytes=True)[:, :3].astype(float)
    if light:
        ramp = ramp[::-1] if ramp[0] @ LUMA < ramp[-1] @ LUMA else ramp
        white = np.clip(1 - np.linspace(0, 1, count) / FADE, 0, 1)[:, None]
        ramp = np.rint(ramp + white * (255 - ramp))
    background = background or ("white" if light else "black")
    try:
        paper = np.array(ImageColor.getrgb(background)[:3], float)
    except ValueError as error:
        raise UserError(f"--gif_background {background}: not a colour (try black, white, #202020)") from error
    if known:
        ramp = np.concatenate([ramp, _known_colours(ramp, (*TINTS, PALE_TINT) if light else TINTS)])
    share = np.linspace(0, 1, INK - RAMP + 1)[:, None]
    furniture = paper + share * (_ink(paper) - paper)
    return np.concatenate([ramp, np.rint(furniture), [[0, 0, 0]]]).astype(np.uint8)


def coloured(pixels: Pixels, colours: Pixels) -> Image.Image:
    """Palette indices as a Pillow image."""
    picture = Image.fromarray(pixels).convert("P")
    picture.putpalette(colours.tobytes())
    return picture


def grey(colours: Pixels, brightness: float) -> int:
    """The index between paper and ink that is nearest to a brightness, 0..255."""
    return RAMP + int(np.abs(colours[RAMP : INK + 1] @ LUMA - brightness).argmin())


def on_silence(colours: Pixels, share: float) -> int:
    """The index of a grey that stands out from silence by a share of what is possible, 0..1."""
    silence = float(colours[0] @ LUMA)
    return grey(colours, silence + share * (_ink(colours[0]) - silence))


def _colour_map(name: str) -> Colormap:
    import matplotlib  # takes a third of a second to load
    from matplotlib.colors import LinearSegmentedColormap

    if name == "velocity" and name not in matplotlib.colormaps:
        matplotlib.colormaps.register(LinearSegmentedColormap.from_list(name, VELOCITY_MAP))
    try:
        return matplotlib.colormaps[name]
    except KeyError as error:
        raise UserError(
            f"--gif_cmap {name}: matplotlib has no such colour map (try viridis, magma, velocity, gray)"
        ) from error


def _known_colours(ramp: NDArray[np.floating], tints: tuple[tuple[int, int, int], ...]) -> NDArray[np.floating]:
    """Colours of known notes and of the line, (LINE + 1 - KNOWN, 3), to go with the (KNOWN, 3) of composed ones."""
    silence, notes = ramp[0], ramp[KNOWN // 4 :]  # softer notes are rare, and near silence in any tint
    # How bright and how blue: the two differences that remain to those who confuse red and green.
    seen = np.array([[0.3, -0.5], [0.6, -0.5], [0.1, 1.0]])
    others = np.vstack([silence, notes]) @ seen
    tint = max(np.array(tints, float), key=lambda tint: float(np.linalg.norm(tint @ seen - others, axis=1).min()))
    share = np.linspace(FAINTEST, 1, LINE - KNOWN)[:, None]
    line = silence + 0.5 * (_ink(silence) - silence)
    return np.rint(np.vstack([silence + share * (tint - silence), line]))


def _ink(paper: NDArray[np.floating] | Pixels) -> float:
    """The grey that is legible on a colour."""
    return 235.0 if paper @ LUMA < 128 else 20.0
