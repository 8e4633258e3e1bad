"""Does scripts/step_cost.py compare like with like, and say what it measured?

That the trainers take turns, and only where they are asked to, is tested in test_processes.py.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cero.research.speed.turns import ARMS, arm_of
from cero.verl.reading import read_settings

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "scripts" / "speed")]
import qwen_shape  # noqa: E402
import step_cost  # noqa: E402

OF_VERL = {f"timing_s/{phase}": 0.5 for phase in step_cost.PHASES} | {
    "timing_s/step": 1.0,
    "perf/total_num_tokens": 9000,
    "response_length/mean": 8.0,
    "actor/perf/max_memory_allocated_gb": 2.0,
}


def test_everyone_has_a_turn_in_three():
    turns = [tuple(arm_of(step) for step in range(first, first + 3)) for first in range(1, 300, 3)]
    assert all(sorted(turn) == sorted(ARMS) for turn in turns) and len(set(turns)) == 6


def test_config(composed):
    config = composed(*step_cost.overrides("/task", "/out", 6))
    assert config.data.train_batch_size * config.actor_rollout_ref.rollout.n == 384
    assert config.actor_rollout_ref.actor.optim.lr == 1e-9 and config.data.dataloader_num_workers == 0
    config.trainer.v1.trainer_mode = "cero"  # as the trainer sets it
    assert read_settings(config).allocator == "cero"


def test_config_for_a_gpu(composed):
    config = composed(*step_cost.gpu_overrides("/task", "/out", 6))
    assert (
        config.trainer.device == "cuda" and config.actor_rollout_ref.rollout.tensor_model_parallel_size == 1
    )
    assert config.data.train_batch_size * config.actor_rollout_ref.rollout.n == 384
    graphs = json.loads(config.actor_rollout_ref.rollout.engine_kwargs.vllm.compilation_config)
    assert graphs == {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}
    config.trainer.v1.trainer_mode = "cero"
    assert read_settings(config).allocator == "cero"


def test_a_model_for_it(tmp_path):
    """verl loads it and its chat template; every token has a text of its own, and a letter is a token."""
    from transformers import AutoConfig, AutoTokenizer
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    small = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 4,
    }
    qwen_shape.main(tmp_path, qwen_shape.SHAPE | small | {"vocab_size": 500}, "cpu")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    config = AutoConfig.from_pretrained(tmp_path / "model")
    create_continuous_token_builder(tokenizer, hf_model_type=config.model_type)
    prompts = pd.read_parquet(tmp_path / "train.parquet")
    tokens = tokenizer.apply_chat_template(prompts["prompt"][0], tokenize=True, add_generation_prompt=True)
    assert (
        len(tokens["input_ids"]) == 1 + qwen_shape.PROMPT_TOKENS
        and tokenizer.unk_token_id not in tokens["input_ids"]
    )
    assert len({tokenizer.decode(token) for token in range(500)}) == 500 and len(tokenizer) == 500
    easy, hard = (
        np.mean([qwen_shape.compute_score("", f"a text {number}", share) for number in range(2000)])
        for share in ("0.9", "0.1")
    )
    assert easy == pytest.approx(0.9, abs=0.03) and hard == pytest.approx(0.1, abs=0.03)


def test_ratio():
    rng = np.random.default_rng(0)
    theirs = rng.normal(3, 1, 60)
    value, (low, high) = step_cost.ratio(theirs * rng.normal(1.5, 0.03, 60), theirs)
    assert value == pytest.approx(1.5, abs=0.02) and low < value < high and high - low < 0.05


def test_the_scheduler_by_itself_and_the_page(composed, tmp_path):
    rows = [step_cost.at_scale(composed, 8, 4, 100, 3, tmp_path)]
    assert all(rows[0][key] > 0 for key in ("allocate", "observe", "log"))
    assert len((tmp_path / "allocations.jsonl").read_text().splitlines()) == 4

    seconds = {"verl": 2.0, "uniform": 2.1, "cero": 2.0}
    steps = []
    for step in range(1, 31):
        arm, load = arm_of(step), 1 + (step - 1) // len(ARMS)  # a load that grows changes no ratio
        data = dict(OF_VERL)
        if arm != "verl":
            data |= {f"cero/time/{key}": 0.001 for key in ("allocate", "observe", "log")} | {
                "cero/n/mean": 8.0
            }
            data["cero/time/background"] = 0.007
        figures = step_cost.figures_of({"step": step, "data": data})
        steps.append(figures | {"seconds": seconds[arm] * load, "cpu": 2 * load})
    # What was measured above differs from run to run, and could equal a figure that is counted below.
    rows = [rows[0] | {"allocate": 0.011, "observe": 0.012, "log": 0.013, "background": 0.014}]
    circumstances = {"machine": step_cost.machine(), "load": [1.0, 2.0]}
    run, scale = circumstances | {"steps": steps}, circumstances | {"rows": rows}
    text = step_cost.page({"run": run, "scale": scale})
    assert text.count("| 1.050 [1.050, 1.050] |") == 1 and text.count("| 1.000 [1.000, 1.000] |") == 3
    assert text.count("| 3.0 ms |") == 2 and text.count("| 7.0 ms |") == 2
    assert "| 8 x 4 | 100 | 11.0 ms | 12.0 ms | 13.0 ms | 36.0 ms |" in text
    gpu = run | {"machine": run["machine"] | {"gpu": "a GPU", "vllm": "1.0"}}
    text = step_cost.page({"gpu": gpu})
    assert "one a GPU" in text and "| 0.5 s | 0.5 s | 0.5 s | 0.5 s | 9 k |" in text


def test_a_step_of_verls_has_nothing_of_ours():
    step = next(step for step in range(1, 4) if arm_of(step) == "verl")
    with pytest.raises(AssertionError):
        step_cost.figures_of({"step": step, "data": OF_VERL | {"cero/n/mean": 8.0}})
