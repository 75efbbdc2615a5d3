# mypy: ignore-errors
"""Tier 2: vLLM takes this machine for what it is.

usage: platform_check.py FINDINGS.json '{"capability": "9.0", "unified": false}'
"""

from pathlib import Path

from common import Findings


def main() -> None:
    found = Findings()

    def platform():
        from vllm.platforms import current_platform as here

        kind = type(here)
        name = f"{kind.__module__}.{kind.__qualname__}"
        found.set(platform=name, device_type=here.device_type)
        return {
            "ok": here.device_type == "cuda" and here.is_cuda(),
            "class": name,
            "device_type": here.device_type,
        }

    def capability():
        import torch
        from vllm.platforms import current_platform as here

        seen = ".".join(map(str, torch.cuda.get_device_capability(0)))
        said = here.get_device_capability()
        wanted = found.options.get("capability")
        text = f"{said.major}.{said.minor}"
        found.set(device=torch.cuda.get_device_name(0), capability=seen, driver=_driver())
        return {
            "ok": seen == text and wanted in (None, "", seen),
            "torch": seen,
            "vllm": text,
            "wanted": wanted,
        }

    def memory():
        import torch
        from vllm.platforms import current_platform as here

        free, total = torch.cuda.mem_get_info(0)
        said = here.get_device_total_memory()
        sane = 0 < free <= total and abs(said - total) <= 0.05 * total
        found.set(memory_total=total, memory_free=free, memory_vllm=said)
        return {
            "ok": sane or bool(found.options.get("unified") and said > 0),
            "total": total,
            "free": free,
            "vllm": said,
        }

    found.check("platform is CUDA", platform)
    found.check("capability", capability)
    found.check("memory figures", memory)


def _driver() -> str:
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].strip()
    except OSError:
        return ""


main()
