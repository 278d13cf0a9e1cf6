"""Imports: quick, layered as DESIGN's table says, and every module by itself."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ffavatar

ROOT = Path(ffavatar.__file__).parent
MODULES = sorted(
    ".".join(("ffavatar", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
)
# A module imports only from its own row and those above it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "types", "files", "jobs", "devices", "memory", "kinds"),
    ("geometry", "ssim"),
    ("weights",),
    ("head",),
    ("photo",),
    ("render",),
    ("shades",),
    ("animate",),
    ("model",),
    ("avatar",),
    ("pipeline",),
    ("personal",),
    ("drive",),
    ("data",),
    ("evaluate",),
    ("api",),
    ("train",),
    ("viewer",),
    ("export",),
    ("bulk",),
    ("serve",),
    ("demo",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}
# What a minimal install (the runtime dependencies of pyproject.toml) has besides the standard library.
INSTALLED = {"numpy", "torch", "jaxtyping", "safetensors", "PIL", "av", "typer", "rich"}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """(module, whether it is imported when the file is) of a file; annotations-only imports are left out."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, at_import: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
                modules = (f"{child.module}.{alias.name}" for alias in child.names)  # a submodule, or a name in one
                found.extend((m if m in MODULES else child.module, at_import) for m in modules)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            visit(child, at_import and not inside)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def path_of(module: str) -> Path:
    place = ROOT.joinpath(*module.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def test_every_part_has_its_layer() -> None:
    assert {part_of(module) for module in MODULES} - {""} <= set(RANK)


@pytest.mark.parametrize("module", [m for m in MODULES if m != "ffavatar"])
def test_layering(module: str) -> None:
    mine = RANK[part_of(module)]
    for imported, _ in imports_of(path_of(module)):
        if imported.split(".")[0] == "ffavatar" and part_of(imported):
            theirs = part_of(imported)
            assert RANK[theirs] <= mine, f"{module} imports {imported}, which stands below it"


def test_no_cycle_at_import() -> None:
    """Within one row modules may import each other, but not in a circle."""
    graph = {m: {i for i, now in imports_of(path_of(m)) if now and i in MODULES} for m in MODULES}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"import cycle: {' -> '.join((*above, module))}"
        if module not in done:
            for imported in graph[module]:
                visit(imported, (*above, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_only_declared_dependencies_are_needed_to_import() -> None:
    allowed = INSTALLED | {"ffavatar"} | set(sys.stdlib_module_names)
    for module in MODULES:
        missing = [i for i, now in imports_of(path_of(module)) if now and i.split(".")[0] not in allowed]
        assert not missing, f"{module} needs {missing} when it is imported"


def test_each_module_imports_alone_on_a_minimal_install() -> None:
    """In a fresh process where only the runtime dependencies can be found; a module that needs more fails here."""
    code = """
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not part of a minimal install")
BLOCKED = {"scipy", "skimage", "pytest", "hypothesis", "beartype", "cv2", "pillow_heif", "gsplat", "ray",
    "fastapi", "starlette", "pydantic", "uvicorn", "httpx", "prometheus_client", "python_multipart"}
sys.meta_path.insert(0, Refuse())
for module in sys.argv[1:]:
    importlib.import_module(module)
"""
    modules = [m for m in MODULES if m != "ffavatar.__main__"]
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_import_is_quick() -> None:
    """Under 2 s by the issue; the best of three, since other processes share the machine."""
    for module, limit_s in (("ffavatar", 2.0), ("ffavatar.cli", 2.0)):
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True, timeout=60)
            best = min(best, time.perf_counter() - start)
        assert best < limit_s, f"import {module} took {best:.2f} s"


def test_cli_imports_no_torch() -> None:
    """Help and usage errors must not wait for it."""
    code = "import sys, ffavatar.cli; ffavatar.cli.build_app(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
