"""What helps who works on Guerdon: `make help`, CONTRIBUTING.md, hooks of commits, a README in each top folder."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.places import ORDER, ROOT, project_files
from tests.test_tidy import ENGINE_FLOORS

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FOLDERS = [*ORDER, "bench", "examples"]


def targets() -> set[str]:
    """Return the names of all targets of the Makefile that a person may ask for: those that are no files."""
    return {name for name in re.findall(r"^([\w.-]+):(?!=)", MAKEFILE, re.MULTILINE) if not name.startswith(".")}


def test_make_help_has_a_line_for_every_target() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^make (\w+)\t\S", told, re.MULTILINE)) == targets()


def test_every_target_is_made_though_a_file_has_its_name() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == targets()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_target_that_a_page_names_is_there(page: str) -> None:
    named = re.findall(r"(?:^|`)make ([a-z]+)\b", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert named
    assert set(named) - targets() == set()


def test_a_commit_asks_what_make_lint_asks_and_fetches_nothing() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = [hook for repository in repositories for hook in repository["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}

    folders = re.search(r"^FOLDERS := (.*)$", MAKEFILE, re.MULTILINE)
    lint = re.search(r"^lint: .*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert folders
    assert lint
    asked = lint[1].replace("$(BIN)", ".venv/bin").replace("$(wildcard $(FOLDERS))", folders[1])
    # a hook is handed the names of files, where `make lint` names them itself
    known = [re.sub(r" (\.|docker-compose\.yml .*)$", "", line.strip()) for line in asked.splitlines()]
    assert [hook["entry"].replace(" --force-exclude", "") for hook in hooks] == known


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_readme_of_a_folder_names_each_of_its_rooms(folder: str) -> None:
    page = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    paths = [path.relative_to(ROOT / folder) for path in project_files() if path.is_relative_to(ROOT / folder)]
    rooms = {path.parts[0] for path in paths if len(path.parts) > 1}
    assert {room for room in rooms if f"{room}/" not in page and f"[{room}]" not in page} == set()
    assert 10 <= len(page.splitlines()) <= 40


@pytest.mark.parametrize("page", [*(f"{folder}/README.md" for folder in FOLDERS), "CONTRIBUTING.md", "CHANGELOG.md"])
def test_what_a_page_links_to_is_there(page: str) -> None:
    linked = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in linked if not ((ROOT / page).parent / link).exists()] == []


def test_the_readme_of_the_engine_draws_the_staircase_that_is_held() -> None:
    page = (ROOT / "engine/README.md").read_text(encoding="utf-8")
    drawn = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert drawn
    steps = [set(re.findall(r"[\w]+(?:/|\.py)", re.split(r" {4}", line)[0])) for line in drawn[1].splitlines()]
    floors = [{room.removeprefix("engine/") for room in rooms} for rooms in ENGINE_FLOORS]
    assert [{step.rstrip("/") for step in rooms} for rooms in reversed(steps)] == floors
