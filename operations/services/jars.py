"""Find Java, and fetch Apache Kafka's jars once into a cache folder that all projects of this user share."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import platformdirs

from schemas.errors import ServiceUnreachable

POM = Path(__file__).with_name("pom.xml")
JAVA_VERSION_MIN = 17
MAVEN_PATIENCE_S = 600
_OTHER_WAYS = "or start Docker, or set KAFKA_BOOTSTRAP_SERVERS to a broker that runs"


def find_java() -> str:
    """Return the path of a Java of version 17 or later: JAVA_HOME's, else the one on the PATH.

    Raises:
        ServiceUnreachable: there is none, or it is older.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    java = java or shutil.which("java")
    if java is None:
        raise ServiceUnreachable(
            f"Kafka needs Java {JAVA_VERSION_MIN} or later and none was found on the PATH or in JAVA_HOME: "
            f"install a JDK, {_OTHER_WAYS}",
        )

    version = _java_version(java)
    if version < JAVA_VERSION_MIN:
        raise ServiceUnreachable(
            f"Kafka needs Java {JAVA_VERSION_MIN} or later, but {java} is version {version}: "
            f"install a newer JDK or point JAVA_HOME to one, {_OTHER_WAYS}",
        )
    return java


def _java_version(java: str) -> int:
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603  found above
    number = re.search(r'version "(\d+)(?:\.(\d+))?', done.stderr + done.stdout)
    if number is None:
        raise ServiceUnreachable(
            f"{java} -version did not name a version, so it cannot run Kafka: install a JDK, {_OTHER_WAYS}",
        )
    # Up to Java 8 versions were written 1.8.
    return int(number[2] or 0) if number[1] == "1" else int(number[1])


def kafka_jars(cache: Path | None = None) -> Path:
    """Return the folder with the broker's jars, fetching them with Maven the first time.

    The folder's name is made from the pom's digest, so another version gets another folder. Maven writes into a draft
    beside it, which takes the final name only when it is complete. A lock lets a second start wait for the first.
    """
    cache = cache or platformdirs.user_cache_path("guerdon")
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    folder = cache / f"kafka-{digest}"
    if folder.is_dir():
        return folder

    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".kafka-{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _fetch(cache, folder)
    return folder


def _fetch(cache: Path, folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServiceUnreachable(
            f"Kafka's jars are fetched with Maven and no `mvn` was found on the PATH: install Maven, {_OTHER_WAYS}",
        )

    with tempfile.TemporaryDirectory(prefix=".kafka-", dir=cache) as draft:
        libs = Path(draft) / "libs"
        command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={libs}"]
        try:
            done = subprocess.run(  # noqa: S603  the command is built from paths, no shell reads it
                command, capture_output=True, text=True, check=False, timeout=MAVEN_PATIENCE_S, cwd=draft
            )
        except subprocess.TimeoutExpired as error:
            raise ServiceUnreachable(
                f"Maven did not fetch Kafka's jars within {MAVEN_PATIENCE_S} s: check the network and run it again",
            ) from error

        # only a whole folder takes the name
        if done.returncode != 0 or not any(libs.glob("kafka_*.jar")):
            raise ServiceUnreachable(f"Maven could not fetch Kafka's jars ({_reason(done.stdout)}); see `mvn -f {POM}`")
        libs.replace(folder)


def _reason(output: str) -> str:
    errors = [line.removeprefix("[ERROR] ") for line in output.splitlines() if line.startswith("[ERROR] ")]
    return errors[0][:300] if errors else "it gave no reason"
