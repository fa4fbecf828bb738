"""The licences of models as their folders state them, and what to mind when models under several are merged.

This is a reading aid, no legal advice: a warning says which conditions meet, people decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from evomerge.checkpoints._layout import read_json
from evomerge.checkpoints._resolve import CONFIG

_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING")
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---", re.DOTALL)
_HEAD = 4000  # characters of a licence file; its name stands at its beginning

# Beginnings of licence texts, the longer name first where one contains the other.
_TEXTS = (
    (r"GNU AFFERO GENERAL PUBLIC LICENSE", "agpl-3.0"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE", "lgpl-3.0"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 2", "gpl-2.0"),
    (r"GNU GENERAL PUBLIC LICENSE", "gpl-3.0"),
    (r"Apache License,?\s+Version 2\.0", "apache-2.0"),
    (r"Permission is hereby granted, free of charge", "mit"),
    (r"LLAMA 2 COMMUNITY LICENSE", "llama2"),
    (r"LLAMA 3\.1 COMMUNITY LICENSE", "llama3.1"),
    (r"LLAMA 3\.2 COMMUNITY LICENSE", "llama3.2"),
    (r"META LLAMA 3 COMMUNITY LICENSE", "llama3"),
    (r"Gemma Terms of Use", "gemma"),
    (r"Attribution-NonCommercial-ShareAlike 4\.0", "cc-by-nc-sa-4.0"),
    (r"Attribution-NonCommercial 4\.0", "cc-by-nc-4.0"),
    (r"Attribution-ShareAlike 4\.0", "cc-by-sa-4.0"),
    (r"Attribution 4\.0 International", "cc-by-4.0"),
    (r"Neither the name of .{0,200}nor the names of", "bsd-3-clause"),
)
_FREE = re.compile(r"^(apache-2\.0|mit|bsd.*|isc|cc0-1\.0|cc-by-[\d.]+|unlicense|zlib|mpl-2\.0|pddl|odc-by)$")
_SHARE_ALIKE = re.compile(r"^(gpl|agpl|lgpl|cc-by-sa|cc-by-nc-sa|osl|eupl)")
_NOT_COMMERCIAL = re.compile(r"(-nc(-|$)|noncommercial|non-commercial|research)")
_NO_DERIVATIVES = re.compile(r"-nd(-|$)")


def licence_of(folder: Path) -> str | None:
    """Return a model's licence in the hub's spelling (`apache-2.0`), or None where its folder does not tell.

    Its README's front matter comes first, then config.json, then the text of its licence file.
    """
    return _of_readme(folder) or _of_config(folder) or _of_text(folder)  # the most explicit statement first


def licence_warnings(licences: Mapping[str, str | None]) -> list[str]:
    """Return what is to mind when models of these licences are merged, one sentence each; [] for free ones alone.

    Args:
        licences: model -> its licence, None where it is not known.
    """
    known = {model: licence for model, licence in licences.items() if licence is not None}
    warnings = []
    if known and len(known) < len(licences):
        unknown = ", ".join(model for model in licences if model not in known)
        warnings.append(f"no licence found for {unknown}; look it up before passing the result on")
    for pattern, meaning in (
        (_NO_DERIVATIVES, "forbids distribution of modified versions, and a merge is one"),
        (_NOT_COMMERCIAL, "forbids commercial use, also of the merge"),
    ):
        warnings += [f"licence {text} of {model} {meaning}" for model, text in known.items() if pattern.search(text)]
    # copyleft: the result keeps the licence
    bound = {text: model for model, text in known.items() if _SHARE_ALIKE.search(text)}
    # use restrictions of vendors: neither free nor copyleft
    special = {text: model for model, text in known.items() if not _FREE.search(text) and not _SHARE_ALIKE.search(text)}
    if len(bound) > 1 or (bound and special):
        pairs = ", ".join(f"{text} ({model})" for text, model in {**bound, **special}.items())
        warnings.append(f"incompatible licences: each of {pairs} requires the result to be under the same licence")
    elif len(special) > 1:
        pairs = ", ".join(f"{text} ({model})" for text, model in special.items())
        warnings.append(f"the terms of {pairs} all apply; check their compatibility")
    return warnings


def _of_readme(folder: Path) -> str | None:
    import yaml

    path = folder / "README.md"
    match = _FRONT_MATTER.match(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
    if match is None:
        return None
    try:
        front = yaml.safe_load(match.group(1))
    except yaml.YAMLError:
        return None
    if not isinstance(front, Mapping):
        return None
    licence = front.get("license")
    name = front.get("license_name")
    return _text(name if licence == "other" and name else licence)


def _of_config(folder: Path) -> str | None:
    return _text(read_json(folder / CONFIG).get("license")) if (folder / CONFIG).is_file() else None


def _of_text(folder: Path) -> str | None:
    for name in _FILES:
        if (folder / name).is_file():
            head = (folder / name).read_text(encoding="utf-8", errors="replace")[:_HEAD]
            flat = re.sub(r"\s+", " ", head)  # licence texts are wrapped at different columns
            return next((licence for pattern, licence in _TEXTS if re.search(pattern, flat, re.IGNORECASE)), None)
    return None


def _text(value: object) -> str | None:
    if isinstance(value, list):  # a README may list several
        value = value[0] if value else None
    return value.strip().lower() if isinstance(value, str) and value.strip() else None
