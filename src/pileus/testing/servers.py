"""Private PostgreSQL and MariaDB servers for a test run: own data, own socket, no network, nothing of them survives.

Each is started once per process, when first asked for, and kept by `testing.keeper`, which ends it with us. Commits
need not reach the disk. Tests connect as the user `pileus`, who owns databases and is nobody else: what the product
does must need no more.
"""

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from pileus.sandbox.watchdog import MARK
from pileus.testing import keeper

START_SECONDS = 60.0
USER = "pileus"


class CannotStart(RuntimeError):
    """A database server could not be started; the text says what is missing or ends with its log."""


@dataclass(frozen=True)
class DatabaseServer:
    """A running server."""

    driver: str
    """SQLAlchemy's name of dialect and driver."""
    query: dict[str, str]
    admin: str
    admin_database: str

    def url(self, database: str, *, driver: str | None = None) -> str:
        """For `Database`, as the user `pileus`."""
        return self._url(USER, database, driver or self.driver).render_as_string()

    def admin_url(self, database: str) -> str:
        """For the server's administrator."""
        return self._url(self.admin, database, self.driver).render_as_string()

    def administer(self, *statements: str) -> None:
        """Run statements as the server's administrator."""
        self._run(self.admin, self.admin_database, *statements)

    def run(self, database: str, *statements: str) -> None:
        """Run statements as the user `pileus`, each for itself."""
        self._run(USER, database, *statements)

    def create(self, database: str) -> str:
        """An empty database of the user `pileus`; its URL."""
        owner = f" OWNER {USER}" if self.driver.startswith("postgresql") else ""
        self.administer(f"CREATE DATABASE {database}{owner}")
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected."""
        force = " WITH (FORCE)" if self.driver.startswith("postgresql") else ""
        self.administer(f"DROP DATABASE IF EXISTS {database}{force}")

    def _url(self, user: str, database: str, driver: str) -> URL:
        return URL.create(driver, user, host=self.host, database=database, query=self.query)

    @property
    def host(self) -> str | None:
        """What the URL names beside the socket."""
        return None if self.driver.startswith("postgresql") else "localhost"

    def _run(self, user: str, database: str, *statements: str) -> None:
        engine = create_engine(self._url(user, database, self.driver), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))


@cache
def postgresql(*, durable: bool = False) -> DatabaseServer:
    """The PostgreSQL server of this process; with `durable`, one whose commits reach the disk. Raises CannotStart."""
    programs = _postgresql_programs()
    directory, account = _directory("postgresql", "postgres")
    data = directory / "data"
    initdb = [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync"]
    _prepare([*account.argv("TERM"), *initdb, "-E", "UTF8", "--locale=C.UTF-8"], directory)
    settings = {
        "unix_socket_directories": str(directory),
        "listen_addresses": "",
        "fsync": "on" if durable else "off",
        "synchronous_commit": "on" if durable else "off",
        "full_page_writes": "on" if durable else "off",
        "autovacuum_naptime": "10s",
        "max_connections": "300",
        "shared_buffers": "64MB",
        "wal_level": "minimal",
        "max_wal_senders": "0",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command = [*account.argv("QUIT"), str(programs / "postgres"), "-D", str(data), *options]
    server = DatabaseServer("postgresql+psycopg", {"host": str(directory)}, "postgres", "postgres")
    _keep(directory, signal.SIGINT, command, lambda: server.administer(f"CREATE ROLE {USER} LOGIN CREATEDB"))
    return server


@cache
def mariadb() -> DatabaseServer:
    """The MariaDB server of this process; databases of its tests are named `pileus…`. Raises CannotStart."""
    install, program = _program("mariadb-install-db"), _program("mariadbd", "/usr/sbin")
    directory, account = _directory("mariadb", "mysql")
    data = directory / "data"
    # Its own: temporary tables are named by process number, and numbers are not unique across namespaces.
    temporary = directory / "tmp"
    temporary.mkdir()
    os.chown(temporary, account.uid, account.gid)
    tables = [
        install,
        "--no-defaults",
        f"--datadir={data}",
        f"--tmpdir={temporary}",
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
    ]
    _prepare([*account.argv("TERM"), *tables], directory)
    socket = directory / "socket"
    settings = {
        "datadir": str(data),
        "tmpdir": str(temporary),
        "socket": str(socket),
        "pid-file": str(directory / "pid"),
        "skip-networking": "1",
        "innodb-flush-log-at-trx-commit": "0",
        "innodb-flush-method": "nosync",
        "innodb-doublewrite": "0",
        "innodb-buffer-pool-size": "64M",
        "innodb-log-file-size": "32M",
        "innodb-stats-persistent": "0",
        "innodb-fast-shutdown": "3",
        "max-connections": "300",
        "performance-schema": "0",
        "skip-name-resolve": "1",
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    command = [*account.argv("KILL"), program, "--no-defaults", *options]
    server = DatabaseServer("mariadb+pymysql", {"unix_socket": str(socket)}, "root", "mysql")
    grant = f"GRANT ALL ON `{USER}%`.* TO {USER}@localhost".replace("%", "%%")
    _keep(directory, signal.SIGTERM, command, lambda: server.administer(f"CREATE USER {USER}@localhost", grant))
    return server


@dataclass(frozen=True)
class _Account:
    """Whom a server runs as: neither of the two runs as root."""

    name: str
    uid: int
    gid: int
    switch: bool

    def argv(self, at_death: str) -> list[str]:
        """Words before a command that make it run as the account and get a signal should its keeper be killed."""
        switch = [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"] if self.switch else []
        return ["setpriv", *switch, f"--pdeathsig={at_death}"]


def _directory(name: str, user: str) -> tuple[Path, _Account]:
    directory = Path(tempfile.mkdtemp(prefix=f"pileus-{name}-"))
    root = os.geteuid() == 0
    try:
        found = pwd.getpwnam(user) if root else pwd.getpwuid(os.geteuid())
    except KeyError as error:
        directory.rmdir()
        raise CannotStart(f"there is no user {user}: the distribution's package of the server makes it") from error
    os.chown(directory, found.pw_uid, found.pw_gid)
    return directory, _Account(found.pw_name, found.pw_uid, found.pw_gid, switch=root)


def _prepare(command: list[str], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    if done.returncode != 0:
        shutil.rmtree(directory, ignore_errors=True)
        raise CannotStart(f"{command[-1]}: {done.stdout[-1000:]}{done.stderr[-1000:]}")


def _keep(directory: Path, number: signal.Signals, command: list[str], first: Callable[[], None]) -> None:
    """Start the command under a keeper that ends with this process; `first` is tried until the server takes it."""
    kept = subprocess.Popen(
        [sys.executable, "-I", str(keeper.__file__), str(directory), str(int(number)), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=directory,
        # It ends with us by itself, and removes its directory: the watchdog of a killed run must not end it first.
        env={name: entry for name, entry in os.environ.items() if name != MARK},
        start_new_session=True,
        text=True,
    )
    atexit.register(_let_go, kept)
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            first()
            return
        except OperationalError as error:
            if kept.poll() is not None:
                told = kept.stdout.read() if kept.stdout else ""
                raise CannotStart(f"{command[-1]}: {told}") from error
            if time.monotonic() > until:
                _let_go(kept)
                raise CannotStart(f"not ready after {START_SECONDS} s") from error
        time.sleep(0.02)


def _let_go(kept: "subprocess.Popen[str]") -> None:
    if kept.stdin:
        kept.stdin.close()
    kept.wait(2 * keeper.PATIENCE_SECONDS)
    if kept.stdout:
        kept.stdout.close()


def _postgresql_programs() -> Path:
    """Directory of the newest PostgreSQL's programs; distributions keep them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    return Path(_program("postgres")).parent


def _program(name: str, *more: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *more]))
    if found is None:
        raise CannotStart(f"there is no program {name}: install the distribution's package")
    return found
