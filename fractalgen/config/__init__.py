"""Every setting of FractalGen and its default: the only place where defaults live.

The command line is generated from these dataclasses (one flag per field, the same flat name) and the resolved
values travel inside every checkpoint.  Nothing here imports torch.
"""

from fractalgen.config.diagnose import DiagnoseConfig
from fractalgen.config.evaluate import EvaluateConfig
from fractalgen.config.export import ExportConfig, SavedPrecision
from fractalgen.config.fields import (
    DEFAULT_MODEL,
    FARTHEST,
    MOST_BLOCKS,
    MOST_LEVELS,
    WIDEST,
    CfgSchedule,
    ConfigError,
    Generator,
    MarOrder,
    Pedal,
    Precision,
    ScanOrder,
    View,
    bounds,
    check_bounds,
    setting,
)
from fractalgen.config.generate import GenerateConfig
from fractalgen.config.model import LevelConfig, ModelConfig
from fractalgen.config.prepare import PrepareConfig
from fractalgen.config.render import RenderCommandConfig, RenderConfig
from fractalgen.config.sampling import SamplingConfig, sampling_settings
from fractalgen.config.studio import StudioConfig
from fractalgen.config.train import TrainConfig
