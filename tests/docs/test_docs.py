"""The documentation is true: snippets run, commands parse, the site builds without a warning, nothing is old."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from evomerge.config._reference import markdown
from evomerge.config._sections import search_file_model
from evomerge.controllers import CONTROLLERS
from evomerge.merge import CATALOGUE
from evomerge.metric_kinds import METRICS
from evomerge.runs._columns import FRAMES
from tests.docs.snippets import REASONS, commands, parses, run, snippets

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Real searches on the shipped experts, with few candidates and documents.
SEARCHING = {"first_search", "your_own_task", "choose_from_a_front", "few_items", "merge_then_route", "follow_a_search"}
SEARCHING |= {"from_mergekit_evolve", "write_a_scorer", "README", "few_evaluations", "from_python"}
DOCUMENTS, ITEMS = 48, 8  # of each shipped task, and asked by the shipped search files, in the tests
# Their commands are for clusters, and stand there indented: they are parsed below, not run.
PROSE = {"index", "install", "clusters", "scale", "glossary", "architecture"}


@pytest.fixture
def registries() -> Iterator[None]:
    """Forget the controllers and metrics that a page registers."""
    before = [(rows, dict(rows)) for rows in (CONTROLLERS, METRICS)]
    yield
    for rows, known in before:
        rows.clear()
        rows.update(known)


@pytest.fixture
def workspace(registries: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like the repository's root, its tasks cut short."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "experts").symlink_to(ROOT / "examples" / "experts")
    shutil.copytree(ROOT / "examples" / "tasks", tmp_path / "examples" / "tasks")
    for file in (tmp_path / "examples" / "tasks" / "data").glob("*.jsonl"):
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:DOCUMENTS]))
    shutil.copytree(ROOT / "search_spaces", tmp_path / "search_spaces")
    for file in (tmp_path / "search_spaces").glob("*.yaml"):
        file.write_text(file.read_text(encoding="utf-8").replace("items: 100", f"items: {ITEMS}"), encoding="utf-8")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def _cases() -> list[object]:
    return [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in SEARCHING else [])
        for page in PAGES
        if page.stem not in PROSE
    ]


@pytest.mark.parametrize("page", _cases())
def test_the_snippets_of_a_page_run_in_order(page: Path, workspace: Path) -> None:
    done = run(page, workspace)
    wanted = [s for s in snippets(page) if not s.reason and s.kind in ("bash", "python", "yaml")]
    assert len({line.split(" ")[0] for line in done}) == len(wanted) > 0
    (workspace / "snippets.txt").write_text("\n".join(done))  # for whoever wants the list: see --basetemp


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_says_a_known_reason(page: Path) -> None:
    found = {snippet.reason for snippet in snippets(page) if snippet.reason}
    assert found <= set(REASONS)
    text = page.read_text(encoding="utf-8")
    assert text.count("not run:") == sum(bool(snippet.reason) for snippet in snippets(page)), "a marker without a fence"
    assert text.count("\n```") == 2 * len(snippets(page)), "a fence without a language, or one that is not closed"
    assert page.stem not in PROSE or not snippets(page) or page.stem in {"install", "clusters", "scale", "architecture"}


@pytest.mark.parametrize("path", [*PAGES, *sorted((ROOT / "search_spaces").glob("*.yaml"))], ids=str)
def test_every_command_that_is_written_somewhere_parses(path: Path) -> None:
    for words in commands(path.read_text(encoding="utf-8")):
        assert parses(words), f"{path.name}: evomerge {' '.join(words)}"


def test_commands_are_found_with_and_without_remarks() -> None:
    text = "    evomerge check  a.yaml      # seconds\nevomerge resume runs/a   two hours\n"
    text += "# Try it:  evomerge search b --seed 1\n"
    assert list(commands(text)) == [["check", "a.yaml"], ["resume", "runs/a"], ["search", "b", "--seed", "1"]]
    assert list(commands('evomerge front d --where "a >= 1" | head')) == [["front", "d", "--where", "a >= 1"]]
    assert not parses(["search", "a", "--no-such-option"])


def test_the_site_builds_with_warnings_as_errors(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the site needs evomerge[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "WARNING" not in built.stderr
    site = tmp_path / "site"
    text = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert "evomerge.runs.Run" in text
    assert "Return one row per candidate" in text  # a docstring of a method
    assert "&gt;&gt;&gt; run = open_run" in re.sub(r"<[^>]*>", "", text)  # a doctest is code, no quotation
    assert "cma-es" in (site / "reference" / "search_file.html").read_text(encoding="utf-8")
    for page in site.rglob("*.html"):
        loads = re.findall(r'<(?:script|img)[^>]* src="(https?:[^"]*)"', page.read_text(encoding="utf-8"))
        assert not loads, f"{page.name} loads {loads}"


@pytest.fixture(scope="module")
def site_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_verb_key_frame_method_and_space(site_pages: ModuleType) -> None:
    pages = site_pages.generated()
    assert all(f"## {verb}\n" in pages["reference/cli.md"] for verb in ("init", "search", "status", "completion"))
    assert all(f"### `{frame}`" in pages["reference/frames.md"] for frame in FRAMES)
    assert all(f"| `{name}` |" in pages["reference/methods.md"] for name in CATALOGUE)
    spaces = [path.stem for path in (ROOT / "search_spaces").glob("*.yaml")]
    assert all(f"## {name}\n" in pages["gallery.md"] for name in spaces)
    assert all(f"| `{key}` |" in markdown() for key in search_file_model().model_fields)
    assert "| `min_items` | whole number of at least 2 | `20` |" not in markdown().split("### `scoring.racing`")[0]
    assert "| `min_items` |" in markdown().split("### `scoring.racing`")[1]


def test_links_out_of_docs_lead_somewhere_on_the_site(site_pages: ModuleType) -> None:
    relinked = site_pages.relinked
    assert relinked("[a](../benchmarks/scale/results.md)", "scale.md") == "[a](repository/benchmarks/scale/results.md)"
    assert relinked("[a](../README.md#x)", "reference/cli.md") == "[a](../README.md#x)"  # leads nowhere: mkdocs says so
    assert relinked("[a](docs/scale.md)", "repository/README.md") == "[a](../scale.md)"
    assert relinked("[a](search_spaces/)", "repository/README.md") == "[a] (`search_spaces`)"
    assert relinked("```\n[a](../README.md)\n```", "scale.md") == "```\n[a](../README.md)\n```"
    assert relinked("[a](https://x.org/b)", "scale.md") == "[a](https://x.org/b)"


def test_every_benchmark_has_a_line_with_its_command() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    scripts = [
        path.relative_to(ROOT)
        for path in (ROOT / "benchmarks").rglob("*.py")
        if "__main__" in path.read_text(encoding="utf-8")
    ]
    assert len(scripts) > 15
    for path in scripts:
        module = ".".join(path.with_suffix("").parts)
        assert str(path) in text or f"python -m {module}" in text, f"benchmarks/README.md does not name {path}"
    for name in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / "benchmarks" / name).exists(), f"benchmarks/README.md names {name}, which is not there"
