"""Which package is at fault, from the paths and names that a failure tells."""

from __future__ import annotations

import re

from build_recipes.diagnosis import grammar
from build_recipes.diagnosis.events import Event

_SITE = re.compile(
    r"(?:site|dist)-packages/(?P<top>[A-Za-z_]\w*)(?:/(?P<sub>[\w.-]+))?(?:/(?P<third>[\w.-]+))?"
)
_TREE = re.compile(r"(?:\.deps|_deps)/(?P<name>[\w.-]+?)-(?:src|build|subbuild)\b")
_CACHE = re.compile(
    r"\.cache/(?P<name>flashinfer|vllm/deep_gemm|deep_gemm|torch_extensions/[^/]+/(?P<ext>\w+))"
)
_MODULE = re.compile(
    r"No module named '(?P<name>[A-Za-z_]\w*)"
    r"|cannot import name '\w+' from (?:partially initialized module )?'(?P<name2>[A-Za-z_]\w*)"
)
_LIBRARY = re.compile(
    r"\blib(?P<name>torchcodec|nixl|mamba\w*|flashinfer|xformers|nvshmem\w*|torchaudio|torchvision)\w*(?:\.so)?"
)
_VERSIONED = re.compile(
    r"^(?:\w+Error: )?(?P<name>flashinfer-cubin|flashinfer-jit-cache|[a-z][\w-]+) version \(?\d"
)
_PARTS = ("vllm_flash_attn", "third_party")
"""Folders inside vLLM that hold another project."""


def package(event: Event) -> str:
    """The package at fault; empty where nothing tells."""
    if event.package:
        return grammar.distribution(event.package)
    if event.unit and (found := _TREE.search(event.unit)):
        return _name(found)
    text = event.heads[0].text
    if event.tool == "ld.so" and (found := _SITE.search(text)) and not _LIBRARY.search(text):
        return _name(found)
    for regex in (_VERSIONED, _MODULE, _LIBRARY, _TREE, _CACHE, _SITE):
        if (found := regex.search(text)) and not grammar.transparent(found.groupdict().get("top") or ""):
            return _name(found)
    for frame in reversed(event.frames):
        if name := _of_path(frame):
            return name
    for line in (*event.heads[1:], *event.body):
        for regex in (_MODULE, _LIBRARY, _TREE, _SITE):
            if (found := regex.search(line.text)) and not grammar.transparent(
                found.groupdict().get("top") or ""
            ):
                return _name(found)
    return ""


def around(lines: list[str], phase: str, found: list[Event]) -> str:
    """The package that the lines around a failure speak of; where a build failed, the one that was built."""
    for line in lines:
        if place := _TREE.search(line) or _CACHE.search(line):
            return _name(place)
    if phase in ("prepare", "configure", "compile", "link"):
        return next((grammar.distribution(event.package) for event in found if event.package), "")
    return ""


def _of_path(path: str) -> str:
    if found := _TREE.search(path):
        return _name(found)
    found = _SITE.search(path)
    if found is None or grammar.transparent(found["top"]):
        return ""
    return _name(found)


def _name(found: re.Match[str]) -> str:
    groups = found.groupdict()
    if groups.get("top"):
        top, sub, third = groups["top"], groups.get("sub") or "", groups.get("third") or ""
        if top == "vllm" and sub in _PARTS:
            top = third if sub == "third_party" and third and "." not in third else sub
        return grammar.distribution(top.removesuffix(".py"))
    name = groups.get("ext") or groups.get("name") or groups.get("name2") or ""
    return grammar.distribution(name.replace("vllm/", "").replace("vllm-flash-attn", "vllm_flash_attn"))
