from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from fractalgen import devices
from fractalgen.api import FractalGen
from fractalgen.cli import main
from fractalgen.config import SamplingConfig
from fractalgen.devices import choose_precision, fast_dtype, product_speeds
from fractalgen.errors import UserError
from tests import tiny

CPU = torch.device("cpu")


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[float, float]]:
    """The speeds in float32 and bfloat16 that are measured; the test may set them."""
    measured = {"cpu": (60.0, 1.2)}
    monkeypatch.setattr(devices, "product_speeds", lambda place: measured[place.type])
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


@pytest.mark.slow
def test_a_plain_processor_takes_float32() -> None:
    code = "import torch; from fractalgen.devices import fast_dtype; print(fast_dtype(torch.device('cpu')))"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    root = Path(__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=root
    )
    assert result.stdout.strip() == "torch.float32"


def test_sampling_keeps_to_its_threads_and_sets_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FractalGen(tiny.model_config()).eval()
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen: list[int] = []

        def progress(done: int, total: int) -> None:
            seen.append(torch.get_num_threads())

        model.generate(width=16, seed=0, progress=progress)
        model.generate(width=16, seed=0, progress=progress, sampling=SamplingConfig(threads=2))
        assert torch.get_num_threads() == 3
        assert set(seen) == {1, 2}
        assert seen == sorted(seen)
        with pytest.raises(UserError, match="--threads 0: must be from 1"):
            model.generate(width=16, sampling=SamplingConfig(threads=0))
    finally:
        torch.set_num_threads(before)


def test_threads_that_wait_sleep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert main(["export"]) == 2
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")  # the user's choice stays
    assert main(["export"]) == 2
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
