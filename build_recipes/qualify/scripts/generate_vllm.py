# mypy: ignore-errors
"""Tier 4: greedy tokens through LLM.generate.

usage: generate_vllm.py FINDINGS.json '{"folder": ..., "prompts": [[ids]], "tokens": 64, "utilization": 0.3,
        "eager": true}'
"""

import time

from common import Findings


def main() -> None:
    found = Findings()
    options = found.options

    def generate():
        import torch
        from vllm import LLM, SamplingParams

        started = time.monotonic()
        model = LLM(
            model=options["folder"],
            dtype="float16",
            max_model_len=1024,
            max_num_seqs=16,
            gpu_memory_utilization=options["utilization"],
            kv_cache_memory_bytes=options.get("kv_bytes"),
            enforce_eager=options["eager"],
            seed=0,
        )
        loaded = time.monotonic() - started
        settings = SamplingParams(temperature=0, max_tokens=options["tokens"], ignore_eos=True)
        prompts = [{"prompt_token_ids": ids} for ids in options["prompts"]]
        model.generate(prompts, settings, use_tqdm=False)  # first use compiles Triton's kernels
        started = time.monotonic()
        answers = model.generate(prompts, settings, use_tqdm=False)
        seconds = time.monotonic() - started
        tokens = [list(answer.outputs[0].token_ids) for answer in answers]
        free, total = torch.cuda.mem_get_info()
        found.set(
            tokens=tokens,
            texts=[answer.outputs[0].text for answer in answers],
            load_seconds=round(loaded, 2),
            seconds=round(seconds, 3),
            tokens_per_second=round(sum(map(len, tokens)) / seconds, 1),
            peak_allocated_bytes=torch.cuda.max_memory_allocated(),
            peak_reserved_bytes=torch.cuda.max_memory_reserved(),
            device_used_bytes=total - free,
        )
        return {"generated": sum(map(len, tokens))}

    found.check("LLM.generate", generate)


if __name__ == "__main__":  # vLLM may start this file again in a child
    main()
