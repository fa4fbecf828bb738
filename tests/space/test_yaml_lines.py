from __future__ import annotations

import pytest

from evomerge.config._yaml_lines import read_document
from evomerge.space import Problem, located
from evomerge.space._problems import dotted


def messages(text: str) -> list[str]:
    document = read_document(text)
    return located(document.problems, document.lines)


def test_every_key_and_entry_has_its_line():
    document = read_document("a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n")
    assert document.value == {"a": 1, "b": ["x", {"c": 2, "d": 3}]}
    assert {dotted(place): line for place, line in document.lines.items()} == {
        "": 1, "a": 1, "b": 2, "b[0]": 3, "b[1]": 4, "b[1].c": 4, "b[1].d": 5,
    }  # fmt: skip


def test_scalars_are_what_mergekit_takes_them_for():
    value = read_document("[1, 1.5, 1e-3, -2.5E4, true, null, 'x', '1e-3', 2024-01-31, ünï/cödé]").value
    assert value == [1, 1.5, 0.001, -25000.0, True, None, "x", "1e-3", "2024-01-31", "ünï/cödé"]
    assert [type(entry) for entry in value[:4]] == [int, float, float, float]


def test_anchors_and_merge_keys_are_resolved_and_keep_their_lines():
    document = read_document(
        "defaults: &d {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\na:\n  <<: *d\n  y: 5\nb: {<<: [*d, *m]}\nc: *d\n"
    )
    assert document.problems == ()
    assert document.value["a"] == {"y": 5, "x": 1}
    assert document.value["b"] == {"x": 1, "y": 2, "z": 4}
    assert document.value["c"] == {"x": 1, "y": 2}
    assert document.lines["a", "x"] == 1  # where it was written
    assert document.lines["a", "y"] == 5
    assert document.lines["b", "z"] == 2


def test_keys_given_twice_are_named_with_both_lines():
    assert messages("a: 1\nb: {c: 1,\n  c: 2}\na: 3\n") == [
        "line 3, b.c: given twice, first in line 2; keep one",
        "line 4, a: given twice, first in line 1; keep one",
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: [1, 2\nb: 3\n", 2, "not valid YAML: while parsing a flow sequence, expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML: while scanning for the next token, found character '\\t'"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML: expected a single document"),
        ("a: *nowhere\n", 1, "not valid YAML: found undefined alias 'nowhere'"),
        ("a: 1\nb: !!python/object:os.system {}\n", 2, "b: tag 'tag:yaml.org,2002:python/object:os.system' is not"),
        ("a: !secret x\n", 1, "a: tag '!secret' is not supported"),
        ("? [x, y]\n: 1\n", 1, "a key must be a name"),
        ("a:\n  <<: 5\n", 1, "<< must name other mappings"),
        ("a: &a [*a]\n", 1, "an anchor contains itself"),
        ("x: !!int ten\n", 1, "'ten' is not of the type int"),
    ],
)
def test_mistakes_of_form_have_their_line(text, line, message):
    found = messages(text)
    assert len(found) == 1
    assert found[0].startswith(f"line {line}")
    assert message in found[0]


def test_small_texts_that_describe_huge_documents_are_refused():
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 10))
    assert "too large" in messages("l0: &l0 [x]\n" + levels)[0]
    assert "nested too deeply" in messages("[" * 5000)[0]


def test_problems_stand_in_the_order_of_lines_and_once_each():
    lines = {(): 1, ("a",): 3, ("b",): 2}
    problems = [Problem(("a", "x"), "second"), Problem(("b",), "first"), Problem(("a", "x"), "second")]
    assert located(problems, lines) == ["line 2, b: first", "line 3, a.x: second"]
