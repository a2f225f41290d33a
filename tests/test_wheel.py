"""The wheel: it holds every module and every file that the product reads, and runs where no checkout is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.places import EXAMPLES, ORDER, ROOT, project_files

PACKAGES = [*ORDER, "bench"]
NOT_READ_BY_THE_PRODUCT = {".md", ".lock"}


@dataclass(frozen=True)
class Wheel:
    """Hold a wheel and the folder into which it alone was installed."""

    file: Path
    folder: Path

    def run(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run `guerdon` from the installed wheel, beside the libraries of this environment.

        `-S` leaves out the `.pth` files there: one of them leads back into the checkout.
        """
        libraries = os.pathsep.join((str(self.folder), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
        return subprocess.run(
            [sys.executable, "-S", "-c", "from cli.main import run; run()", *words],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": libraries, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    for path in project_files():  # a copy, as a build leaves folders of its own beside what it builds
        copy = sources / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)

    pip(folder, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, sources)
    (file,) = folder.glob("*.whl")
    pip(folder, "install", "--no-deps", "--no-index", "--target", folder / "installed", file)
    return Wheel(file, folder / "installed")


def pip(folder: Path, *words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_every_file_of_the_product_and_nothing_else(wheel: Wheel) -> None:
    names = {path.relative_to(ROOT).as_posix() for path in project_files()}
    wanted = {
        name for name in names if name.split("/")[0] in PACKAGES and Path(name).suffix not in NOT_READ_BY_THE_PRODUCT
    }
    there = {name for name in zipfile.ZipFile(wheel.file).namelist() if ".dist-info/" not in name}
    assert there == wanted


def test_the_wheel_alone_simulates_an_example_as_the_checkout_does(wheel: Wheel, tmp_path: Path) -> None:
    words = ["simulate", str(EXAMPLES / "grocery/programme.yaml"), str(EXAMPLES / "grocery/events.jsonl")]
    from_wheel = wheel.run(*words, cwd=tmp_path)
    assert (from_wheel.returncode, from_wheel.stderr) == (0, "")
    here = subprocess.run(
        [sys.executable, "-m", "cli", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert from_wheel.stdout == here.stdout


def test_the_wheel_alone_names_its_version(wheel: Wheel, tmp_path: Path) -> None:
    told = wheel.run("--version", cwd=tmp_path)
    version = wheel.file.name.split("-")[1]
    assert (told.returncode, told.stdout, told.stderr) == (0, f"guerdon {version}\n", "")
