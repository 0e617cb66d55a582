"""kill -9 of the server and of the agent at every stage of a real deploy: one guest or none, and nothing leaked."""

import contextlib
import itertools
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cloud import Cloud, eventually

from pileus.cli.client import ApiError, Client

pytestmark = [pytest.mark.kvm, pytest.mark.slow]

DONE = (1, 2)
"""Values of `jobstatus` that are final: succeeded, failed."""

_numbers = itertools.count(1)


class Watch:
    """What server and agent have written down, read while they run: the stage of a deploy is seen, not guessed."""

    def __init__(self, cloud: Cloud) -> None:
        self._server = _reader(cloud.directory / "server" / "pileus.db")
        self._agent = _reader(cloud.directory / cloud.places[0].name / "agent" / "journal.db")
        self._first = self._row(self._server, "SELECT coalesce(max(id), 0) FROM host_operation")[0]

    def close(self) -> None:
        self._server.close()
        self._agent.close()

    def requested(self, kind: str) -> str | None:
        """Id of the newest operation of a kind that was asked since the watch began."""
        row = self._row(
            self._server,
            "SELECT operation_id FROM host_operation WHERE kind = ? AND id > ? ORDER BY id DESC",
            kind,
            self._first,
        )
        return None if row is None else str(row[0])

    def begun(self, kind: str) -> bool:
        """The agent has begun the operation."""
        return self._entry(kind) is not None

    def done(self, kind: str) -> bool:
        """The agent has written its answer down, and perhaps sent it."""
        entry = self._entry(kind)
        return entry is not None and entry[0] is not None

    def pending(self) -> int:
        """Operations without an answer."""
        return int(self._row(self._server, "SELECT count(*) FROM host_operation WHERE pending = 1")[0])

    def _entry(self, kind: str) -> tuple[bytes | None] | None:
        operation_id = self.requested(kind)
        if operation_id is None:
            return None
        return self._row(self._agent, "SELECT answer FROM operation WHERE operation_id = ?", operation_id)

    @staticmethod
    def _row(database: sqlite3.Connection, statement: str, *values: object) -> tuple[bytes | None] | None:
        found: tuple[bytes | None] | None = database.execute(statement, values).fetchone()
        return found


STAGES: dict[str, Callable[[Watch], bool]] = {
    "job accepted": lambda watch: True,
    "router starting": lambda watch: watch.begun("StartRouter"),
    "template being fetched": lambda watch: watch.begun("FetchTemplate"),
    "volume created": lambda watch: watch.done("CreateVolume"),
    "start delivered": lambda watch: watch.begun("StartVm"),
    "just answered": lambda watch: watch.done("StartVm"),
}


@pytest.fixture(scope="module")
def templates(cloud_of_one: Cloud, guest_image: Path) -> Iterator[str]:
    """Templates that no pool has yet, one for each deploy that is to be killed while it fetches one."""
    return iter([cloud_of_one.register(guest_image, name=f"fresh{number}") for number in (1, 2)])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("program", ["server", "agent"])
def test_a_kill_in_the_middle_of_a_deploy_leaves_one_guest_or_none(
    cloud_of_one: Cloud, templates: Iterator[str], program: str, stage: str
) -> None:
    cloud, name = cloud_of_one, f"crash{next(_numbers)}"
    client = cloud.account(name)
    before = Leftovers(cloud)
    template = next(templates) if stage == "template being fetched" else cloud.template
    with contextlib.closing(Watch(cloud)) as watch:
        started = client.call(
            "deployVirtualMachine", zoneid=cloud.zone, serviceofferingid=cloud.offering, templateid=template, name=name
        )
        _at(lambda: STAGES[stage](watch), stage)
        _kill_and_restart(cloud, program)

        job = _ended(client, started["jobid"])
        guests = client.list("listVirtualMachines", "virtualmachine")
        if job["jobstatus"] == 1:
            assert [(vm["id"], vm["state"]) for vm in guests] == [(started["id"], "Running")]
            assert before.new_domains() == [_instance(cloud, started["id"])]
            assert len(before.new_volumes()) == 1
            cloud.admin.run("destroyVirtualMachine", id=started["id"], expunge=True)
        else:
            assert guests == []
        for network in client.list("listNetworks", "network"):
            client.run("deleteNetwork", id=network["id"])
        eventually("no operation waits", lambda: watch.pending() == 0)
    before.assert_nothing_more()


def test_after_all_of_it_a_guest_runs_as_ever(cloud_of_one: Cloud) -> None:
    client = cloud_of_one.account("after")
    vm = cloud_of_one.deploy(client, "after")
    assert vm["state"] == "Running"
    assert cloud_of_one.admin.list("listAsyncJobs", "asyncjobs", listall=True) == []


class Leftovers:
    """What there was before a deploy, on the host, in the pool and in the numbers; and what there is more of now."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._host = cloud.sandbox[0]
        self._before = self._seen()

    def new_domains(self) -> list[str]:
        return sorted(self._domains() - set(self._before["domains"]))

    def new_volumes(self) -> list[str]:
        return sorted(self._volumes() - set(self._before["volumes"]))

    def assert_nothing_more(self) -> None:
        assert self._seen() == self._before

    def _seen(self) -> dict[str, list[str]]:
        return {
            "domains": sorted(self._domains()),
            "volumes": sorted(self._volumes()),
            "half files": [path.name for path in self._pool.rglob(".*")],
            "devices": sorted(link["ifname"] for link in json.loads(self._host.run(["ip", "-j", "link"]))),
            "namespaces": sorted(re.findall(r"^\S+", self._host.run(["ip", "netns", "list"]), re.MULTILINE)),
            "claims": self._claims(),
            "listed": self._listed(),
        }

    @property
    def _pool(self) -> Path:
        return self._cloud.directory / "primary"

    def _domains(self) -> set[str]:
        return set(self._host.run(["virsh", "-c", "qemu:///system", "list", "--all", "--name"]).split())

    def _volumes(self) -> set[str]:
        folder = self._pool / "volumes"
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def _claims(self) -> list[str]:
        """What hosts and pools say is claimed of them."""
        admin = self._cloud.admin
        host = admin.list("listHosts", "host", type="Routing")[0]
        pool = admin.list("listStoragePools", "storagepool")[0]
        return [f"{host[key]}" for key in ("cpuallocated", "memoryallocated")] + [f"{pool['disksizeallocated']}"]

    def _listed(self) -> list[str]:
        """Everything that a deploy makes and that is in use, as the API lists it."""
        kinds = {
            "listVirtualMachines": "virtualmachine",
            "listVolumes": "volume",
            "listRouters": "router",
            "listNetworks": "network",
            "listPublicIpAddresses": "publicipaddress",
        }
        admin = self._cloud.admin
        return sorted(
            entry["id"] for command, kind in kinds.items() for entry in admin.list(command, kind, listall=True)
        )


def _kill_and_restart(cloud: Cloud, program: str) -> None:
    if program == "server":
        cloud.kill_server()
        cloud.start_server()
    else:
        cloud.kill_agent(cloud.places[0])
        cloud.start_agent(cloud.places[0])


def _at(reached: Callable[[], bool], stage: str) -> None:
    """Spin until the stage is reached: some last a few milliseconds."""
    until = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < until, f"the deploy never came to: {stage}"
        time.sleep(0.001)


def _ended(client: Client, job: str) -> dict[str, object]:
    """The job's answer once it has ended."""

    def ended() -> dict[str, object] | None:
        try:
            answer = client.call("queryAsyncJobResult", jobid=job)
        except ApiError as error:
            assert error.code == 0, error.text
            return None
        return answer if answer["jobstatus"] in DONE else None

    found: dict[str, object] = eventually("the job ends", ended)
    return found


def _instance(cloud: Cloud, vm_id: str) -> str:
    return str(cloud.admin.list("listVirtualMachines", "virtualmachine", id=vm_id)[0]["instancename"])


def _reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=10)
