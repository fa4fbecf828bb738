"""A language model as the judge of written answers, over an OpenAI-compatible endpoint that the user runs.

Nothing is asked of any machine but the one whose address stands in the search file. The key, where one is needed, is
read from the environment when it is used; it is in no file, record or message of ours.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from evomerge.candidate import Response
from evomerge.errors import InfrastructureError, InputError, TaskError
from evomerge.scoring.metrics._metric import Measure, ModelInterface

VERDICT = "verdict"
AT_ONCE = 4  # questions on their way at the same time
FIRST_WAIT = 0.5  # seconds before the second attempt; doubled before each further one
_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses worth another attempt
_QUESTION = (
    "{rubric}\n\nInstruction:\n{prompt}\n\nAnswer to be judged:\n{answer}\n\n"
    'Judge the answer only. Reply with one line of JSON: {{"score": N}}, N a number from {low:g} to {high:g}.'
)


def ask(
    measure: Measure, items: Sequence[str], documents: Sequence[Mapping[str, Any]], interface: ModelInterface
) -> list[Response]:
    """Return the judge's score of each written answer, on the scale of the search file.

    Raises:
        InfrastructureError: the judge cannot be reached, takes too long, or says something other than a score.
        InputError: the environment variable of the key is not set.
    """
    settings = measure.settings
    prompts = [document["prompt"] for document in documents]
    written = interface.write(measure.name, prompts, settings["max_tokens"], settings["until"])
    headers = _headers(settings)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        scores = list(
            threads.map(
                lambda pair: score_of(settings, headers, pair[0], pair[1].text), zip(prompts, written, strict=True)
            )
        )
    return [
        Response(measure.name, item, VERDICT, score, answer.text[:200])
        for item, score, answer in zip(items, scores, written, strict=True)
    ]


def score_of(settings: Mapping[str, Any], headers: Mapping[str, str], prompt: str, answer: str) -> float:
    """Return the judge's score of one answer.

    Raises:
        InfrastructureError: no usable reply after all attempts.
    """
    low, high = settings["scale"]
    question = _QUESTION.format(rubric=settings["rubric"], prompt=prompt, answer=answer, low=low, high=high)
    body = {
        "model": settings["model"],
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 64,
        "seed": 0,
    }
    problem = ""
    for attempt in range(settings["retries"] + 1):
        if attempt:
            time.sleep(FIRST_WAIT * 2 ** (attempt - 1))
        try:
            return read_score(_post(settings, headers, body), low, high)
        except _Unusable as error:
            problem = str(error)
            if not error.again:
                break
    raise InfrastructureError(f"judge {settings['url']}: {problem} ({attempt + 1} attempts)")


class _Unusable(Exception):
    """A reply that is no score; `again` where another attempt may help."""

    def __init__(self, message: str, again: bool = True) -> None:
        super().__init__(message)
        self.again = again


def read_score(reply: str, low: float, high: float) -> float:
    """Return the number in a chat completion whose content has a JSON object with a "score"."""
    try:
        content = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise _Unusable(f"the reply is no chat completion: {reply[:80]!r}") from None
    found = re.search(r"\{[^{}]*\}", str(content))
    try:
        score = json.loads(found.group(0))["score"] if found else None
    except (ValueError, KeyError, TypeError):
        score = None
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
        raise _Unusable(f'expected {{"score": N}}, the judge said {str(content)[:80]!r}')
    if not low <= score <= high:
        raise _Unusable(f"the judge's score {score:g} is not in [{low:g}, {high:g}]")
    return float(score)


def key_problem(settings: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the key's environment variable, or None."""
    name = settings["key_env"]
    if name and not os.environ.get(name):
        return f"environment variable {name} is not set; it should hold the judge's key (key_env names the variable)"
    return None


def version(settings: Mapping[str, Any]) -> list[Any]:
    """Return [], having checked that the judge's key can be read.

    Raises:
        TaskError: it cannot.
    """
    if problem := key_problem(settings):
        raise TaskError(problem)
    return []


def _headers(settings: Mapping[str, Any]) -> dict[str, str]:
    if problem := key_problem(settings):
        raise InputError(problem)
    headers = {"Content-Type": "application/json"}
    if settings["key_env"]:
        headers["Authorization"] = f"Bearer {os.environ[settings['key_env']]}"
    return headers


def _post(settings: Mapping[str, Any], headers: Mapping[str, str], body: Mapping[str, Any]) -> str:
    url = str(settings["url"]).rstrip("/") + "/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), dict(headers), method="POST")
    try:
        # No proxy either: the environment's would be another machine, and cannot see this one's own ports.
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=settings["timeout"]) as reply:
            return str(reply.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        said = error.read(200).decode("utf-8", "replace").strip()
        raise _Unusable(f"HTTP {error.code} {error.reason}: {said[:80]}", error.code in _AGAIN) from None
    except TimeoutError:
        raise _Unusable(f"no reply within {settings['timeout']:g} seconds") from None
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise _Unusable(f"no reply within {settings['timeout']:g} seconds") from None
        raise _Unusable(f"cannot be reached: {reason}") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could carry the key to another machine, so none is followed."""

    def redirect_request(self, *arguments: Any) -> None:
        """Return None: the redirect becomes an HTTP error."""
