from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from fractalgen import precision
from fractalgen.precision import choose_precision, fast_dtype, product_speeds

CPU = torch.device("cpu")


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[float, float]]:
    """The speeds in float32 and bfloat16 that are measured; the test may set them."""
    measured = {"cpu": (60.0, 1.2)}
    monkeypatch.setattr(precision, "product_speeds", lambda device: measured[device.type])
    return measured


def test_auto_takes_what_is_fast(speeds: dict[str, tuple[float, float]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_precision("auto", CPU) == choose_precision("32", CPU) == "32"
        assert fast_dtype(CPU) == torch.float32
        speeds["cpu"] = (60.0, 400.0)
        assert choose_precision("auto", CPU) == choose_precision("bf16", CPU) == "bf16"
        assert choose_precision("32", CPU) == "32"
        assert fast_dtype(CPU) == torch.bfloat16
        speeds["cpu"] = (60.0, 66.0)  # no clear gain: the exacter one
        assert choose_precision("auto", CPU) == "32"


def test_bfloat16_where_it_is_slow_is_warned_of_with_both_speeds(speeds: dict[str, tuple[float, float]]) -> None:
    with pytest.warns(RuntimeWarning, match=r"1\.2 GFLOP/s in bfloat16, at 60\.0 in float32") as caught:
        assert choose_precision("bf16", CPU) == "bf16"
    assert len(caught) == 1


def test_speeds_are_measured_once() -> None:
    speeds = product_speeds(CPU)
    assert min(speeds) > 0.01
    assert product_speeds(CPU) is speeds


def test_a_plain_processor_takes_float32() -> None:
    code = "import torch; from fractalgen.precision import fast_dtype; print(fast_dtype(torch.device('cpu')))"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    root = Path(__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=root
    )
    assert result.stdout.strip() == "torch.float32"
