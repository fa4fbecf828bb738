"""Text files as documents: a long text cut into chunks, and lists of prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evomerge.errors import TaskError


def read_text(path: str) -> str:
    """Return the content of a UTF-8 text file.

    Raises:
        TaskError: the file is missing, unreadable, not UTF-8, or has nothing but spaces.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8 text: byte {error.start}") from None
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror or error}") from None
    if not text.strip():
        raise TaskError(f"{path} holds no text")
    return text


def chunks(text: str, size: int) -> list[str]:
    """Return consecutive pieces of a text, of at most `size` characters each, that together are the text.

    Pieces end at a line's end where one is there, else after a space, else anywhere. Pieces of nothing but white
    space join the piece before them, whatever its size.

    >>> chunks("one two\\nthree\\n", 8)
    ['one two\\n', 'three\\n']
    """
    pieces: list[str] = []
    rest = text
    while rest:
        end = len(rest) if len(rest) <= size else _end(rest, size)
        if pieces and not rest[:end].strip():
            pieces[-1] += rest[:end]
        else:
            pieces.append(rest[:end])
        rest = rest[end:]
    if len(pieces) > 1 and not pieces[0].strip():
        pieces[:2] = ["".join(pieces[:2])]
    return pieces


def _end(text: str, size: int) -> int:
    for separator in ("\n", " "):
        place = text.rfind(separator, 0, size)
        if place >= 0:
            return place + 1
    return size


def read_prompts(path: str) -> list[dict[str, Any]]:
    """Return the prompts of a file as documents {"prompt": text}, with an "id" where the file gives one.

    A `.jsonl` file has an object with a "prompt" per line; any other file has one prompt per line, where the two
    characters backslash and n mean a line's end.

    Raises:
        TaskError: the file is unreadable or empty, or a line is not such an object; names the line.
    """
    text = read_text(path)
    numbered = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not path.endswith(".jsonl"):
        return [{"prompt": line.replace("\\n", "\n")} for _, line in numbered]
    return [_prompt(path, number, line) for number, line in numbered]


def _prompt(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise TaskError(f"{path}, line {number}: not JSON ({error})") from None
    prompt = record.get("prompt") if isinstance(record, dict) else None
    if not isinstance(prompt, str) or not prompt:
        raise TaskError(f'{path}, line {number}: expected an object with a "prompt", as in {{"prompt": "Hello"}}')
    return {"prompt": prompt, **({"id": record["id"]} if "id" in record else {})}
