# mypy: ignore-errors
"""Tier 1: vllm imports, its compiled modules load, and the ops its Python files call are registered.

usage: import_check.py FINDINGS.json '{"modules": ["vllm._C", ...], "ops": {"_C": ["rms_norm", ...]}}'
"""

import importlib
import importlib.metadata

from common import Findings, Skip


def requirements():
    """The wheel's requirements that this environment has not, or has in another version than asked for."""
    from packaging.requirements import Requirement

    absent, other = [], {}
    for line in importlib.metadata.requires("vllm") or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            absent.append(wanted.name)
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            other[wanted.name] = f"{version} (asked for: {wanted.specifier})"
    return absent, other


def main() -> None:
    found = Findings()
    try:
        absent, other = requirements()
        found.set(requirements_absent=absent, requirements_other=other)
    except ImportError:  # no packaging: nothing is told of them
        pass

    def vllm_itself():
        import torch
        import vllm

        found.set(vllm=vllm.__version__, torch=torch.__version__, cuda=torch.version.cuda, file=vllm.__file__)

    found.check("import vllm", vllm_itself)

    def module(name):
        try:
            importlib.import_module(name)
        except ImportError as error:
            if "libcuda.so.1" in str(error):  # the driver's library: no fault of the wheel
                raise Skip(str(error)) from None
            raise

    for name in found.options["modules"]:
        found.check(f"import {name}", lambda name=name: module(name))

    def classes():
        from vllm import LLM, SamplingParams

        return {"classes": [LLM.__name__, SamplingParams.__name__]}

    found.check("from vllm import LLM, SamplingParams", classes)

    def server():
        importlib.import_module("vllm.entrypoints.openai.api_server")

    found.check("import vllm.entrypoints.openai.api_server", server)

    def ops():
        import torch

        missing, present = {}, 0
        for space, names in found.options["ops"].items():
            for name in names:
                if hasattr(getattr(torch.ops, space), name):
                    present += 1
                else:
                    missing.setdefault(space, []).append(name)
        found.set(registered=present, missing=missing)
        return {"ok": not missing, "registered": present, "missing": missing}

    found.check("ops that the Python files call are registered", ops)


main()
