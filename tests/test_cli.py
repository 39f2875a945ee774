"""The command line: where values come from, and how mistakes are told."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fractalgen import cli
from fractalgen.config import GenerateConfig, SamplingConfig, TrainConfig
from fractalgen.errors import UserError, silent_interrupts

ROOT = Path(__file__).resolve().parent.parent
ErrorLine = Callable[..., str]


def parse(*arguments: str) -> Any:
    return cli.parse(arguments)[1]


@pytest.fixture
def yaml_file(tmp_path: Path):
    def write(**values: Any) -> str:
        path = tmp_path / "settings.yaml"
        path.write_text(yaml.safe_dump(values))
        return str(path)

    return write


def test_no_flags_give_the_dataclass_defaults():
    assert parse("train", "--config", "base").num_blocks == TrainConfig().num_blocks
    assert parse("generate") == GenerateConfig()


@pytest.mark.slow
def test_every_field_is_a_flag_that_reaches_its_field():
    for name, command in cli.COMMANDS.items():
        hints = cli.field_types(command.config)
        needed = {item.name: "x" for item in dataclasses.fields(command.config) if item.default is dataclasses.MISSING}
        for item in dataclasses.fields(command.config):
            if item.name == "like":  # it is read at once: tests/compose/test_generate.py
                continue
            option = cli.members(hints[item.name])[0][0]
            text = {
                bool: ["true"],
                int: ["7"],
                float: [str(max(0.5, float(item.metadata.get("low") or 0)))],
                str: ["some text"],
            }.get(option)
            if text is None and getattr(option, "__origin__", None) is tuple:
                inner = option.__args__[0]
                text = [str(getattr(inner, "__args__", ["3"])[0])] * 3
            text = text or [str(option.__args__[-1])]
            rest = [part for key, value in needed.items() if key != item.name for part in (f"--{key}", value)]
            config = parse(name, f"--{item.name}", *text, *rest)
            value = getattr(config, item.name)
            assert [str(part) for part in (value if isinstance(value, tuple) else [value])] == [
                "True" if part == "true" else part for part in text
            ]


@pytest.mark.parametrize("where", ["before", "after"])
def test_command_line_wins_over_file_also_when_equal_to_the_default(yaml_file: Any, where: str):
    default = TrainConfig().batch_size
    config = ["--config", yaml_file(batch_size=default + 1, seed=5)]
    flags = ["--batch_size", str(default)]
    found = parse("train", *(config + flags if where == "before" else flags + config))
    assert (found.batch_size, found.seed) == (default, 5)


def test_null_on_the_command_line_wins_over_the_file(yaml_file: Any):
    assert parse("generate", "--config", yaml_file(seed=3), "--seed", "none").seed is None


def test_a_flag_that_stands_for_another_is_refused_beside_it(one_error_line: ErrorLine, yaml_file: Any):
    expected = "--quality fast and --num_iter_list 9 4 2 1: give only one of them"
    numbers = ["--num_iter_list", "9", "4", "2", "1"]
    assert expected in one_error_line("generate", *numbers, "--quality", "fast")
    both = ["--config", yaml_file(num_iter_list=[9, 4, 2, 1], quality="fast")]
    assert expected in one_error_line("generate", *both)
    assert parse("generate", *both, "--quality", "none").num_iter_list == (9, 4, 2, 1)


def test_a_flag_that_stands_for_another_wins_over_it_in_a_file(yaml_file: Any):
    found = parse("generate", "--config", yaml_file(num_iter_list=[9, 4, 2, 1]), "--quality", "fast")
    assert (found.quality, found.num_iter_list) == ("fast", GenerateConfig().num_iter_list)
    found = parse("generate", "--config", yaml_file(quality="fast"), "--num_iter_list", "9", "4", "2", "1")
    assert (found.quality, found.num_iter_list) == (None, (9, 4, 2, 1))


def test_later_files_win(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("seed: 1\nbatch_size: 2\n")
    (tmp_path / "b.yaml").write_text("seed: 3\n")
    found = parse("train", "--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml"))
    assert (found.seed, found.batch_size) == (3, 2)


def test_tuples_are_space_separated_and_lists_in_yaml(yaml_file: Any):
    assert parse("generate", "--num_iter_list", "12", "8", "4", "1").num_iter_list == (12, 8, 4, 1)
    types = parse("train", "--config", yaml_file(generator_types=["mar", "mar", "ar", "ar"])).generator_types
    assert types == ("mar", "mar", "ar", "ar")


def test_plain_booleans_and_booleans_with_a_value(yaml_file: Any):
    assert parse("generate", "--save_gif").save_gif
    assert parse("generate", "--save_gif", "--seed", "1").save_gif
    assert not parse("generate", "--config", yaml_file(save_gif=True), "--save_gif", "false").save_gif
    assert parse("generate", "--config", yaml_file(save_gif=True)).save_gif


def test_a_plain_boolean_does_not_swallow_the_positional():
    config = parse("render", "--no_gif_labels", "a.trace.npz")
    assert config.no_gif_labels
    assert config.traces == ("a.trace.npz",)
    assert parse("render", "--no_gif_labels", "--traces", "a.trace.npz") == config


def test_numbers_in_yaml_with_an_exponent_are_numbers(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("learning_rate: 6e-4\ndevices: 1\n")
    found = parse("train", "--config", str(tmp_path / "a.yaml"))
    assert (found.learning_rate, found.devices) == (6e-4, "1")


def test_resolved_configuration_reads_back(yaml_file: Any):
    config = parse("train", "--generator_types", "mar", "ar", "ar", "ar", "--transpose_min", "-3")
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
    assert parse("train", "--config", yaml_file(**plain)) == config


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--batchsize", "3"], "unknown argument --batchsize (did you mean --batch_size?)"),
        (["train", "--batch_s", "3"], "--batch_s"),
        (["train", "--batchsize=3"], "--batchsize"),
        (["train", "stray"], "stray"),
        (["train", "--batch_size", "many"], "--batch_size: expected integer, not 'many'"),
        (["train", "--batch_size", "2.5"], "--batch_size: expected integer, not '2.5'"),
        (["train", "--scan_order", "spiral"], "--scan_order: expected column_major|row_major, not 'spiral'"),
        (["train", "--generator_types", "ar", "rnn"], "--generator_types: expected ar|mar, not 'rnn'"),
        (["generate", "--target_width", "wide"], "--target_width: expected integer or none, not 'wide'"),
        (["generate", "--seed"], "--seed"),
        (["generate", "--config", "absent.yaml"], "--config absent.yaml"),
        (["compose"], "compose"),
        ([], "COMMAND"),
    ],
)
def test_mistakes_give_one_line(one_error_line: ErrorLine, arguments: list[str], expected: str):
    assert expected in one_error_line(*arguments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batchsize: 3", "unknown key 'batchsize' (did you mean batch_size?)"),
        ("batch_size: [1, 2]", "--batch_size: expected integer, not [1, 2]"),
        ("batch_size: true", "--batch_size: expected integer, not True"),
        ("batch_size: null", "--batch_size: expected integer, not None"),
        ("batch_size: 2.5", "--batch_size: expected integer, not 2.5"),
        ("- a\n- b", "expected lines of the form"),
        ("a: [", "cannot be read"),
        ("seed: 1\nmax_steps: 3\nseed: 2", "the key 'seed' is listed twice"),
        ("\0", "cannot be read"),
    ],
)
def test_mistakes_in_a_file_give_one_line(one_error_line: ErrorLine, tmp_path: Path, text: str, expected: str):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert expected in one_error_line("train", "--config", str(path))


def test_a_needed_setting_is_asked_for(one_error_line: ErrorLine):
    assert "--data is missing" in one_error_line("prepare")
    assert "--traces is needed" in one_error_line("render")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_names_every_flag_and_default(capsys: pytest.CaptureFixture[str], command: str):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    defaults = parse("train") if command == "train" else None
    for item in dataclasses.fields(cli.COMMANDS[command].config):
        assert item.metadata.get("help"), f"{item.name} has no help text"
        assert f"--{item.name} " in text
        default = getattr(defaults, item.name, item.default)
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert f"[{default}]" in text or f"[{default}; " in text
    assert "8 4 2 1" in text or not issubclass(cli.COMMANDS[command].config, SamplingConfig)


def test_help_needs_no_heavy_module():
    code = (
        "import sys\nfrom fractalgen import cli\n"
        "try: cli.main(['generate', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'symusic', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "start",
    [["main.py"], ["inference.py"], ["-m", "fractalgen", "train"], ["-m", "fractalgen", "generate"]],
    ids=lambda start: " ".join(start),
)
def test_every_way_to_start_refuses_an_unknown_flag(start: list[str], tmp_path: Path):
    before = time.perf_counter()
    where = [str(ROOT / part) if part.endswith(".py") else part for part in start]
    run = subprocess.run(
        [sys.executable, *where, "--nonsense", "1"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert run.returncode == 2
    assert run.stderr == "fractalgen: error: unknown argument --nonsense\n"
    assert run.stdout == ""
    assert list(tmp_path.iterdir()) == []
    assert time.perf_counter() - before < 20


@pytest.mark.parametrize("module", ["yaml", "torch"])
@pytest.mark.parametrize("start", [["inference.py"], ["-m", "fractalgen", "generate"]], ids=" ".join)
def test_an_interruption_while_modules_load_has_no_traceback(start: list[str], module: str, tmp_path: Path):
    text = "import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(9)\nraise ValueError('it went on')\n"
    (tmp_path / f"{module}.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, *start],
        capture_output=True,
        cwd=ROOT,
        env=environment,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # the tests may run in the background
    )
    assert (run.returncode, run.stdout) == (130, b"")
    assert run.stderr in (b"", b"fractalgen: interrupted\n")  # which is told once the command has begun


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked at through /proc")
@pytest.mark.parametrize(
    ("number", "status", "message"),
    [(signal.SIGINT, 130, "fractalgen: interrupted"), (signal.SIGTERM, 143, "fractalgen: terminated")],
)
@pytest.mark.parametrize("delay", [0.3, 3])  # while the workers load their modules, and when they are at work
def test_workers_end_with_the_command_in_one_line_and_nothing_is_left(
    number: signal.Signals, status: int, message: str, delay: float, tmp_path: Path
):
    music = tmp_path / "music"
    music.mkdir()
    piece = (ROOT / "docs" / "example.mid").read_bytes()
    for name in range(3000):
        (music / f"{name}.mid").write_bytes(piece)
    flags = ["--data", str(music), "--out", str(tmp_path / "out"), "--num_workers", "2"]
    run = subprocess.Popen(
        [sys.executable, "-m", "fractalgen", "prepare", *flags],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    while len(children.read_text("utf-8").split()) < 3:  # the workers, and a process that counts semaphores
        assert run.poll() is None
        time.sleep(0.01)
    time.sleep(delay)
    os.killpg(run.pid, number)  # as a terminal does
    _, errors = run.communicate(timeout=20)
    assert (run.returncode, errors.splitlines()[-1]) == (status, message)
    assert "Traceback" not in errors
    assert "leaked" not in errors
    assert list(tmp_path.iterdir()) == [music]


def test_where_interruptions_are_ignored_they_stay_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with silent_interrupts():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_package_names_are_loaded_on_first_use():
    import fractalgen

    assert fractalgen.PianoRoll.__name__ == "PianoRoll"
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = fractalgen.nothing_here
    assert set(fractalgen.__all__) <= set(dir(fractalgen))


def test_train_without_a_file_is_small() -> None:
    config = parse("train")
    assert config == parse("train", "--config", "small") == parse("train", "--config", str(ROOT / "configs/small.yaml"))
    assert config.embed_dims == (256, 192, 128, 64)
    config = parse("train", "--config", "tiny", "--seed", "3")
    assert (config.embed_dims, config.seed) == ((128, 96, 64, 32), 3)
    kinds = ("--generator_types", "mar", "ar", "ar", "ar")
    assert parse("train", "--config", "small_mar") == parse("train", *kinds, "--val_crops", "128")
    names = "base, chorales, small, small_mar, tiny, triplets"
    with pytest.raises(UserError, match=rf"--config nowhere: no such file \(shipped: {names}\)"):
        parse("train", "--config", "nowhere")
