"""Import vllm_flash_attn from a tree (below the folder in argv[2]) where none of its compiled modules is there, and
print as JSON what it says of FlashAttention 3."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import standins  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(sys.argv[1]) / sys.argv[2]))
standins.install("torch", "triton", "einops", "vllm", "flash_attn")
found = importlib.import_module("vllm_flash_attn.flash_attn_interface")
print(json.dumps({"available": found.FA3_AVAILABLE, "why": found.FA3_UNAVAILABLE_REASON}))
