"""Do verl and the laboratory, which has its own sampling and its own update, come to the same weights?"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny import command, make_model, run
from transformers import AutoModelForCausalLM, AutoTokenizer

from cero.research.laboratory.__main__ import load_score
from cero.research.laboratory.contenders import parse_contender
from cero.research.laboratory.replay import replay
from cero.research.laboratory.training import Laboratory

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

STEPS, BATCH, N, LENGTH = 12, 16, 2, 3
EVEN_REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str[:1] in tuple(ground_truth))}
"""
CERO = f"cero:signal_hard/response=4@n={N},batch={BATCH},lr=1e-3,baseline=optimal,bucket=text"


def teach_digits(folder):
    """Train the model to end after a digit, whichever. A random one says padding, which is not in a text."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for _ in range(60):
        a, b, c = torch.randint(10, (3, 64)).tolist()
        texts = [f"{i}+{j}={k}" for i, j, k in zip(a, b, c, strict=True)]
        ids = tokenizer(texts, add_special_tokens=False, return_tensors="pt")["input_ids"]
        ids = torch.nn.functional.pad(ids, (0, 1), value=tokenizer.eos_token_id)
        labels = ids.clone()
        labels[:, :-2] = -100
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def make_task(folder):
    """Write a model that says a digit mostly, and 64 questions for which some digits are right."""
    make_model(folder / "model", tied=True)
    teach_digits(folder / "model")
    digits = ("02468", "13579", "5", "0")
    rows = [
        {
            "data_source": "digits",
            "prompt": [{"role": "user", "content": f"{i % 10}+{i // 10}="}],
            "reward_model": {"style": "rule", "ground_truth": digits[i % 4]},
            "extra_info": {"index": i, "family": f"digits-{i % 4}", "forms": list(digits[i % 4])},
        }
        for i in range(64)
    ]
    for split in ("train", "test", "train_sample"):
        pq.write_table(
            pa.Table.from_pylist(rows if split == "train" else rows[:8]), folder / f"{split}.parquet"
        )
    (folder / "reward.py").write_text(EVEN_REWARD)


def test_the_same_rollouts_and_the_same_weights(tmp_path):
    """Counts of rollouts that differ, the shared optimal baseline, advantages, loss, clipping and AdamW."""
    make_task(tmp_path)
    folder = tmp_path / "checkpoints"
    arguments = command(
        tmp_path,
        "allocator.response=4",
        "allocator.seed=5",
        f"actor_rollout_ref.rollout.n={N}",
        f"data.max_response_length={LENGTH}",
        "actor_rollout_ref.actor.optim.lr=1e-3",
        "trainer.total_epochs=3",
        f"trainer.total_training_steps={STEPS}",
        "trainer.val_before_train=false",
        "trainer.save_freq=6",
        "trainer.test_freq=-1",
        "trainer.resume_mode=disable",
        f"trainer.rollout_data_dir={folder}/rollouts",
        "actor_rollout_ref.actor.checkpoint.save_contents=[hf_model]",
    )
    run(arguments, tmp_path)
    laboratory = Laboratory(tmp_path, load_score(tmp_path / "reward.py"), LENGTH, STEPS * BATCH * N)
    found = replay(laboratory, parse_contender(CERO), 5, folder)
    assert found.steps == STEPS and found.rollouts == STEPS * BATCH * N
    assert [step for step, *_ in found.weights] == [6, 12]
    for _, moved, apart in found.weights:
        assert moved > 0.5 and apart < 1e-3 * moved
    # Samples are those of the policy, and independent.
    assert abs(found.surprise) < 4 and abs(found.alike) < 4 and found.pairs > 50
    for other, seed in ((CERO.replace("response=4", "response=2"), 5), (CERO, 6)):
        with pytest.raises(ValueError, match=r"step \d+: the allocator gives the question"):
            replay(laboratory, parse_contender(other), seed, folder)
    unshared = replay(laboratory, parse_contender(CERO.replace(",bucket=text", "")), 5, folder)
    assert np.min([apart / moved for _, moved, apart in unshared.weights]) > 0.01  # it would be noticed
