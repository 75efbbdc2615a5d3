"""The package index of what is published: static pages whose links go to the releases' files.

    SITE/simple/            every wheel
    SITE/DEVICE/simple/     those of one device: where no more than ``pip install vllm`` is asked for

PEP 503 pages with PEP 658 metadata, and PEP 691 documents beside them (a static server cannot choose by what the
client accepts). A version of one device cannot be told from another's by pip: it takes the greatest local part.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from packaging.version import Version

from build_recipes.nightly.publishing.catalogue import Catalogue
from build_recipes.wheelhouse.index import PAGES, Entry, write_pages


def write(catalogues: Mapping[str, Catalogue], urls: Mapping[str, str], site: Path) -> dict[str, int]:
    """Write the index below a folder. Returns the number of wheels by place.

    :param catalogues: release to its catalogue; wheels that are retired are left out.
    :param urls: name of a wheel to its address.
    """
    wheels = [
        one
        for catalogue in catalogues.values()
        for one in catalogue.wheels
        if not one.retired and one.file in urls
    ]
    wheels.sort(key=lambda one: (one.project, Version(one.version), one.file))
    places = {PAGES: wheels}
    for device in sorted({one.device for one in wheels}):
        places[f"{device}/{PAGES}"] = [one for one in wheels if one.device == device]
    for place, chosen in places.items():
        entries = [
            Entry(one.file, one.project, one.version, one.sha256, one.metadata, one.requires_python, one.size)
            for one in chosen
        ]
        write_pages(site / place, entries, lambda entry: urls[entry.file])
    return {place: len(chosen) for place, chosen in places.items()}
