"""Installs the lab: into a virtual environment (`make install`), or into a Colab or Kaggle session (a notebook's first cell).

Standard library only, since it runs before anything is installed; no tomllib before the Python is known to be new enough to have it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OLDEST_TORCHAO = (0, 16)  # peft refuses to add LoRA where an older torchao is installed
OF_THE_SOURCE = "source"  # what a notebook's .py says where its .ipynb says which version it is


def project() -> dict:
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def unsupported_python() -> str | None:
    """A sentence where this Python is not one that pyproject.toml allows, else None."""
    allowed = re.search(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    first, end = int(allowed[1]), int(allowed[2])
    if (3, first) <= sys.version_info[:2] < (3, end):
        return None
    return f"Python {'.'.join(map(str, sys.version_info[:3]))} is not supported; the lab needs Python 3.{first} to 3.{end - 1}"


# --- make install -----------------------------------------------------------------------------------------------------


def create_venv(folder: Path, pip_arguments: Sequence[str] = ()) -> None:
    """A virtual environment with the lab, its test tools and the packaged model, at the tested versions.

    Raises:
        SystemExit: with one sentence that names the cure.
    """
    if problem := unsupported_python():
        sys.exit(f"error: {problem}: call one of them with this file.")
    log = folder / "install.log"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists() and subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True).returncode:
        sys.exit(f"error: could not create '{folder}'; check the disk space, and on Debian or Ubuntu run `apt install python3-venv`.")
    print(f"Installing into {folder} (once; about 1 GB of packages) ...", flush=True)
    model = project()["tool"]["lab"]["model_package"]
    log.write_text("", encoding="utf-8")
    for words in (["-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}[test]"], ["--no-deps", model]):
        run = pip("install", *pip_arguments, *words, log=log, python=str(python))
        if not run.done:
            sys.exit(
                f"error: the installation failed ({run.reason}); check the network and the disk space, "
                f"then run `make install` again. pip's own words are in {log}."
            )
    (folder / ".installed").touch()
    print("Installed.", flush=True)


class PipRun(NamedTuple):
    done: bool
    said: str

    @property
    def reason(self) -> str:
        """Why pip failed, on one line: what conflicts with what, or its first complaint."""
        causes = re.search(r"^The conflict is caused by:\n((?: +\S.*\n)+)", self.said, re.MULTILINE)
        if causes:
            return "; ".join(line.strip() for line in causes[1].splitlines())[:300]
        complaint = re.search(r"^ *ERROR: (.+)", self.said, re.MULTILINE)
        return complaint[1].strip().rstrip(".")[:200] if complaint else "see the log"


def pip(*words: str, log: Path, python: str = sys.executable) -> PipRun:
    """What came of a pip command. Large downloads are shown while it runs; everything it says is added to the log."""
    command = [python, "-m", "pip", *words, "--no-input", "--disable-pip-version-check"]
    reading = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "encoding": "utf-8", "errors": "replace"}
    said = []
    with log.open("a", encoding="utf-8") as file, subprocess.Popen(command, **reading) as process:
        for line in process.stdout:
            file.write(line)
            said.append(line)
            size = re.search(r"Downloading (\S+).*\((\d+(?:\.\d+)?) (MB|GB)\)", line)
            if size and (size[3] == "GB" or float(size[2]) >= 10):
                print(f"  {size[1].split('/')[-1].split('-')[0]} ({size[2]} {size[3]})", flush=True)
            if line.startswith("Installing collected packages"):
                print(f"  installing {line.count(',') + 1} packages", flush=True)
    return PipRun(process.returncode == 0, "".join(said))


# --- the first cell of a notebook -------------------------------------------------------------------------------------


def ensure(notebook: str = OF_THE_SOURCE) -> None:
    """Makes this notebook session ready: installs what is missing on Colab and Kaggle, then says what computes here.

    Args:
        notebook: the version of the notebook that asks.

    Raises:
        LabError: something is missing locally, or the session must be restarted, with the reason.
        SystemExit: this Python cannot run the lab, perhaps not even read its other modules.
    """
    if problem := unsupported_python():
        raise SystemExit(
            f"{problem}. Choose one: in Colab under Runtime > Change runtime type, on Kaggle in the notebook's settings; "
            "elsewhere run `make install PYTHON=/path/to/python3.12` in the lab's folder and choose that environment as the kernel."
        )
    from lab_utils import environment, session
    from lab_utils.errors import LabError

    show_lab_errors_as_sentences()
    place = session.PLACES[environment.where()]
    if not of_this_checkout(notebook):
        print(session.of_another_version(place))
    session.make_ready(place)
    try:
        machine, precision = environment.machine(), environment.precision()
    except (ImportError, OSError, ValueError) as error:  # ValueError: compiled for another numpy
        raise LabError(
            f"What is installed cannot be imported ({error}): restart the session ({place.restart}) and run this cell again. "
            "If it stays so, `!python -m lab_utils doctor` in a new cell says what is broken."
        ) from error
    print(machine)
    print(f"Matrix products in {precision.name}: {precision.reason}.")


def of_this_checkout(notebook: str) -> bool:
    """Whether a notebook of that version is in this checkout. A tab that was opened earlier still shows an older one."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    return notebook == OF_THE_SOURCE or not texts or any(f'notebook=\\"{notebook}\\"' in text for text in texts)


def needed() -> list[str]:
    """What pyproject.toml asks for, the packaged model last."""
    return [*project()["project"]["dependencies"], project()["tool"]["lab"]["model_package"]]


def missing_packages() -> list[str]:
    """Requirements of pyproject.toml that are absent here or of another version."""
    from lab_utils import requirements

    return requirements.unmet(needed())


def torchao_breaks_peft() -> bool:
    from lab_utils import requirements

    version = requirements.installed("torchao")
    return version is not None and numbers(version) < OLDEST_TORCHAO


def numbers(version: str) -> tuple[int, ...]:
    """`2.11.0+cu128` as (2, 11, 0)."""
    return tuple(int(part) for part in re.match(r"\d+(?:\.\d+)*", version)[0].split("."))


def show_lab_errors_as_sentences() -> None:
    """In a notebook, a LabError shows its sentence without the traceback above it, and without tokens."""
    from lab_utils import scrubbing
    from lab_utils.errors import LabError

    if "IPython" not in sys.modules:
        return
    shell = sys.modules["IPython"].get_ipython()
    if shell is not None:

        def show(self, kind, value, trace, tb_offset=None):
            self._showtraceback(kind, value, [f"{kind.__name__}: {scrubbing.without_secrets(str(value))}"])

        shell.set_custom_exc((LabError,), show)


if __name__ == "__main__":
    create_venv(Path(sys.argv[1]), sys.argv[2:])
