"""How the code reads, in numbers: public names, lines, imports between rooms, circles, comments, sizes.

    python benchmarks/house/measure.py                          # this checkout
    python benchmarks/house/measure.py --beside ../earlier      # two checkouts, side by side

Every number is counted from the source text with `ast` and `tokenize`; nothing is imported. A room is a folder directly
below `evomerge/`; its facade is its `__init__.py`, and modules behind a facade are called `_private.py`.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
# A comment that can only be read backwards from the name beside it.
FRAGMENT = re.compile(r"#\s*(of|that|in|by|with|whose|which|who|to whom|from which|for which|as it|as they)\b(?!\s*:)")
PEOPLE = re.compile(
    r"\b(nobody|somebody|whoever|whom|told|twins?|luggage|greetings?|sentences? passed|acquit\w*|foreman|crew)\b", re.I
)
DIRECTIVE = re.compile(r"#\s*(noqa|type:|pragma|fmt:|ruff:|mypy:|!)")


def modules(root: Path) -> dict[str, tuple[Path, ast.Module]]:
    """Return dotted name -> (file, tree) of every module of the package below `root`."""
    found = {}
    for path in sorted((root / "evomerge").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = (path, ast.parse(path.read_text(encoding="utf-8")))
    return found


def is_private(name: str) -> bool:
    """Return whether any part of a dotted module name begins with an underscore."""
    return any(part.startswith("_") and part != "__main__" for part in name.split("."))


def room(name: str) -> str:
    """Return the first part below the package: a room, or a module that stands alone."""
    return name.split(".")[1] if "." in name else ""


def defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names of functions, classes and constants that a module's top level defines."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def listed(tree: ast.Module) -> list[str]:
    """Return the entries of a literal `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [name for name in ast.literal_eval(node.value) if isinstance(name, str)]
    return []


def public_names(found: dict[str, tuple[Path, ast.Module]]) -> int:
    """Count what a user may import by a path without underscore: definitions, and what a facade lists."""
    total = 0
    for name, (path, tree) in found.items():
        if is_private(name):
            continue
        names = {one for one in defined(tree) if not one.startswith("_")}
        if path.name == "__init__.py" and name != "evomerge":
            names |= set(listed(tree))
        total += len(names)
    return total


def internal_imports(
    importers: dict[str, tuple[Path, ast.Module]], found: dict[str, tuple[Path, ast.Module]] | None = None
) -> Iterator[tuple[str, str, str]]:
    """Yield (importing module, imported module, name) for imports inside the package, local ones included."""
    found = importers if found is None else found
    for name, (_, tree) in importers.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "evomerge":
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield (name, whole, "") if whole in found else (name, node.module, alias.name)
            elif isinstance(node, ast.Import):
                yield from ((name, alias.name, "") for alias in node.names if alias.name in found)


def leads_to(found: dict[str, tuple[Path, ast.Module]], name: str) -> set[str]:
    """Return the modules that a module imports from, a facade's name being followed to the module that defines it."""
    reached = set()
    for importer, target, wanted in internal_imports(found):
        if importer == name:
            homes = {there for facade, there, one in internal_imports({target: found[target]}, found) if one == wanted}
            reached |= homes if found[target][0].name == "__init__.py" and homes else {target}
    return reached


def cross_room(found: dict[str, tuple[Path, ast.Module]]) -> list[str]:
    """Return imports that reach past another room's facade into one of its modules; a subfolder may have its own."""
    bad = set()
    for name, target, _ in internal_imports(found):
        inside = target.count(".") >= 2 and not listed(found[target][1])
        if inside and room(name) not in {"", room(target)}:
            bad.add(f"{name} -> {target}")
    return sorted(bad)


def circles(found: dict[str, tuple[Path, ast.Module]]) -> list[list[str]]:
    """Return groups of modules that import each other, function-local and type-only imports included."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for name, target, _ in internal_imports(found):
        if target in found and target != name and found[name][0].name != "__init__.py":
            arrows[name].add(target)
    order: list[str] = []
    seen: set[str] = set()
    for start in sorted(found):  # Kosaraju: finishing order, then the reversed graph
        stack = [(start, iter(sorted(arrows[start])))] if start not in seen else []
        seen.add(start)
        while stack:
            node, rest = stack[-1]
            following = next((one for one in rest if one not in seen), None)
            if following is None:
                order.append(node)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(sorted(arrows[following]))))
    back: dict[str, set[str]] = defaultdict(set)
    for name, targets in arrows.items():
        for target in targets:
            back[target].add(name)
    groups, taken = [], set()
    for start in reversed(order):
        group, todo = [], [start]
        while todo:
            node = todo.pop()
            if node not in taken:
                taken.add(node)
                group.append(node)
                todo += back[node]
        if len(group) > 1:
            groups.append(sorted(group))
    return groups


def used_twice(found: dict[str, tuple[Path, ast.Module]]) -> list[str]:
    """Return class names and file names that stand for two things."""
    files = Counter(
        path.stem.lstrip("_") for path, _ in found.values() if path.name not in {"__init__.py", "__main__.py"}
    )
    classes = Counter(node.name for _, tree in found.values() for node in tree.body if isinstance(node, ast.ClassDef))
    twice = [f"file {name}" for name, count in files.items() if count > 1]
    return sorted(
        twice + [f"class {name}" for name, count in classes.items() if count > 1 and not name.startswith("_")]
    )


def longest(found: dict[str, tuple[Path, ast.Module]], kinds: tuple[type[ast.AST], ...]) -> tuple[int, str]:
    """Return the length in lines, and the name, of the longest function or class."""
    best = (0, "")
    for name, (_, tree) in found.items():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                length = node.end_lineno - node.lineno + 1  # type: ignore[attr-defined]
                best = max(best, (length, f"{name}:{node.name}"))  # type: ignore[attr-defined]
    return best


def comments(found: dict[str, tuple[Path, ast.Module]]) -> tuple[int, int, list[str]]:
    """Return the lines that are not blank, the comments, and the comments that are fragments."""
    lines, count, fragments = 0, 0, []
    for name, (path, _) in found.items():
        text = path.read_text(encoding="utf-8")
        lines += sum(1 for line in text.splitlines() if line.strip())
        previous = -1
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT and not DIRECTIVE.match(token.string):
                count += 1
                continues = previous == token.start[0] - 1 and text.splitlines()[previous - 1].lstrip().startswith("#")
                if FRAGMENT.match(token.string) and not continues:
                    fragments.append(f"{name}:{token.start[0]} {token.string}")
                previous = token.start[0]
    return lines, count, fragments


def people(found: dict[str, tuple[Path, ast.Module]]) -> list[str]:
    """Return string literals (messages, help, docstrings) with machines as people or words of no field."""
    bad = []
    for name, (_, tree) in found.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and PEOPLE.search(node.value):
                bad.append(f"{name}:{node.lineno} {PEOPLE.search(node.value).group()}")  # type: ignore[union-attr]
    return bad


def table(root: Path) -> dict[str, object]:
    """Return the numbers of the checkout below `root`, by what they count."""
    found = modules(root)
    lines, count, fragments = comments(found)
    reach = cross_room(found)
    way = root / "docs" / "architecture.md"
    files = re.search(r"```[^\n]*way[^\n]*\n(.*?)```", way.read_text(encoding="utf-8"), re.S) if way.exists() else None
    function = longest(found, (ast.FunctionDef, ast.AsyncFunctionDef))
    klass = longest(found, (ast.ClassDef,))
    return {
        "public top-level names": public_names(found),
        "package lines": sum(len(path.read_text(encoding="utf-8").splitlines()) for path, _ in found.values()),
        "modules": len(found),
        "code files from ask to tell": len(re.findall(r"^\S+\.py", files.group(1), re.M)) if files else "28 (by hand)",
        "cross-room module imports": len(reach),
        "import circles between files": len(circles(found)),
        "names used for two things": len(used_twice(found)),
        "longest function, lines": function[0],
        "longest class, lines": klass[0],
        "comments per 100 lines": round(100 * count / lines, 1),
        "comments that are fragments": len(fragments),
        "people and invented words in text": len(people(found)),
    }


def details(root: Path) -> None:
    """Print what the numbers are made of."""
    found = modules(root)
    for title, rows in (
        ("cross-room", cross_room(found)),
        ("circle", [" ".join(group) for group in circles(found)]),
        ("twice", used_twice(found)),
        ("fragment", comments(found)[2]),
        ("people", people(found)),
    ):
        for row in rows:
            print(f"{title}: {row}")
    for name, (path, tree) in sorted(found.items()):
        if path.name == "__init__.py" and listed(tree):
            print(f"facade {name}: {len(listed(tree))}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, metavar="DIR", help="another checkout, shown first")
    parser.add_argument("--details", action="store_true", help="list the places behind the numbers")
    arguments = parser.parse_args()
    now = table(HERE)
    before = table(arguments.beside.resolve()) if arguments.beside else None
    for name, value in now.items():
        print(f"{name:36}" + (f"{before[name]!s:>14}" if before else "") + f"{value!s:>14}")
    if arguments.details:
        details(HERE)


if __name__ == "__main__":
    main()
