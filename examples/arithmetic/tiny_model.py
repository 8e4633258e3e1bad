"""What is the model? A Llama of about 0.4M parameters that reads and writes single characters.

Shared by the tasks of this kind. Nothing is downloaded: configuration, tokenizer and weights are made here,
in the format of the Hugging Face hub, so verl and vLLM load the folder like any other model. Keep
`model_type: llama`: verl builds token streams by model type, and only the generic builder suits a tokenizer
without the usual special tokens.
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, BOS, EOS, UNK = SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
POSITIONS = 64  # longest sequence, in tokens

# "<bos>(34+17) mod 100 = 51<eos>": the question is the user's turn, what follows " = " is the assistant's.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ ' = ' + message['content'] + eos_token }}"
    "{% else %}{{ bos_token + message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ ' = ' }}{% endif %}"
)


def make_tokenizer(pieces: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per piece, a character or the likes of " = ". All else is <unk>.

    The pieces of several characters may hold letters, spaces and "=" only.
    """
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *pieces))}
    splits = [*(piece for piece in pieces if len(piece) > 1), r"[\s\S]"]
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(splits)), behavior="isolated")
    core.decoder = decoders.Fuse()  # joins without the spaces that a word-level decoder would insert
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        model_max_length=POSITIONS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(
    tokenizer: PreTrainedTokenizerFast, hidden: int = 128, layers: int = 2, heads: int = 4
) -> LlamaForCausalLM:
    """Return a Llama with random weights in float32. Seed torch before the call.

    hidden / heads must be a head size that vLLM's CPU attention knows (32, 64, 80, ...).
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return model
