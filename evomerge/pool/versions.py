"""What can change a number: the versions of the packages at work, compared between driver and workers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path

# torch's build for another device ('+cu128') computes by the same code as far as versions can tell, and is not compared
COMPARED = ("torch", "transformers", "lm-eval", "peft", "safetensors", "tokenizers", "numpy")


def versions_here() -> dict[str, str]:
    """Return package -> version in this process, and the code of evomerge itself; absent packages are left out."""
    found = {"evomerge": f"code {code_digest()}"}
    for package in COMPARED:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package).partition("+")[0]
    return found


def code_digest() -> str:
    """Return a digest of evomerge's source: a version number does not tell two working copies apart."""
    from evomerge import version  # a neighbour of all rooms: its folder is the package's

    root = Path(version.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def differences(driver: Mapping[str, str], worker: Mapping[str, str]) -> list[str]:
    """Return what differs, a phrase each; what the driver lacks (torch on a laptop) cannot differ.

    >>> differences({"torch": "2.12", "peft": "0.19"}, {"torch": "2.13", "peft": "0.19"})
    ['torch is 2.13 there and 2.12 here']
    """
    return [
        f"{package} is {worker.get(package, 'missing')} there and {version} here"
        for package, version in driver.items()
        if worker.get(package) != version
    ]
