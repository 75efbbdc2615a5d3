"""The device table, the architecture check and detection below a fake root."""

from __future__ import annotations

from pathlib import Path

import pytest

from build_recipes.facts.device import detect, device, devices
from build_recipes.kit.errors import ArchitectureMismatch, UnknownDevice


def test_every_device_asks_for_one_plain_architecture() -> None:
    for name, entry in devices().items():
        assert entry.arch_list == entry.capability, name
        assert entry.platform_tag.endswith(entry.machine), name
        assert entry.platform_tag.startswith(f"manylinux_{entry.glibc.replace('.', '_')}_"), name


@pytest.mark.parametrize(
    ("wanted", "why"), [("9.0", "does not run"), ("11.0f", "suffix"), ("11.0+PTX", "suffix")]
)
def test_thor_refuses_an_architecture_that_is_not_its_own(wanted: str, why: str) -> None:
    with pytest.raises(ArchitectureMismatch, match=why) as caught:
        device("thor").check_arch(wanted)
    assert "TORCH_CUDA_ARCH_LIST=11.0" in caught.value.advice


def test_an_unknown_device_names_the_nearest() -> None:
    with pytest.raises(UnknownDevice, match="did you mean thor"):
        device("tohr")


def test_detection_reads_the_device_tree_and_the_driver(tmp_path: Path) -> None:
    assert detect(tmp_path, "aarch64") is None
    tree = tmp_path / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"nvidia,p3834-0008\0nvidia,tegra264\0")
    assert detect(tmp_path, "aarch64") == "thor"


@pytest.mark.parametrize(
    ("model", "machine", "name"),
    [
        ("NVIDIA GB10", "aarch64", "spark"),
        ("NVIDIA GH200 480GB", "aarch64", "gh200"),
        ("NVIDIA H200", "x86_64", "h200"),
        ("NVIDIA GeForce RTX 5090", "x86_64", None),
    ],
)
def test_detection_by_gpu_model(tmp_path: Path, model: str, machine: str, name: str | None) -> None:
    card = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text(f"Model: \t\t {model}\nIRQ: 1\n")
    assert detect(tmp_path, machine) == name
