"""Secrets: the environment variables that workers get, and their removal from everything that is written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

# Passed on to workers, where they are set; Ray's own runtime_env would write their values into its logs.
PASSED_ON = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT")
HIDDEN = "[secret]"
_SHORTEST = 6  # characters; hiding shorter values would hide words
_SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|CREDENTIAL)S?$", re.IGNORECASE)
# what looks like a token, whoever holds it: Hugging Face's, OpenAI's and Anthropic's, GitHub's, AWS's
_SECRET_FORM = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})\b"
)


def to_pass_on(names: Iterable[str] = ()) -> dict[str, str]:
    """Return name -> value of the secrets that workers need, as far as this process has them.

    Args:
        names: further environment variables, such as the key of a judge.
    """
    return {name: os.environ[name] for name in dict.fromkeys((*PASSED_ON, *names)) if os.environ.get(name)}


def hide(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return a text without the values of secrets: those of the environment, and what has the form of a token.

    >>> hide("401 for https://hub/?token=abcdef", {"HF_TOKEN": "abcdef"})
    '401 for https://hub/?token=[secret]'
    """
    known = os.environ if environment is None else environment
    named = {value for name, value in known.items() if _SECRET_NAME.search(name)}
    values = {value for value in named if len(value) >= _SHORTEST and not value.isdigit()}
    for value in sorted(values, key=len, reverse=True):  # a secret may contain another one
        text = text.replace(value, HIDDEN)
    return _SECRET_FORM.sub(HIDDEN, text)
