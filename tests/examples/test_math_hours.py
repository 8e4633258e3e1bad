"""scripts/gpu_hours.py and examples/math/table.py: figures worked out, and the place for those measured."""

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "gpus-and-qwen2.5-math.md"


def module(path):
    spec = importlib.util.spec_from_file_location(f"math_hours_{path.stem}", path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look themselves up there
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def hours():
    return module(ROOT / "scripts" / "gpu_hours.py")


@pytest.fixture(scope="module")
def table():
    return module(ROOT / "examples" / "math" / "table.py")


def built_by_transformers(model, layers):
    """Return the model of this size with so many layers, as transformers makes it, without its weights."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.Qwen2Config(
        hidden_size=model.hidden,
        num_hidden_layers=layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        intermediate_size=model.ffn,
        vocab_size=model.vocab,
        tie_word_embeddings=model.tied,
    )
    with torch.device("meta"):
        return transformers.Qwen2ForCausalLM(config)


def test_parameters(hours):
    """As many as transformers' own model of that size has."""
    for model in hours.MODELS.values():
        built = built_by_transformers(model, model.layers)
        assert model.parameters == sum(parameter.numel() for parameter in built.parameters())
        embedding = built.get_input_embeddings().weight.numel()
        assert model.active == model.parameters - (0 if model.tied else embedding)


def test_adapter_has_the_parameters_that_peft_makes(hours):
    """For rank 32 on all linear layers, as verl asks for it."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    model = hours.MODELS["1.5b"]
    with torch.device("meta"):
        built = peft.get_peft_model(
            built_by_transformers(model, 2), peft.LoraConfig(r=32, target_modules="all-linear")
        )
    trained = sum(parameter.numel() for parameter in built.parameters() if parameter.requires_grad)
    assert replace(model, layers=2).adapter(32) == trained
    assert model.adapter(0) == 0


def test_the_sum_by_hand(hours):
    """7B, GRPO: 409,600 rollouts of 1,000 tokens after prompts of 200, at a tenth of 1,000 TFLOP/s."""
    ends = {
        "prompt": 200,
        "response": 1000,
        "generating": 0.1,
        "scoring": 0.1,
        "updating": 0.1,
        "overhead": 10,
    }
    assumptions = hours.Assumptions(**{key: (value, value) for key, value in ends.items()})
    model = hours.MODELS["7b"]
    assert model.active == pytest.approx(7.07e9, rel=1e-3)
    parts = hours.gpu_seconds(model, 8, "grpo", 1e15, 0, assumptions)
    assert parts["sampling"] == pytest.approx(409_600 * 1000 * 2 * 7.07e9 / 1e14, rel=1e-3)
    assert parts["log-probs"] == pytest.approx(409_600 * 1200 * 2 * 7.07e9 / 1e14, rel=1e-3)
    assert parts["update"] == pytest.approx(409_600 * 1200 * 8 * 7.07e9 / 1e14, rel=1e-3)
    assert parts["validation"] == pytest.approx(9 * 8984 * 1000 * 2 * 7.07e9 / 1e14, rel=1e-3)
    assert parts["all else"] == 8 * 400 * 10
    # An adapter's update is 6 instead of 8 times as much as a rollout's forward pass; all else is the same.
    adapter = hours.gpu_seconds(model, 8, "grpo", 1e15, 0, assumptions, lora_rank=32)
    assert adapter["update"] == pytest.approx(409_600 * 1200 * 6 * 7.07e9 / 1e14, rel=1e-3)
    assert {**adapter, "update": 0} == {**parts, "update": 0}


def test_shapes_have_one_budget(hours):
    """And validations lie as far apart in rollouts."""
    assert hours.settings_of("128x8") == hours.SETTINGS
    assert hours.settings_of("320x1") == hours.Settings(1280, 320, 1, 160)
    for shape in hours.SHAPES:
        settings = hours.settings_of(shape)
        assert settings.budget == 409_600
        assert settings.test_freq * settings.prompts * settings.rollouts == 51_200


def test_ranges(hours):
    """The favourable end is below the other; AERO trains on less, and needs more steps."""
    a = hours.Assumptions()
    for model in hours.MODELS.values():
        low, high = (hours.gpu_seconds(model, 4, "grpo", 989e12, end, a) for end in (0, 1))
        assert all(low[phase] < high[phase] for phase in hours.PHASES)
        aero = hours.gpu_seconds(model, 4, "aero", 989e12, 0, a)
        assert aero["sampling"] == low["sampling"] and aero["update"] == pytest.approx(0.52 * low["update"])
        assert hours.gpu_seconds(model, 4, "aero", 989e12, 1, a)["all else"] == 2 * high["all else"]


def test_memory_fits(hours):
    """By this estimate each setting leaves a fifth of the GPU free, with all weights and Adam counted."""
    for (name, gpus, capacity), setup in hours.SETUPS.items():
        model = hours.MODELS[name]
        parts = hours.memory(model, setup, gpus, capacity * 1e9)
        state = gpus * (parts["weights"] + parts["gradients"] + parts["Adam"])
        if setup.lora_rank:  # float32, of which only the adapter's has gradients and Adam's two moments
            assert state == 4 * model.parameters + 16 * model.adapter(setup.lora_rank)
        else:
            assert state == 16 * model.parameters
        assert max(parts["update"], parts["sampling"]) < 0.8 * capacity * 1e9
        assert parts["cache_tokens"] > (1e6 if capacity == 80 else 64 * 4096)


def test_memory_says_why_settings_differ(hours):
    """Each setting that only some machines have is needed there."""

    def parts(name, gpus, capacity, **changes):
        setup = replace(hours.SETUPS[name, gpus, capacity], **changes)
        return hours.memory(hours.MODELS[name], setup, gpus, capacity * 1e9)

    # Adam's place on 4 GPUs, the 7B:
    assert parts("7b", 4, 80, on_host=None)["sampling"] > 0.85 * 80e9
    # vLLM's share on one card of 80 GB:
    assert parts("1.5b", 1, 80, vllm_share=0.6)["sampling"] > 0.8 * 80e9
    # On one card of 24 GB an adapter, the weights' place, and the small micro-batch:
    full = parts("1.5b", 1, 24, lora_rank=0)
    assert full["weights"] + full["gradients"] + full["Adam"] > 24e9
    assert parts("1.5b", 1, 24, on_host=None)["sampling"] > 0.85 * 24e9
    assert parts("1.5b", 1, 24, tokens=8192)["update"] > 0.8 * 24e9
    # And the 7B on one card of 80 GB:
    one = hours.memory(hours.MODELS["7b"], hours.SETUPS["7b", 8, 80], 1, 80e9)
    assert one["weights"] + one["gradients"] + one["Adam"] == pytest.approx(122e9, rel=0.01)


def test_page_has_its_output(hours, capsys):
    """docs/how-to/gpus-and-qwen2.5-math.md has no figure typed by hand where the script gives one."""
    hours.main([])
    printed, page = capsys.readouterr().out, PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- python scripts/gpu_hours.py -->\n", "<!-- end -->"
    assert page.split(begin)[1].split(end)[0].strip() == printed.strip()


def test_options(hours, capsys):
    hours.main(
        ["--models", "7b", "--gpus", "16", "--peak", "312", "--response", "500", "900", "--steps", "100"]
    )
    printed = capsys.readouterr().out
    assert "102,400 rollouts in 100 steps of 128x8, GPUs of 312 TFLOP/s and 80 GB" in printed
    assert "| `response` | 500 | 900 |" in printed
    assert "Qwen2.5-Math-7B | 16 x 80 GB |" in printed and "1.5B" not in printed


def test_single_rollouts_are_not_for_all_methods(hours, capsys):
    hours.main(["--shape", "320x1", "--models", "1.5b", "--memory", "40"])
    printed = capsys.readouterr().out
    assert "409,600 rollouts in 1,280 steps of 320x1, GPUs of 989 TFLOP/s and 40 GB" in printed
    assert "CERO" in printed and "GRPO" not in printed and "AERO" not in printed
    assert re.findall(r"\| (\d) x 40 GB \|", printed) == ["8", "4", "1"] * 2


# ---- the table of results ------------------------------------------------------------------------


def log(folder, values):
    """A run's log: a step, validations before and after it, and another step."""
    step = {
        "kind": "step",
        "prompts": ["a"],
        "rollouts": [8],
        "successes": [4],
        "trials": [8],
        "budget": 8,
        "epoch": 0,
    } | dict.fromkeys(("sampled", "kept", "trained"), 8)
    seconds = {"timing_s/step": 3600.0, "timing_s/testing": 1800.0}
    records = [
        {"kind": "validation", "step": 0, "spent": 0, "metrics": {"val-core/aime24/acc/mean@32": 0.9}},
        {"kind": "validation", "step": 1, "spent": 4, "metrics": values},
        step | {"step": 1, "spent": 4, "metrics": seconds},
        step | {"step": 2, "spent": 409_600, "metrics": {"timing_s/step": 3600.0}},
    ]
    (folder / "cero").mkdir(parents=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "cero" / "allocations.jsonl").write_text(lines, encoding="utf-8")
    return folder


def test_table_row(table, tmp_path, capsys):
    values = {f"val-core/{name}/acc/mean@32": 0.1 * i for i, name in enumerate(table.SETS)}
    extra = {f"val-core/{name}/acc/best@32/mean": 1.0 for name in table.SETS}
    run = log(tmp_path / "qwen2.5-math-7b-aero", values | extra)
    table.main([str(run), "--gpus", "4"])
    head, _, row = capsys.readouterr().out.splitlines()
    assert (
        head
        == "| run | aime24 | aime25 | amc23 | math500 | minerva | olympiad | mean | rollouts | GPU hours |"
    )
    assert row == "| qwen2.5-math-7b-aero | 0.0 | 10.0 | 20.0 | 30.0 | 40.0 | 50.0 | 25.0 | 409,600 | 10.0 |"


def test_steps_that_a_resumed_run_made_again_count_once(table, tmp_path, capsys):
    run = log(tmp_path / "run", {"val-core/amc23/acc/mean@32": 0.5})
    path = run / "cero" / "allocations.jsonl"
    path.write_text(
        path.read_text() + path.read_text().splitlines()[-1] + "\n" + '{"kind":"step","step":3}\n'
    )
    assert table.row(run, 8)[-1] == "20.0"
    assert "allocations.jsonl" in capsys.readouterr().err


def test_sets_that_are_missing_stay_empty(table, tmp_path):
    run = log(tmp_path / "run", {"val-core/amc23/acc/mean@32": 0.5})
    assert table.row(run, 8) == ["run", "", "", "50.0", "", "", "", "", "409,600", "20.0"]


def test_page_leaves_results_empty(table):
    """Nobody has measured them: a row for each model and method, as `table.py` has it, every cell empty."""
    text = PAGE.read_text(encoding="utf-8").split("## Results")[1]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[:2] == table.markdown([]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[0] for row in cells] == [
        f"qwen2.5-math-{size}-{run}"
        for size in ("1.5b", "7b")
        for run in ("grpo-128x8", "even-1024x1", "cero-1024x1", "aero-128x8")
    ]
    assert all(len(row) == len(table.HEAD) and not any(row[1:]) for row in cells)
    assert "Nobody has measured" in text
