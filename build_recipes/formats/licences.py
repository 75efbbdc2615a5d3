"""The licence of a package or a source tree, as it tells it itself: an SPDX expression, or the words it uses."""

from __future__ import annotations

import re
from email.message import Message
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from build_recipes.formats.wheel import Wheel

CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "BSD License": "",  # which of them is not said
}
"""Trove classifiers (``License :: OSI Approved :: ...``) that mean one licence: https://pypi.org/classifiers/"""
NAMES = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd-3": "BSD-3-Clause",
    "mit license": "MIT",
}
"""What the free text ``License`` says where it means one SPDX identifier, in small letters."""
TEXTS = (
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("MIT", ("permission is hereby granted, free of charge",)),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "endorse or promote products")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
)
"""SPDX identifier to words that its text has, the first that fits: https://spdx.org/licenses/"""
MOST = 64 << 10
"""Bytes of a licence file that are looked at."""


def of_metadata(metadata: Message) -> str:
    """What core metadata says: License-Expression, else a short License, else its classifier; empty for nothing."""
    for value in (metadata.get("License-Expression"), metadata.get("License")):
        text = " ".join(str(value or "").split())
        if not text or len(text) > 80 or text.upper() == "UNKNOWN":
            continue
        try:
            return str(canonicalize_license_expression(text))
        except InvalidLicenseExpression:
            return NAMES.get(text.lower(), text)
    for line in metadata.get_all("Classifier") or []:
        if match := re.fullmatch(r"License :: (?:OSI Approved :: )?(.+)", str(line).strip()):
            return CLASSIFIERS.get(match[1], match[1])
    return ""


def of_wheel(wheel: Wheel) -> str:
    """What a wheel says: its metadata, else the licence files in its dist-info."""
    if found := of_metadata(wheel.metadata):
        return found
    names = [
        name for name in wheel.members if re.match(rf"{re.escape(wheel.dist_info)}/.*LICEN[CS]E", name, re.I)
    ]
    return next((found for name in sorted(names) if (found := of_text(wheel.text(name)))), "")


def of_tree(folder: Path) -> str:
    """What the licence file at the top of a source tree is; empty where there is none, or it is not known."""
    for path in sorted(folder.glob("LICEN[CS]E*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as stream:
                if found := of_text(stream.read(MOST).decode("utf-8", "replace")):
                    return found
    return ""


def of_text(text: str) -> str:
    """The SPDX identifier of a licence's text; empty where it is not known."""
    plain = " ".join(text.lower().split())
    return next((name for name, words in TEXTS if all(word in plain for word in words)), "")
