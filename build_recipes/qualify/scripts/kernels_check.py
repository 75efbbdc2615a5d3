# mypy: ignore-errors
"""Tier 3: vLLM's own kernels against torch, on the GPU.

usage: kernels_check.py FINDINGS.json '{}'

Errors are largest absolute differences to a reference computed in float32 (float64 for the products), as a
part of the reference's largest absolute value. The kernels round between their steps (a norm before it is
multiplied by its weight, each product of a rotation), so a few roundings of the output's type are allowed.
"""

import math

import torch
from common import Findings, Skip

ROUNDINGS = {torch.bfloat16: 2**-7, torch.float16: 2**-9}
"""Tolerance by output type. Half a last place is at most 2**-8 of a bfloat16 value, so two roundings: the
CPU kernels of vLLM 0.12.0 were seen to need 0.0058. Of a float16 value it is 2**-11: four."""
FP8 = 2e-2
"""fp8 inputs with the same scales on both sides, bfloat16 output."""
DEVICE = "cuda"


def compared(seen, wanted, tolerance=None):
    """How far ``seen`` is from ``wanted``; by default a few roundings of its type are allowed."""
    tolerance = tolerance or ROUNDINGS[seen.dtype]
    if not torch.isfinite(seen.float()).all():
        return {"ok": False, "reason": "not finite"}
    scale = wanted.double().abs().max().item() or 1.0
    error = (seen.double() - wanted.double()).abs().max().item() / scale
    return {"ok": error <= tolerance, "error": error, "tolerance": tolerance, "shape": list(seen.shape)}


def rms_norm():
    from vllm import _custom_ops as ops

    x = torch.randn(257, 4096, device=DEVICE, dtype=torch.bfloat16)
    weight = torch.randn(4096, device=DEVICE, dtype=torch.bfloat16)
    out = torch.empty_like(x)
    ops.rms_norm(out, x, weight, 1e-6)
    wide = x.float()
    return compared(out, wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6) * weight.float())


def fused_add_rms_norm():
    from vllm import _custom_ops as ops

    x = torch.randn(129, 2048, device=DEVICE, dtype=torch.float16)
    residual = torch.randn_like(x)
    weight = torch.randn(2048, device=DEVICE, dtype=torch.float16)
    total = (x + residual).float()
    ops.fused_add_rms_norm(x, residual, weight, 1e-6)
    wanted = total * torch.rsqrt(total.pow(2).mean(-1, keepdim=True) + 1e-6) * weight.float()
    first, second = compared(x, wanted), compared(residual, total)
    return {**first, "ok": first["ok"] and second["ok"], "residual_error": second.get("error")}


def silu_and_mul():
    x = torch.randn(83, 2 * 3072, device=DEVICE, dtype=torch.bfloat16)
    import vllm._custom_ops  # noqa: F401  registers the ops

    out = torch.empty(83, 3072, device=DEVICE, dtype=torch.bfloat16)
    torch.ops._C.silu_and_mul(out, x)
    gate, up = x.float().chunk(2, dim=-1)
    return compared(out, torch.nn.functional.silu(gate) * up)


def rotary():
    from vllm import _custom_ops as ops

    tokens, heads, kv_heads, size, longest = 77, 8, 2, 128, 4096
    inverse = 1.0 / (10000.0 ** (torch.arange(0, size, 2, device=DEVICE).float() / size))
    angles = torch.arange(longest, device=DEVICE).float()[:, None] * inverse[None, :]
    cache = torch.cat([angles.cos(), angles.sin()], dim=-1).to(torch.bfloat16)
    positions = torch.randint(0, longest, (tokens,), device=DEVICE)
    query = torch.randn(tokens, heads * size, device=DEVICE, dtype=torch.bfloat16)
    key = torch.randn(tokens, kv_heads * size, device=DEVICE, dtype=torch.bfloat16)

    def wanted(x):
        wide = x.float().view(tokens, -1, size)
        cos, sin = cache[positions].float().chunk(2, dim=-1)
        low, high = wide.chunk(2, dim=-1)
        cos, sin = cos[:, None, :], sin[:, None, :]
        return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1).reshape(tokens, -1)

    want_query, want_key = wanted(query), wanted(key)
    ops.rotary_embedding(positions, query, key, size, cache, True)
    first, second = compared(query, want_query), compared(key, want_key)
    return {**first, "ok": first["ok"] and second["ok"], "key_error": second.get("error")}


def _attention(query, key, value, scale, offset):
    """Causal attention in float32 of (tokens, heads, size); query token i stands at position offset + i."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.float().repeat_interleave(groups, dim=1) for x in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query.float(), key) * scale
    at = torch.arange(query.shape[0], device=DEVICE)[:, None] + offset
    scores.masked_fill_(torch.arange(key.shape[0], device=DEVICE)[None, :] > at, -math.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), value)


def _paged(lengths, kv_heads, size, block, dtype):
    """A paged cache (2, blocks, block, kv_heads, size) with shuffled blocks, its table, and the plain values."""
    per = [math.ceil(length / block) for length in lengths]
    order = torch.randperm(sum(per) + 3)
    table = torch.zeros(len(lengths), max(per), dtype=torch.int32)
    cache = torch.zeros(2, len(order), block, kv_heads, size, dtype=dtype, device=DEVICE)
    plain, used = [], 0
    for row, (length, count) in enumerate(zip(lengths, per, strict=True)):
        blocks = order[used : used + count]
        used += count
        table[row, :count] = blocks
        values = torch.randn(2, length, kv_heads, size, device=DEVICE, dtype=dtype)
        for index in range(length):
            cache[:, blocks[index // block], index % block] = values[:, index]
        plain.append(values)
    return cache, table.to(DEVICE), plain


def flash_attention(version, size, prefill):
    """FlashAttention over a paged cache, as vLLM calls it: whole prompts, or one new token a sequence."""
    from vllm.vllm_flash_attn import flash_attn_interface as flash

    able, reason = getattr(flash, f"_is_fa{version}_supported")()
    if not able:
        raise Skip(reason)
    heads, kv_heads, block, dtype = 8, 2, 16, torch.bfloat16
    lengths = [1, 17, 333, 1024]
    queries = lengths if prefill else [1] * len(lengths)
    cache, table, plain = _paged(lengths, kv_heads, size, block, dtype)
    query = torch.randn(sum(queries), heads, size, device=DEVICE, dtype=dtype)
    starts = torch.tensor([0, *torch.tensor(queries).cumsum(0).tolist()], device=DEVICE, dtype=torch.int32)
    out = flash.flash_attn_varlen_func(
        q=query, k=cache[0], v=cache[1], max_seqlen_q=max(queries), cu_seqlens_q=starts,
        max_seqlen_k=max(lengths), seqused_k=torch.tensor(lengths, device=DEVICE, dtype=torch.int32),
        softmax_scale=size**-0.5, causal=True, block_table=table, fa_version=version,
    )  # fmt: skip
    wanted = [
        _attention(
            query[starts[i] : starts[i + 1]], plain[i][0], plain[i][1], size**-0.5, lengths[i] - queries[i]
        )
        for i in range(len(lengths))
    ]
    return compared(out, torch.cat(wanted))


def cache_write():
    from vllm import _custom_ops as ops

    kv_heads, size, block = 4, 128, 16
    key, value = (torch.randn(50, kv_heads, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    cache = torch.zeros(2, 20, block, kv_heads, size, device=DEVICE, dtype=torch.bfloat16)
    slots = torch.randperm(20 * block, device=DEVICE)[:50]
    one = torch.ones((), device=DEVICE)
    ops.reshape_and_cache_flash(key, value, cache[0], cache[1], slots, "auto", one, one)
    flat = cache.view(2, 20 * block, kv_heads, size)
    same = torch.equal(flat[0, slots], key) and torch.equal(flat[1, slots], value)
    others = flat.clone()
    others[:, slots] = 0
    return {"ok": same and not others.any().item()}


def paged_attention():
    from vllm import _custom_ops as ops

    if not hasattr(ops, "paged_attention_v1"):
        raise Skip("this vLLM has no paged_attention_v1 in its _custom_ops")
    heads, kv_heads, size, block, dtype = 8, 2, 128, 16, torch.float16
    lengths = [5, 64, 511]
    cache, table, plain = _paged(lengths, kv_heads, size, block, dtype)
    pack = 16 // cache.element_size()
    blocks = cache.shape[1]
    keys = cache[0].view(blocks, block, kv_heads, size // pack, pack).permute(0, 2, 3, 1, 4).contiguous()
    values = cache[1].permute(0, 2, 3, 1).contiguous()
    query = torch.randn(len(lengths), heads, size, device=DEVICE, dtype=dtype)
    out, one = torch.empty_like(query), torch.ones((), device=DEVICE)
    ops.paged_attention_v1(
        out, query, keys, values, kv_heads, size**-0.5, table,
        torch.tensor(lengths, device=DEVICE, dtype=torch.int32), block, max(lengths), None, "auto", one, one,
    )  # fmt: skip
    wanted = [
        _attention(query[i : i + 1], plain[i][0], plain[i][1], size**-0.5, lengths[i] - 1)
        for i in range(len(lengths))
    ]
    return compared(out, torch.cat(wanted))


def fp8_gemm():
    from vllm import _custom_ops as ops

    major, minor = torch.cuda.get_device_capability()
    if not ops.cutlass_scaled_mm_supports_fp8(10 * major + minor):
        raise Skip("the wheel has no fp8 GEMM for this device")
    a = torch.randn(300, 1024, device=DEVICE, dtype=torch.bfloat16)
    b = torch.randn(512, 1024, device=DEVICE, dtype=torch.bfloat16)
    a8, a_scale = ops.scaled_fp8_quant(a, use_per_token_if_dynamic=True)
    b8, b_scale = ops.scaled_fp8_quant(b)
    out = ops.cutlass_scaled_mm(a8, b8.t(), a_scale, b_scale, torch.bfloat16)
    wanted = (a8.double() * a_scale.double()) @ (b8.double() * b_scale.double()).t()
    quantised = compared(a8.float() * a_scale, a.float(), 0.07)  # e4m3 has 3 bits: half a place is 1/16
    done = compared(out, wanted, FP8)
    return {**done, "ok": done["ok"] and quantised["ok"], "quantisation_error": quantised.get("error")}


def marlin():
    from vllm import _custom_ops as ops
    from vllm.model_executor.layers.quantization.utils.marlin_utils import marlin_make_workspace_new
    from vllm.model_executor.layers.quantization.utils.marlin_utils_test import marlin_quantize
    from vllm.scalar_type import scalar_types

    rows, inner, columns = 48, 1024, 512
    a = torch.randn(rows, inner, device=DEVICE, dtype=torch.float16)
    weight = torch.randn(inner, columns, device=DEVICE, dtype=torch.float16) / 32
    reference, packed, scales, index, order, _ = marlin_quantize(weight, scalar_types.uint4b8, 128, False)
    workspace = marlin_make_workspace_new(a.device)
    names = {
        "a": a, "c": None, "b_q_weight": packed, "b_bias": None, "b_scales": scales, "a_scales": None,
        "global_scale": None, "b_zeros": None, "g_idx": index, "perm": order, "workspace": workspace,
        "b_q_type": scalar_types.uint4b8, "size_m": rows, "size_n": columns, "size_k": inner,
        "is_k_full": True, "use_atomic_add": False, "use_fp32_reduce": True, "is_zp_float": False,
    }  # fmt: skip
    import inspect

    found = (getattr(ops, name, None) for name in ("gptq_marlin_gemm", "marlin_gemm"))  # renamed in 0.20
    gemm = next((one for one in found if one), None)
    if gemm is None:
        raise Skip("this vLLM has no Marlin GEMM in its _custom_ops")
    known = inspect.signature(gemm).parameters
    out = gemm(**{key: value for key, value in names.items() if key in known})
    return compared(out, a.double() @ reference.double())


def deep_gemm():
    """DeepGEMM's fp8 product with a scale for each 1 x 128 of a and each 128 x 128 of b; it compiles its kernel now."""
    try:
        from vllm.model_executor.layers.quantization.utils.fp8_utils import per_token_group_quant_fp8
        from vllm.utils import deep_gemm as gemm
        from vllm.utils.deep_gemm import is_deep_gemm_supported, per_block_cast_to_fp8
    except ImportError as error:
        raise Skip(f"this vLLM does not call DeepGEMM: {error}") from None
    if not is_deep_gemm_supported():
        raise Skip("DeepGEMM is not in this wheel, or not for this GPU")
    a = torch.randn(300, 1024, device=DEVICE, dtype=torch.bfloat16)
    b = torch.randn(512, 1024, device=DEVICE, dtype=torch.bfloat16)
    rounded = gemm.is_deep_gemm_e8m0_used()
    a8, a_scale = per_token_group_quant_fp8(a, 128, use_ue8m0=rounded)
    b8, b_scale = per_block_cast_to_fp8(b, [128, 128], use_ue8m0=rounded)
    out = torch.empty(300, 512, device=DEVICE, dtype=torch.bfloat16)
    gemm.fp8_gemm_nt((a8, a_scale), (b8, b_scale), out, is_deep_gemm_e8m0_used=rounded)
    left = a8.double() * a_scale.double().repeat_interleave(128, dim=1)
    right = b8.double() * b_scale.double().repeat_interleave(128, dim=0).repeat_interleave(128, dim=1)
    quantised = compared(left.float(), a.float(), 0.07 if not rounded else 0.14)
    done = compared(out, left @ right.t(), FP8)
    return {**done, "ok": done["ok"] and quantised["ok"], "quantisation_error": quantised.get("error")}


def moe_align():
    from vllm import _custom_ops as ops

    tokens, top, experts, block = 111, 4, 16, 32
    ids = torch.stack([torch.randperm(experts)[:top] for _ in range(tokens)]).to(DEVICE, torch.int32)
    room = tokens * top + experts * (block - 1)
    order = torch.full((room,), -1, dtype=torch.int32, device=DEVICE)
    owners = torch.full((math.ceil(room / block),), -1, dtype=torch.int32, device=DEVICE)
    padded = torch.empty(1, dtype=torch.int32, device=DEVICE)
    ops.moe_align_block_size(ids, experts, block, order, owners, padded)
    used, flat = padded.item(), ids.flatten().tolist()
    order, owners = order.tolist(), owners.tolist()
    seen = []
    for start in range(0, used, block):
        inside = [slot for slot in order[start : start + block] if 0 <= slot < len(flat)]
        if any(flat[slot] != owners[start // block] for slot in inside):
            return {"ok": False, "reason": f"block {start // block} holds tokens of another expert"}
        seen += inside
    wanted = sum(math.ceil(flat.count(e) / block) * block for e in range(experts))
    return {"ok": sorted(seen) == list(range(len(flat))) and used == wanted, "padded": used, "wanted": wanted}


def topk_softmax():
    from vllm import _custom_ops as ops

    tokens, experts, top = 200, 32, 4
    logits = torch.randn(tokens, experts, device=DEVICE)
    weights = torch.empty(tokens, top, device=DEVICE)
    ids, sources = (torch.empty(tokens, top, device=DEVICE, dtype=torch.int32) for _ in range(2))
    ops.topk_softmax(weights, ids, sources, logits)
    wanted, places = logits.softmax(-1).topk(top, dim=-1)
    done = compared(weights, wanted, 1e-5)
    return {**done, "ok": done["ok"] and torch.equal(ids.long(), places)}


def main() -> None:
    found = Findings()
    torch.manual_seed(20251203)
    found.set(device=torch.cuda.get_device_name(0), torch=torch.__version__)
    found.check("rms_norm", rms_norm)
    found.check("fused_add_rms_norm", fused_add_rms_norm)
    found.check("silu_and_mul", silu_and_mul)
    found.check("rotary_embedding", rotary)
    found.check("reshape_and_cache_flash", cache_write)
    found.check("paged_attention_v1", paged_attention)
    for version in (2, 3):
        for size in (64, 128):
            for prefill in (True, False):
                name = f"flash_attention_{version} hdim {size} {'prefill' if prefill else 'decode'}"
                found.check(name, lambda v=version, s=size, p=prefill: flash_attention(v, s, p))
    found.check("fp8 quantisation and cutlass_scaled_mm", fp8_gemm)
    found.check("Marlin GEMM (uint4b8, group 128)", marlin)
    found.check("DeepGEMM fp8 (1 x 128 by 128 x 128)", deep_gemm)
    found.check("topk_softmax", topk_softmax)
    found.check("moe_align_block_size", moe_align)
    torch.cuda.synchronize()
    found.set(peak_bytes=torch.cuda.max_memory_allocated())


main()
