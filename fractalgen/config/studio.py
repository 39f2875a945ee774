"""Settings of ``fractalgen studio``."""

from __future__ import annotations

from dataclasses import dataclass

from fractalgen.config.fields import DEFAULT_MODEL, check_bounds, setting


@dataclass(frozen=True)
class StudioConfig:
    """``fractalgen studio``: a local page to compose with the model.

    Raises:
        ConfigError: a value beyond its bounds.
    """

    output_dir: str = setting("outputs/studio", "folder of the projects")
    model: str | None = setting(
        None, f"the model that is loaded first: a shipped name, or hf://owner/name (default: {DEFAULT_MODEL})"
    )
    checkpoint: str | None = setting(None, "your own model as well: a file or folder as above")
    host: str = setting(
        "127.0.0.1", "address to listen at; one that other machines reach, such as 0.0.0.0, needs the printed token"
    )
    port: int = setting(8765, "port to listen at (0: any free one)", low=0, high=65535)
    token: str | None = setting(None, "secret that opens the studio (default: none on this machine, else a random one)")
    open_browser: bool = setting(False, "open the page in the browser")
    device: str = setting("auto", "cpu, cuda, cuda:1, mps, or auto (cuda if there is one, else cpu)")
    threads: int = setting(1, "processor threads of the model", low=1, high=1024)

    def __post_init__(self) -> None:
        check_bounds(self)
