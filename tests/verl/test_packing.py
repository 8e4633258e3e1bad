"""Rows that are packed into one, without padding: does PyTorch's attention keep them apart?

verl passes packed rows by their positions alone (model.use_remove_padding), and says that this needs
flash-attention. transformers finds the rows by their positions for PyTorch's attention, too.
"""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("family", ["Llama", "Qwen2"])
def test_packed_rows_are_those_of_each_by_itself(family):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3, attn_implementation="sdpa",
    )  # fmt: skip
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    rows = [torch.randint(50, (length,)) for length in (5, 11, 1, 7)]
    ids = torch.cat(rows)[None]
    positions = torch.cat([torch.arange(len(row)) for row in rows])[None]

    def logits_and_gradient(inputs):
        model.zero_grad()
        logits = torch.cat(
            [
                model(input_ids=i, attention_mask=None, position_ids=p, use_cache=False).logits[0]
                for i, p in inputs
            ]
        )
        (logits.log_softmax(-1) ** 2).mean().backward()
        return logits.detach(), [each.grad.clone() for each in model.parameters()]

    alone = [(row[None], torch.arange(len(row))[None]) for row in rows]
    packed, gradient = logits_and_gradient([(ids, positions)])
    expected, its_gradient = logits_and_gradient(alone)
    torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-4)
    for one, other in zip(gradient, its_gradient, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    # It shows what it is to show: with positions that go on, each row sees those before it.
    mixed, _ = logits_and_gradient([(ids, torch.arange(ids.shape[1])[None])])
    assert (mixed - expected).abs().max() > 0.1
