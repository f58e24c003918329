"""Check the structure of the source tree, and print the figures that describe it. `make check` runs this script.

It fails on modules that import each other, on imports that run up or sideways between floors, on loose modules at the
root, and on relative links in Markdown files that lead nowhere. Imports inside functions and under TYPE_CHECKING count.
To measure another checkout, name its folder: python tests/house.py ROOT
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

STOREYS = "_util", "model", "knowledge", "locate ablate verify", "audit", "report", "pipeline", "erasure", "cli"
FLOORS = {folder: floor for floor, folders in enumerate(STOREYS) for folder in folders.split()}
LINK = re.compile(r"\]\(<?([^)\s>]+)>?[^)]*\)")
Function = ast.FunctionDef | ast.AsyncFunctionDef
Name = tuple[str, ...]


class Module(NamedTuple):
    """One source file: its dotted name, `()` for the root package, and its syntax tree."""

    path: Path
    name: Name
    tree: ast.Module
    lines: int

    @property
    def package(self) -> Name:
        return self.name if self.path.name == "__init__.py" else self.name[:-1]

    @property
    def functions(self) -> list[Function]:
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]


def modules(root: Path) -> dict[Name, Module]:
    """The package's modules: those at the root and those in packages, without tests and benchmarks."""
    packages = [p.parent for p in root.glob("*/__init__.py") if p.parent.name not in ("tests", "bench")]
    found = {}
    for path in sorted([*root.glob("*.py"), *(f for p in packages for f in p.rglob("*.py"))]):
        text, parts = path.read_text(encoding="utf-8"), path.relative_to(root).with_suffix("").parts
        name = parts[:-1] if path.name == "__init__.py" else parts
        found[name] = Module(path.relative_to(root), name, ast.parse(text), len(text.splitlines()))
    return found


def imports(module: Module, known: dict[Name, Module]) -> set[Name]:
    """The modules of the package that this one imports by a relative import, wherever it stands in the file."""
    found = set()
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = module.package[: len(module.package) - node.level + 1] + tuple((node.module or "").split("."))
        base = tuple(part for part in base if part)
        found |= {(*base, a.name) if (*base, a.name) in known else base for a in node.names}
    return found & set(known) - {module.name, ()}


def circles(graph: dict[Name, set[Name]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    reached = {name: set(targets) for name, targets in graph.items()}
    for middle in graph:
        for targets in reached.values():
            if middle in targets:
                targets |= reached[middle]
    groups = {frozenset(o for o in reached[n] if n in reached[o]) for n in graph if n in reached[n]}
    return sorted(sorted(".".join(name) for name in group) for group in groups)


def climbs(graph: dict[Name, set[Name]]) -> list[str]:
    """Imports from another folder on the same floor or a higher one. A folder without a floor may import none."""
    return sorted(
        f"{'.'.join(source)} imports {'.'.join(target)}"
        for source, targets in graph.items()
        for target in targets
        if source[0] != target[0] and FLOORS.get(target[0], 9) >= FLOORS.get(source[0], -1)
    )


def broken_links(root: Path) -> list[str]:
    """Relative links in Markdown files whose file does not exist."""
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("bench/**/*.md")]
    return [
        f"{page.relative_to(root)} links to {link}, which does not exist"
        for page in sorted(pages)
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:|#", link) and not (page.parent / link.partition("#")[0]).exists()
    ]


def parameters(function: Function) -> list[ast.arg]:
    """Every parameter but `self` and `cls`."""
    listed = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [a for a in listed if a.arg not in ("self", "cls")]


def untyped(function: Function) -> int:
    """How many parameters and results are annotated as a mapping to `Any`."""
    notes = [a.annotation for a in parameters(function)] + [function.returns]
    return sum(bool(re.search(r"(dict|Mapping)\[.*\bAny\b", ast.unparse(note))) for note in notes if note)


def checks(known: dict[Name, Module]) -> list[str]:
    """The checks: functions in `verify/` that are named as their file, take a model and return a reading."""
    own = [f for m in known.values() if m.name[:1] == ("verify",) for f in m.functions if m.name[1:] == (f.name,)]
    takes = {f.name: [a.arg for a in f.args.args[:1]] for f in own if f.returns and ast.unparse(f.returns) == "Reading"}
    return sorted(name for name, first in takes.items() if first == ["model"])


def names(module: Module, check: str) -> bool:
    """Whether a module names a check: as text, in an import, or as `verify.CHECK`."""
    return any(
        (isinstance(n, ast.Constant) and n.value == check)
        or (isinstance(n, ast.ImportFrom) and check in (n.module, *(a.name for a in n.names)))
        or (isinstance(n, ast.Attribute) and n.attr == check and ast.unparse(n.value) == "verify")
        for n in ast.walk(module.tree)
    )


def main(root: Path) -> int:
    known = modules(root)
    graph = {name: imports(module, known) for name, module in known.items()}
    loose = [str(m.path) for name, m in known.items() if len(name) == 1 and m.path.name != "__init__.py"]
    inside = {name for name in known if known[name[:1]].package}
    groups, climbing = circles(graph), climbs({name: graph[name] & inside for name in inside})
    lists = [(len(parameters(f)), f"{m.path}:{f.lineno} {f.name}") for m in known.values() for f in m.functions]
    bags = sum(untyped(f) for m in known.values() for f in m.functions)
    lines = sum(m.lines for m in known.values())
    named = [f"{check} {sum(names(m, check) for m in known.values())}" for check in checks(known)]
    files = sorted(((m.lines, str(m.path)) for m in known.values()), reverse=True)[:8]
    print(f"modules at the root: {len(loose)}\ncircles: {len(groups)}\nlongest parameter list: {max(lists)[0]}")
    readme = len((root / "README.md").read_text(encoding="utf-8").splitlines())
    print(f"dict[str, Any] in signatures per thousand lines: {1000 * bags / lines:.1f}\nREADME lines: {readme}")
    print("longest files: " + ", ".join(f"{path} {n}" for n, path in files))
    print("longest parameter lists: " + ", ".join(f"{what} {n}" for n, what in sorted(lists, reverse=True)[:8]))
    print("files that name each check: " + ", ".join(named))
    faults = [f"{path} stands at the root; move it into a folder" for path in loose]
    faults += [f"a circle of imports: {', '.join(group)}" for group in groups]
    faults += [f"{one}, which is not on a lower floor" for one in climbing] + broken_links(root)
    for fault in faults:
        print(f"tests/house.py: {fault}.", file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if sys.argv[1:] else ".")))
