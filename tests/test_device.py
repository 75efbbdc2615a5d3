"""The device table, the architecture check and detection below a fake root."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from build_recipes.facts.architectures import Architecture, best, loading, parse_list
from build_recipes.facts.device import canonical, detect, device, devices
from build_recipes.kit.errors import ArchitectureMismatch, UnknownDevice, UsageError


def test_every_device_asks_for_one_plain_architecture() -> None:
    for name, entry in devices().items():
        assert entry.arch_list == entry.capability, name
        assert entry.platform_tag.endswith(entry.machine), name
        assert entry.platform_tag.startswith(f"manylinux_{entry.glibc.replace('.', '_')}_"), name


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("thor", "9.0"), ("thor", "10.1"), ("thor", "9.0+PTX"), ("spark", "12.0a"), ("spark", "11.0"), ("orin", "8.0;8.6"),
     ("gb300", "10.0a"), ("gb200", "10.3"), ("gh200", "Ampere"), ("gh200", "8.9 10.0")],
)  # fmt: skip
def test_an_architecture_whose_code_does_not_load_is_refused(name: str, wanted: str) -> None:
    with pytest.raises(ArchitectureMismatch, match="no machine code") as caught:
        device(name).check_arch(wanted)
    assert f"TORCH_CUDA_ARCH_LIST={device(name).arch_list}" in caught.value.advice


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("thor", "11.0f"), ("thor", "11.0+PTX"), ("thor", "11.0a"), ("spark", "12.1a"), ("spark", "12.0"),
     ("spark", "12.0f"), ("spark", "12.1;8.7"), ("spark", "Blackwell"), ("orin", "8.7"), ("gb300", "10.0f"),
     ("gh200", "9.0a"), ("gh200", "Hopper")],
)  # fmt: skip
def test_an_architecture_whose_code_loads_is_taken(name: str, wanted: str) -> None:
    device(name).check_arch(wanted)


@pytest.mark.parametrize("wanted", ["thor", "13", "9,x", "12.1b", ""])
def test_a_word_that_is_no_architecture_is_a_usage_error(wanted: str) -> None:
    with pytest.raises(UsageError, match="is not an architecture"):
        parse_list(wanted)


def test_the_driver_takes_the_nearest_target() -> None:
    made = parse_list("8.0 9.0 10.0f 12.0 12.0a 12.1")
    assert best(made, 121) == Architecture(121)
    assert best(made, 120) == Architecture(120, "a")
    assert best(made, 103) == Architecture(100, "f")
    assert best(made, 89) == Architecture(80)
    assert best(made, 87) is None and best(made, 110) is None
    assert loading([87, 121]) == {87, 120, 121}


@pytest.mark.parametrize(
    ("said", "name"),
    [("gb10", "spark"), ("GB10", "spark"), ("dgx_spark", "spark"), ("DGX Spark", "spark"), ("jetson-thor", "thor"),
     ("T5000", "thor"), ("orin-nano", "orin"), ("b300", "gb300"), ("b200", "gb200"), ("thor", "thor")],
)  # fmt: skip
def test_a_device_goes_by_the_names_people_use(said: str, name: str) -> None:
    assert canonical(said) == name
    assert device(said) is device(name)


def test_no_alias_is_used_twice() -> None:
    every = [alias for entry in devices().values() for alias in entry.aliases] + list(devices())
    assert len(every) == len(set(every))
    assert all(re.fullmatch(r"[a-z0-9-]+", alias) for alias in every)


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
