"""The sampler: caches equal the full pass, recording is neutral, known cells stay and are listened to."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fractalgen.api import FractalGen
from fractalgen.config import ConfigError, LevelConfig, SamplingConfig, ScanOrder
from fractalgen.model.grid import earlier, interior, neighbours, surround, windows
from fractalgen.model.level import FractalLevel
from fractalgen.model.losses import gate_nll
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.sampling import sampler_ar
from fractalgen.model.sampling.sampler_ar import ArState
from fractalgen.model.sampling.token_sampler import TokenSampler
from fractalgen.model.sampling.windows import drop_orphans
from fractalgen.model.schedule import schedule_steps
from fractalgen.model.transformer import Decoder, Transformer, ahead
from tests.model.properties.helpers import assert_drawn_from, every_roll, random_model, random_rolls, tiny_config

KINDS = ["ar ar ar ar", "mar mar mar mar", "ar mar ar mar", "mar ar mar ar"]


def small_model(generators: str, scan_order: ScanOrder = "column_major", **settings: Any) -> FractalGen:
    """Rolls of 16 pitches, three nested grids, and gates that often stay shut."""
    kinds = generators.split()
    levels = [
        LevelConfig(patch, 8, 1, 2, kind, context)  # type: ignore[arg-type]
        for patch, kind, context in zip((16, 8, 4, 1), kinds, ((2, 4, 2), (2, 4, 2), (1, 1, 1), (0, 0, 0)), strict=True)
    ]
    config = dataclasses.replace(tiny_config(), levels=tuple(levels), crop_length=16, scan_order=scan_order, **settings)
    model = random_model(config).float()
    with torch.no_grad():
        for level in model.levels[:-1]:
            assert isinstance(level, FractalLevel)
            level.gate.weight.mul_(0.3)
            level.gate.bias.fill_(1.0 if level.index == 0 else -0.7)
    return model


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("length", [12, 40])  # shorter and longer than SHORT: the full pass has two ways
def test_the_decoder_equals_the_full_pass(length: int) -> None:
    """Some rows, four positions at a time; what was guessed ahead, and is looked at again, leaves nothing behind."""
    torch.manual_seed(0)
    transformer = Transformer(16, 2, 4).double().eval()
    x = torch.randn(3, length, 16, dtype=torch.float64)
    with torch.no_grad():
        full = transformer(x, causal=True)
        decoder = Decoder(transformer, 3, length)
        begin, found, visits = torch.zeros(3, dtype=torch.long), torch.zeros_like(full), 0
        while (begin < length).any():
            row = (begin < length).nonzero()
            place = begin[row].clamp(max=length - 4) + torch.arange(4)
            right = place < begin[row] + torch.randint(1, 5, row.shape)  # the first one to four of them
            guess = torch.where(right[..., None], x[row, place], torch.randn(len(row), 4, 16, dtype=torch.float64))
            found[row, place] = torch.where(right[..., None], decoder(guess, row, place), found[row, place])
            begin[row[:, 0]] = torch.where(right, place + 1, begin[row]).amax(1)
            visits += 4 * len(row)
    assert visits > 3 * length
    torch.testing.assert_close(found, full, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("future_context", [False, True])
@pytest.mark.parametrize("scan_order", ["column_major", "row_major"])
def test_a_level_that_draws_says_what_teacher_forcing_says(index: int, future_context: bool, scan_order: str) -> None:
    """Cache, content and windows together: known rolls, three children a pass, with nonsense guessed ahead of them."""
    config = tiny_config("ar ar ar", patches=(16, 4, 1), width=16, scan_order=scan_order, future_context=future_context)
    model = random_model(config)  # sixteen children at both levels
    level = model.levels[index]
    assert isinstance(level, FractalLevel)
    size = level.config.patch
    rolls = random_rolls(3, size, size, 1)
    known = torch.full_like(rolls, -1)
    if future_context:
        known[1:, -1, -2:] = rolls[1:, -1, -2:]
    canvas = surround(rolls, level.margin, model.config.vocabulary + 1)
    cond = Condition.plain(torch.randn(3, level.cond.in_features, dtype=torch.float64), torch.tensor([0, 5, 20]))
    regions = Regions(canvas, known, noise=torch.rand(3, level.numbers))
    grid = level.grid(canvas)
    with torch.no_grad():
        plan = level.generator.teacher_forcing(torch.ones(3, len(grid), dtype=torch.bool), None)
        z = level.conditions(
            regions, cond, level.embed(level.features(grid.split(rolls))), level.base(cond, grid), plan
        )
        state = ArState(level, regions, cond, TokenSampler(SamplingConfig(), None, torch.device("cpu")))
        row = torch.arange(3)[:, None]
        for start in (0, 1, 4, 6, 9, 12, 13):
            child = start + torch.arange(3)
            guess = torch.randint(3, canvas.shape, generator=generator(start))
            guess = torch.where(known >= 0, known, interior(guess, level.margin))
            told = (torch.arange(len(grid)) < child[-1])[:, None, None]
            patches = torch.where(told, grid.split(rolls), grid.split(guess))
            interior(state.canvas, level.margin).copy_(grid.join(patches))
            drawn = state.conditions(row, child.expand(3, 3))
            torch.testing.assert_close(drawn[0], z[:, child], rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("generators", "scan_order", "future_context"),
    [
        ("ar ar ar ar", "column_major", False),
        ("ar ar ar ar", "column_major", True),
        ("ar ar ar ar", "row_major", True),
        ("mar ar ar ar", "column_major", True),
        ("mar mar ar ar", "row_major", False),
        ("ar mar ar mar", "column_major", False),
        ("ar ar", "column_major", True),
    ],
)
def test_looking_ahead_draws_the_very_same_music(
    generators: str, scan_order: ScanOrder, future_context: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Child by child and many at once: the same cells and records; with known cells, limits and guidance."""
    patches = (16, 8, 4, 1) if len(generators.split()) == 4 else (16, 1)
    config = tiny_config(
        generators, patches, width=16, label_sizes=(3,), scan_order=scan_order, future_context=future_context
    )
    model = random_model(config, seed=8 if len(patches) == 4 else 5)  # models that sound, but not everywhere
    if len(patches) == 2:
        torch.nn.init.constant_(model.root.gate.bias, -1.5)
    iterations = (8, 4, 2, 1)[: len(patches)]
    rolls = random_rolls(5, 16, 16, 1, seed=1)
    known = torch.full_like(rolls, -1)
    known[..., :3], known[:, 5:10, 12:14] = rolls[..., :3], rolls[:, 5:10, 12:14]
    known[:, 8:, 8:] = torch.where(rolls[:, 8:, 8:] > 0, rolls[:, 8:, 8:], -1)
    allowed = torch.arange(16)[:, None].expand(-1, 16) % 4 != 1
    cases: list[dict[str, Any]] = [
        {"filter_threshold": 0.3},
        {"known": known, "allowed": allowed},
        {"cond_list": [torch.full((5,), 2)], "cfg": 2.5, "cfg_schedule": "linear", "temperature": 1.3},
        {"max_polyphony": 3, "known": torch.where(known > 0, -1, known)},
    ]
    passes: list[int] = []
    conditions = ArState.conditions

    def counted(state: ArState, row: Tensor, child: Tensor) -> Tensor:
        passes.append(child.shape[1])
        return conditions(state, row, child)

    monkeypatch.setattr(ArState, "conditions", counted)
    for settings in cases:
        results, numbers = [], []
        for span in (1, 5):
            monkeypatch.setattr(sampler_ar, "SPAN", span)
            passes.clear()
            results.append(
                model.sample(5, generator=generator(), return_intermediates=True, num_iter_list=iterations, **settings)
            )
            assert max(passes) == span
            numbers.append(len(passes))
        assert numbers[1] < numbers[0]
        tokens, slow = results[0]
        assert slow is not None
        assert 0 < (tokens > 0).double().mean() < 0.7
        others, quick = results[1]
        assert quick is not None
        assert torch.equal(others, tokens)
        for a, b in zip(quick.traces, slow.traces, strict=True):
            assert np.array_equal(a.decided, b.decided)
            assert np.array_equal(a.steps, b.steps)
            assert a.chances is not None
            assert b.chances is not None
            assert np.abs(a.chances.astype(int) - b.chances.astype(int)).max() <= 1


def test_what_is_drawn_is_an_ordinary_tensor() -> None:
    tokens, _ = random_model(tiny_config()).sample(2, generator=generator(), num_iter_list=(1, 1, 1))
    tokens += 0
    assert not tokens.is_inference()


@pytest.mark.parametrize("generators", ["ar ar ar ar", "mar mar mar mar"])
def test_half_precision_draws_too(generators: str) -> None:
    """Under autocast, and with weights of that type."""
    model = small_model(generators)
    with torch.autocast("cpu", torch.bfloat16):
        autocast, _ = model.sample(4, generator=generator())
    narrow, _ = model.bfloat16().sample(4, generator=generator())
    for tokens in (autocast, narrow):
        assert 0 < (tokens > 0).double().mean() < 0.5


def test_training_goes_on_after_sampling() -> None:
    """Tables that sampling made first serve the training step as well."""
    for table in (ahead, windows, earlier, neighbours):
        table.cache_clear()
    model = random_model(tiny_config("mar ar ar ar", patches=(8, 4, 2, 1), width=8))
    tokens, _ = model.sample(2, generator=generator())
    model.train()
    model.nll(tokens).total.sum().backward()
    assert model.null.grad is not None


@pytest.mark.parametrize("generators", KINDS)
@pytest.mark.parametrize("scan_order", ["column_major", "row_major"])
def test_recording_is_neutral_and_complete(generators: str, scan_order: ScanOrder) -> None:
    """Same seed, same bits; the last frame is the result; each visited cell is decided exactly once per level."""
    model = small_model(generators, scan_order)
    settings: dict[str, Any] = {"num_iter_list": (3, 3, 2, 1), "batch_generate_size": 1}
    plain, nothing = model.sample(3, generator=generator(), **settings)
    tokens, frames = model.sample(3, generator=generator(), return_intermediates=True, **settings)
    assert nothing is None
    assert frames is not None
    assert torch.equal(plain, tokens)
    assert 0 < (tokens > 0).double().mean() < 0.5
    for sample, trace in enumerate(frames.traces):
        assert np.array_equal(trace.tokens, tokens[sample].numpy())
        decided = trace.decided
        assert np.all(decided[0] >= 0)
        patches = decided[0].reshape(2, 8, 2, 8).transpose(0, 2, 1, 3).reshape(4, 64)
        assert np.all(patches == patches[:, :1])
        if generators.startswith("ar"):
            order = patches[:, 0].reshape(2, 2)
            order = order.T if scan_order == "column_major" else order
            assert order.flatten().tolist() == list(range(4))
        else:
            assert np.unique(patches[:, 0]).size == len(trace.steps)
        for level in range(1, 4):
            visited = decided[level] >= 0
            parents = decided[level - 1] >= 0
            assert np.all(parents | ~visited)
            size = (16, 8, 4, 1)[level]
            blocks = visited.reshape(16 // size, size, 16 // size, size).any((1, 3)).repeat(size, 0).repeat(size, 1)
            assert np.array_equal(blocks, visited)  # a patch is visited whole or not at all
            assert np.all(visited[trace.tokens > 0])
        # A MAR level also decides holds that are silenced afterwards, because no onset comes before them.
        silenced = (decided[3] >= 0) & (trace.tokens == 0)
        assert "mar" in generators or not silenced.any()
        assert np.array_equal(drop_orphans(torch.from_numpy(trace.tokens + silenced)), trace.tokens)
    last = frames[len(frames) - 1].output
    first = frames[0]
    assert first.level_name == "Init"
    assert not first.output.any()
    assert np.array_equal(last > 0, tokens.numpy() > 0)


def has_orphans(tokens: torch.Tensor) -> bool:
    return bool(((tokens[..., 1:] == 1) & (tokens[..., :-1] == 0)).any())


@pytest.mark.parametrize("generators", KINDS)
def test_no_orphan_holds(generators: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """AR levels compose none; those that MAR levels compose are silenced, and nothing else is."""
    model = small_model(generators)
    tokens, _ = model.sample(16, generator=generator())
    assert (tokens == 1).any()
    assert not has_orphans(tokens)
    monkeypatch.setattr("fractalgen.model.sampling.windows.drop_orphans", lambda tokens: tokens)
    composed, _ = model.sample(16, generator=generator())
    assert has_orphans(composed) == ("mar" in generators)
    assert torch.equal(drop_orphans(composed), tokens)


def test_dropping_orphans_silences_whole_runs_and_nothing_else() -> None:
    roll = torch.tensor([[[1, 1, 0, 1, 1, 2, 1, 0, 0, 1]]])
    assert drop_orphans(roll).tolist() == [[[1, 1, 0, 0, 0, 2, 1, 0, 0, 0]]]


@pytest.mark.parametrize("generators", KINDS)
def test_known_cells_come_out_exactly_and_are_listened_to(generators: str) -> None:
    """A prefix and a loose rectangle stay bit for bit; with other known cells the rest comes out differently."""
    model = small_model(generators)
    results = []
    for seed in (1, 2):
        rolls = random_rolls(2, 16, 16, 1, seed=seed)
        known = torch.full_like(rolls, -1)
        known[..., :9], known[:, 5:10, 12:14] = rolls[..., :9], rolls[:, 5:10, 12:14]
        tokens, frames = model.sample(
            2, known=known, generator=generator(), num_iter_list=(4, 2, 2, 1), return_intermediates=True
        )
        assert torch.equal(tokens[known >= 0], rolls[known >= 0])
        assert frames is not None
        assert np.array_equal(frames.traces[0].known, (known[0] >= 0).numpy())
        results.append(tokens[..., 14:])
    assert not torch.equal(*results)


def test_known_cells_shift_the_distribution_as_the_exact_conditional_does() -> None:
    """AR, a known first column of patches: frequencies of the rest against p(rest | known) by enumeration."""
    model = random_model(tiny_config(velocity_bins=1, width=4), seed=1)
    prefix = torch.tensor([[2, 1], [0, 2]])
    rolls = torch.cat([prefix.expand(81, 2, 2), every_roll(2, 2, 3)], -1)
    with torch.no_grad():
        probability = (-model.nll(rolls).total).softmax(0)
    known = torch.full((8000, 2, 4), -1)
    known[..., :2] = prefix
    tokens, _ = model.sample(8000, known=known, generator=generator(), width=4, num_iter_list=(1, 1, 1))
    assert_drawn_from(tokens, rolls, probability)


def test_a_group_known_to_sound_never_comes_out_silent() -> None:
    """Closed form against brute force: gates drawn under "not all silent" have the probabilities that are scored."""
    logits = torch.tensor([-1.0, 0.5, -2.0], dtype=torch.float64)
    target = torch.ones(1, 3, dtype=torch.bool)
    patterns = every_roll(1, 3, 2)[:, 0].bool()
    nll = gate_nll(logits.expand(8, 3), patterns, target.expand(8, 3), target.expand(8, 3), torch.ones(8).bool()).sum(1)
    probability = (-nll).exp()
    assert probability[1:].sum().item() == pytest.approx(1.0)
    sampler = TokenSampler(SamplingConfig(), generator(), torch.device("cpu"))
    count = 20_000
    opened, chances = sampler.gates(
        logits.expand(1, count, 3),
        sampler.uniform((count, 3)),
        target.expand(count, 3),
        torch.zeros(count, 3, dtype=torch.bool),
        torch.ones(count, dtype=torch.bool),
    )
    observed = torch.bincount((opened * torch.tensor([4, 2, 1])).sum(1), minlength=8) / count
    assert observed[0] == 0
    torch.testing.assert_close(observed[1:].double(), probability[1:], rtol=0, atol=0.015)
    # what each gate says before it is drawn is, on average, how often it opens
    torch.testing.assert_close(chances.mean(0), opened.double().mean(0), rtol=0, atol=0.015)
    assert torch.all(chances[~opened[:, :2].any(1), 2] == 1)


@pytest.mark.parametrize("generators", KINDS)
def test_recorded_chances_are_the_gates_that_were_asked(generators: str) -> None:
    """By level: one product of gates for each closed patch, one for each cell; known cells have none."""
    model = small_model(generators)
    rolls = random_rolls(2, 16, 16, 1, seed=1)
    known = torch.full_like(rolls, -1)
    known[:, 5:10, 12:14] = rolls[:, 5:10, 12:14]
    tokens, frames = model.sample(2, known=known, generator=generator(), return_intermediates=True)
    assert frames is not None
    for sample, trace in enumerate(frames.traces):
        chances = trace.chances
        assert chances is not None
        assert not chances[trace.known].any()
        composed = ~trace.known
        assert np.all(chances[(tokens[sample].numpy() > 0) & composed] > 0)
        for size, plane in ((8, 0), (4, 1)):  # patches closed by L0 and by L1: one number for all their cells
            closed = ((trace.decided[plane] >= 0) & (trace.decided[plane + 1] < 0)).reshape(
                16 // size, size, 16 // size, size
            )
            blocks = chances.reshape(closed.shape)
            for row, col in np.argwhere(closed.all((1, 3)) & ~trace.known.reshape(closed.shape).any((1, 3))):
                assert np.unique(blocks[row, :, col]).size == 1


def test_the_chance_of_the_first_patch_is_its_exact_probability() -> None:
    model = random_model(tiny_config(width=2), seed=3)
    rolls = every_roll(2, 2, 3)
    with torch.no_grad():
        silent = (-model.nll(rolls).total).exp()[(rolls == 0).flatten(1).all(1)].sum()
    _, frames = model.sample(50, width=2, num_iter_list=(1, 1, 1), generator=generator(), return_intermediates=True)
    assert frames is not None
    for trace in frames.traces:
        assert trace.chances is not None
        if not trace.tokens.any():
            assert np.all(trace.chances == round(255 * (1 - silent.item())))
        else:
            assert np.all(trace.chances <= round(255 * (1 - silent.item())))


@pytest.mark.parametrize("count", [1, 3, 16, 128])
@pytest.mark.parametrize("iterations", [1, 2, 8, 20])
def test_the_cosine_schedule_decides_everything_once(count: int, iterations: int) -> None:
    steps = schedule_steps(torch.arange(count)[None], torch.tensor([count]), iterations)[0]
    assert torch.all(steps.diff() >= 0)
    assert steps.min() >= 0
    assert steps.max() <= iterations - 1
    sizes = torch.bincount(steps, minlength=iterations)
    assert sizes.sum() == count
    if count == 128 and iterations == 8:
        assert sizes.tolist() == [3, 7, 12, 16, 19, 23, 24, 24]


def guided_model() -> tuple[FractalGen, Tensor]:
    config = tiny_config("ar ar ar ar", patches=(16, 4, 2, 1), width=16, label_sizes=(3,))
    return random_model(config, seed=1), torch.ones(2, dtype=torch.long)


def test_guidance_of_one_is_plain_conditional_sampling() -> None:
    model, label = guided_model()
    plain, _ = model.sample(2, [label], generator=generator())
    other, _ = model.sample(2, [label], cfg=1.0, cfg_schedule="linear", generator=generator())
    guided, _ = model.sample(2, [label], cfg=3.0, generator=generator())
    unlabelled, _ = model.sample(2, generator=generator())
    assert torch.equal(plain, other)
    assert not torch.equal(plain, guided)
    assert not torch.equal(plain, unlabelled)


def test_guidance_bends_logits_as_its_formula_says() -> None:
    logits = torch.randn(2, 5, 7, generator=generator(), dtype=torch.float64)
    cond, uncond = logits
    settings = SamplingConfig(cfg=3.0, temperature=0.7)
    sampler = TokenSampler(settings, generator(), torch.device("cpu"), streams=2)
    expected = ((uncond + 3.0 * (cond - uncond)) / 0.7).log_softmax(-1)
    torch.testing.assert_close(sampler.process_logits(logits).log_softmax(-1), expected)
    linear = TokenSampler(
        dataclasses.replace(settings, cfg_schedule="linear"), generator(), torch.device("cpu"), 2, 0.5
    )
    torch.testing.assert_close(linear.process_logits(logits), (uncond + 2.0 * (cond - uncond)) / 0.7)
    filtered = TokenSampler(dataclasses.replace(settings, filter_threshold=0.2), generator(), torch.device("cpu"), 2)
    unlikely = cond.softmax(-1) < 0.2
    assert torch.all(filtered.process_logits(logits)[unlikely & (cond < cond.amax(-1, keepdim=True))].isinf())
    assert torch.all(filtered.process_logits(logits).isfinite().any(-1))


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.6])
def test_a_gate_is_a_choice_of_two(threshold: float) -> None:
    """Guided, filtered and at a temperature, it opens as often as the second of two tokens is drawn."""
    logits = 2 * torch.randn(2, 40, 6, generator=generator(), dtype=torch.float64)
    settings = SamplingConfig(cfg=2.0, temperature=0.8, filter_threshold=threshold)
    sampler = TokenSampler(settings, generator(), torch.device("cpu"), streams=2)
    everything, noise = torch.ones(40, 6, dtype=torch.bool), torch.rand(40, 6, generator=generator())
    _, chance = sampler.gates(logits, noise, everything, ~everything)
    two = sampler.process_logits(torch.stack([torch.zeros_like(logits), logits], -1)).softmax(-1)
    torch.testing.assert_close(chance, two[..., 1])
    assert ((chance == 0) | (chance == 1)).any() == (threshold > 0)


def test_low_temperature_finds_the_most_likely_token() -> None:
    logits = 100 * torch.randn(1, 200, 9, generator=generator())
    sampler = TokenSampler(SamplingConfig(temperature=0.01), generator(), torch.device("cpu"))
    assert torch.equal(sampler.categorical(logits, sampler.uniform((200,))), logits[0].argmax(-1))


def test_calls_that_cannot_work_are_refused() -> None:
    model = small_model("ar ar ar ar")
    for settings, message in (
        ({"temperature": 0.0}, "--temperature 0.0"),
        ({"num_iter_list": (8, 4)}, "--num_iter_list 8 4: 4 positive numbers"),
        ({"width": 0}, "--target_width 0"),
        ({"width": 20}, "--target_width 20"),
        ({"window": 12}, "--window 12: the width must be a positive multiple of the patch size 8"),
        ({"known": torch.full((1, 16, 16), 7)}, "tokens below 3, these are 7 to 7"),
        ({"known": torch.full((2, 16, 16), -1)}, r"known cells have the shape \(2, 16, 16\)"),
        ({"cond_list": [torch.tensor([1])]}, "cond_list: 1 labels given, this model has 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.sample(1, **settings)
    with pytest.raises(ConfigError, match="batch_size 0: must be at least 1"):
        model.sample(0)
    with pytest.raises(ConfigError, match="no argument 'heat'"):
        model.generate(heat=1.0)  # type: ignore[call-overload]
