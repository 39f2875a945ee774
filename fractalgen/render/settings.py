"""Settings that cannot be drawn."""

from __future__ import annotations

from fractalgen.config import RenderConfig, check_bounds
from fractalgen.errors import UserError
from fractalgen.render.colours import palette

THEMES = ("dark", "light")


def check_settings(cfg: RenderConfig) -> None:
    """Refuse settings that cannot be drawn, before any work is done.

    Raises:
        UserError: names the flag, its value and what is allowed.
    """
    check_bounds(cfg)
    if cfg.gif_theme not in THEMES:
        raise UserError(f"--gif_theme {cfg.gif_theme}: choose one of {', '.join(THEMES)}")
    palette(cfg.gif_cmap, cfg.gif_background, light=cfg.gif_theme == "light")
