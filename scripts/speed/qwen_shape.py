"""What does a step cost with a model of Qwen2.5-Math-1.5B's shape? Makes such a model, and prompts for it.

    python scripts/speed/qwen_shape.py FOLDER     writes model/, train.parquet, test.parquet

The weights are random, so no hub is needed, and nothing can be learned. A random model samples nearly
uniformly from its 151,936 tokens, so it never ends a response: each is as long as allowed. The reward
function is in this file, too (`reward.custom_reward_function.path`). It tosses a coin by the response's text,
with a bias from 0.02 to 0.98 that is the prompt's, so that allocators have something to tell apart.
"""

import argparse
import string
import sys
import zlib
from pathlib import Path

PROMPTS, PROMPT_TOKENS, SEED = 480, 100, 0
sys.path.append(str(Path(__file__).resolve().parents[2] / "examples" / "arithmetic"))  # its tokenizer, larger
# As in Qwen/Qwen2.5-Math-1.5B/config.json on the hub. The model is a Llama, without biases in its attention,
# because transformers and verl both insist on Qwen's own tokenizer for a Qwen2. The special tokens are those
# that tiny_model's tokenizer has first.
SHAPE = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """Return 1.0 for a share `ground_truth` (a number, as text) of all texts, else 0.0, for verl."""
    return float(zlib.crc32(str(solution_str).encode()) / 2**32 < float(ground_truth))


def write_tokenizer(folder, size):
    """Write a tokenizer of `size` tokens: one for each letter, the others for characters from U+10000 on."""
    from tiny_model import SPECIAL, make_tokenizer

    letters = [*string.ascii_lowercase, " "]
    others = (chr(0x10000 + number) for number in range(size - len(SPECIAL) - len(letters)))
    tokenizer = make_tokenizer((*letters, *others))
    tokenizer.model_max_length = SHAPE["max_position_embeddings"]
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    )
    tokenizer.save_pretrained(folder)


def write_model(folder, shape, device):
    """Write a model with random weights in bfloat16, 3.1 GB for SHAPE; return its number of parameters."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(SEED)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**shape), dtype=torch.bfloat16)
    model.generation_config.pad_token_id = shape["pad_token_id"]
    model.save_pretrained(folder)
    return sum(weights.numel() for weights in model.parameters())


def write_prompts(path, count):
    """Write `count` rows with the columns that verl's data set reads."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(SEED)
    texts = ["".join(row) for row in rng.choice(list(string.ascii_lowercase), (count, PROMPT_TOKENS))]
    shares = rng.permutation(np.linspace(0.02, 0.98, count))
    rows = [
        {
            "data_source": "qwen_shape",
            "prompt": [{"role": "user", "content": text}],
            "reward_model": {"style": "rule", "ground_truth": f"{share:.3f}"},
            "extra_info": {"index": place},
        }
        for place, (text, share) in enumerate(zip(texts, shares, strict=True))
    ]
    pd.DataFrame(rows).to_parquet(path)


def main(folder, shape=None, device=None):
    """Write model and prompts into `folder`; shape : dict as SHAPE; device : str, where weights are drawn."""
    import torch

    shape = shape or SHAPE
    folder = Path(folder)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / "model", shape["vocab_size"])
    count = write_model(folder / "model", shape, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    write_prompts(folder / "train.parquet", PROMPTS)
    write_prompts(folder / "test.parquet", 16)
    print(f"{count / 1e9:.2f} billion parameters in {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    main(parser.parse_args().folder)
