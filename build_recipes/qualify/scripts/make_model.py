# mypy: ignore-errors
"""Tier 4: make a tiny Llama with a fixed seed and a byte-level tokenizer, no download.

usage: make_model.py FINDINGS.json '{"folder": "..."}'

The weights are spread wider than in training's start, so that attention is sharp and the next token depends on
what came before; with the usual 0.02 every prompt would give nearly the same.
"""

from common import Findings

PROMPTS = [
    "The first thing to know about a Jetson is",
    "Compile once, run where the sun does not shine: ",
    "def fibonacci(n):\n    ",
    "0 1 1 2 3 5 8 13 21",
    "a",
    "Jede Maschine hat ihre eigene Architektur. " * 6,
    "Grace Hopper once said that " * 12,
    "\u30c8\u30fc\u30af\u30f3\u3092\u6570\u3048\u308b",
]


def main() -> None:
    found = Findings()

    def make():
        import torch
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        folder = found.options["folder"]
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        words = {letter: number for number, letter in enumerate(["<s>", "</s>", *letters])}
        tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        wrapped = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=1024
        )
        wrapped.save_pretrained(folder)
        torch.manual_seed(1203)
        config = LlamaConfig(
            vocab_size=len(words), hidden_size=512, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=8,
            num_key_value_heads=2, head_dim=64, max_position_embeddings=1024, initializer_range=0.06,
            tie_word_embeddings=False, bos_token_id=0, eos_token_id=1,
        )  # fmt: skip
        model = LlamaForCausalLM(config).to(torch.float16)
        model.save_pretrained(folder, safe_serialization=True)
        ids = [wrapped(prompt)["input_ids"] for prompt in PROMPTS]
        found.set(prompts=ids, texts=PROMPTS, parameters=sum(p.numel() for p in model.parameters()))

    found.check("make a model", make)


main()
