"""What is shipped beside the code: pinned packages, the image, the containers of docker-compose.yml."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from tests.places import ROOT


def test_every_pinned_dependency_carries_its_hashes() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert entries
    assert [entry for entry in entries if not re.match(r"[\w.\[\]-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", entry)] == []
    assert "://" not in text


def test_every_direct_dependency_is_pinned() -> None:
    import tomllib  # noqa: PLC0415  only here

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    wanted = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *(e for group in extras for e in group),
    ]
    names = {re.split(r"[\[=<>;]", entry)[0].strip().lower() for entry in wanted}
    pinned = {
        line.split("==")[0].split("[")[0].lower()
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line
    }
    assert names - pinned == set()


def compose_services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return services


def test_the_compose_file_is_clean() -> None:
    config = YamlLintConfig((ROOT / ".yamllint").read_text())
    assert list(linter.run((ROOT / "docker-compose.yml").read_text(), config)) == []


def test_each_container_tells_whether_it_is_well() -> None:
    assert {"kafka", "postgresql", "registry", "worker"} <= compose_services().keys()
    assert [name for name, service in compose_services().items() if "test" not in service.get("healthcheck", {})] == []


def test_containers_listen_on_this_machine_only_and_on_ports_that_can_be_chosen() -> None:
    ports = [port for service in compose_services().values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:\$\{GUERDON_\w+_PORT:-\d+\}:\d+", port)] == []


def test_every_image_has_a_fixed_version() -> None:
    base = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    images = [service["image"] for service in compose_services().values()] + base
    assert [image for image in images if not re.search(r":\d+\.\d+(\.\d+)?(-[\w.-]+)?$", image)] == []


def test_docker_and_maven_run_the_same_kafka() -> None:
    pom = (ROOT / "operations/services/pom.xml").read_text()
    version = re.search(r"kafka_2\.13</artifactId>\s*<version>([\d.]+)<", pom)
    assert version
    assert compose_services()["kafka"]["image"] == f"apache/kafka:{version[1]}"


def test_the_worker_image_has_no_root_and_takes_only_pinned_packages() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1] not in {"root", "0"}
    installs = [line for line in lines if "pip install" in line]
    assert installs
    assert [line for line in installs if "--require-hashes" not in line and "--no-deps" not in line] == []


def test_the_worker_image_gets_what_it_copies() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == let_in
    assert [name for name in sorted(copied) if not (ROOT / name).exists()] == []
