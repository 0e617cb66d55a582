"""The API's side of `pileus up`: sign in, lay out a zone, register the template. All through public commands."""

import http.server
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from pileus.cli.client import ApiError, Client, Profile
from pileus.cli.local_cloud import HOST, LocalCloud, LocalCloudError
from pileus.cli.state import read_profile, store_profile

TEMPLATE = "Pileus Small"
OFFERING = "Tiny Instance"
WAIT_SECONDS = 120.0


def signed_in(cloud: LocalCloud) -> Client:
    """A client with the administrator's keys; they are made by signing in with the first password."""
    path = cloud.state.profile
    if path.exists():
        client = Client(read_profile(path))
        try:
            client.call("listCapabilities")
        except ApiError as error:
            client.close()
            if error.code != 401:
                raise
        else:
            return client
    try:
        password = cloud.state.password.read_text().strip()
    except FileNotFoundError:
        raise LocalCloudError(
            f"{cloud.state.password} is gone, and so are keys that work: sign in yourself, register keys with "
            f"registerUserKeys, and put them into {path}; or begin anew with `pileus down --purge`"
        ) from None
    keys = _keys(cloud.endpoint, password)
    store_profile(path, Profile(cloud.endpoint, keys["apikey"], keys["secretkey"]))
    return Client(read_profile(path))


def _keys(endpoint: str, password: str) -> dict[str, str]:
    with httpx.Client(trust_env=False, timeout=30) as http_client:
        answer = http_client.post(
            endpoint, data={"command": "login", "username": "admin", "password": password, "response": "json"}
        )
        body = next(iter(answer.json().values()))
        if answer.status_code != httpx.codes.OK:
            raise LocalCloudError(
                f"signing in as admin failed ({body.get('errortext')}). If the password was changed, sign in yourself, "
                "register keys with registerUserKeys and put them into client.toml"
            )
        session = {"response": "json", "sessionkey": body["sessionkey"]}
        answer = http_client.post(endpoint, data={"command": "registerUserKeys", "id": body["userid"], **session})
        keys = next(iter(answer.json().values()))["userkeys"]
        http_client.post(endpoint, data={"command": "logout", **session})
    return dict(keys)


class Layout:
    """The one zone of a local cloud. Each `ensure` makes what is missing and returns its id."""

    def __init__(self, client: Client, cloud: LocalCloud) -> None:
        self.client = client
        self.cloud = cloud

    def ensure_zone(self) -> str:
        """An Advanced zone; guests resolve names through the machine's own resolver."""
        return self._ensure(
            "listZones", "zone", "createZone",
            find={}, name="local", networktype="Advanced", dns1=_resolver(), internaldns1=_resolver(),
            guestcidraddress="10.1.1.0/24", vlan="1000-1999",
        )  # fmt: skip

    def ensure_pod(self, zone: str) -> str:
        """A pod whose private addresses lie apart from hosts and public addresses."""
        subnet = self.cloud.choices.subnet
        return self._ensure(
            "listPods", "pod", "createPod",
            find={"zoneid": zone}, zoneid=zone, name="pod1", gateway=str(self.cloud.switch.gateway),
            netmask=str(subnet.netmask), startip=str(subnet[200]), endip=str(subnet[219]),
        )  # fmt: skip

    def ensure_cluster(self, zone: str, pod: str) -> str:
        """A cluster of KVM hosts."""
        return self._ensure(
            "listClusters", "cluster", "addCluster",
            find={"zoneid": zone}, zoneid=zone, podid=pod, clustername="cluster1", hypervisor="KVM",
            clustertype="CloudManaged",
        )  # fmt: skip

    def ensure_public_range(self, zone: str) -> None:
        """Public addresses on the switch, which this machine routes to and translates for."""
        subnet = self.cloud.choices.subnet
        if not self.client.list("listVlanIpRanges", "vlaniprange", zoneid=zone):
            self.client.call(
                "createVlanIpRange", zoneid=zone, forvirtualnetwork=True, vlan="untagged",
                gateway=str(self.cloud.switch.gateway), netmask=str(subnet.netmask),
                startip=str(subnet[100]), endip=str(subnet[199]),
            )  # fmt: skip

    def expect_host(self, zone: str, pod: str, cluster: str) -> tuple[str, str] | None:
        """Announce the host and the secondary storage; the tokens to enrol with, None when both are known."""
        known = {host["type"]: host for host in self.client.list("listHosts", "host", zoneid=zone)}
        if len(known) == 2 and self.cloud.state.agent_config.exists():
            return None
        for host in known.values():
            self.client.call("deleteHost", id=host["id"])
        host_token, storage_token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self.client.call(
            "addHost", zoneid=zone, podid=pod, clusterid=cluster, hypervisor="KVM", url=f"http://{HOST}",
            username="root", password=host_token,
        )  # fmt: skip
        self.client.call(
            "addSecondaryStorage", zoneid=zone, url=f"file://{self.cloud.state.root / 'secondary'}", token=storage_token
        )
        return host_token, storage_token

    def await_hosts(self, zone: str) -> None:
        """Wait until the host and the secondary storage are up."""

        def up() -> bool:
            hosts = self.client.list("listHosts", "host", zoneid=zone)
            return len(hosts) == 2 and all(host["state"] == "Up" for host in hosts)

        self._await(up, f"the host is not up; see {self.cloud.agent.log}", self.cloud.agent.running)

    def ensure_storage(self, zone: str, pod: str, cluster: str) -> None:
        """Primary storage in a directory of this machine, attached by the host."""
        if not self.client.list("listStoragePools", "storagepool", zoneid=zone):
            self.client.call(
                "createStoragePool", zoneid=zone, podid=pod, clusterid=cluster, name="primary1",
                url=f"SharedMountPoint://{self.cloud.state.root / 'primary'}",
            )  # fmt: skip

        def ready() -> bool:
            pools = self.client.list("listStoragePools", "storagepool", zoneid=zone)
            return bool(pools) and all(pool["state"] == "Up" for pool in pools)

        self._await(ready, f"the primary storage was not attached; see {self.cloud.agent.log}")

    def ensure_offering(self) -> str:
        """An offering for the default template, which needs little."""
        for offering in self.client.list("listServiceOfferings", "serviceoffering", name=OFFERING):
            return str(offering["id"])
        made = self.client.call(
            "createServiceOffering", name=OFFERING, displaytext="1 x 500 MHz, 128 MB", cpunumber=1, cpuspeed=500,
            memory=128,
        )  # fmt: skip
        return str(made["serviceoffering"]["id"])

    def ensure_template(self, zone: str, image: Path, told: Callable[[str], None]) -> str:
        """The default template, registered over HTTP like any other and downloaded by the secondary storage."""
        for template in self._templates(zone):
            if template["isready"]:
                return str(template["id"])
            self.client.run("deleteTemplate", id=template["id"], zoneid=zone)
        gateway = str(self.cloud.switch.gateway)
        site = "secstorage.allowed.internal.sites"
        allowed = self.client.list("listConfigurations", "configuration", name=site)[0].get("value") or ""
        if f"{gateway}/32" not in allowed.split(","):
            wanted = ",".join(part for part in (allowed, f"{gateway}/32") if part)
            self.client.call("updateConfiguration", name=site, value=wanted)
        with _serving(image.parent, gateway) as url:
            os_types = self.client.list("listOsTypes", "ostype", keyword="Other Linux (64-bit)")
            self.client.call(
                "registerTemplate", name=TEMPLATE, displaytext="Small demonstration guest", format="QCOW2",
                hypervisor="KVM", ostypeid=os_types[0]["id"], zoneid=zone, url=f"{url}/{image.name}", ispublic=True,
                isfeatured=True, passwordenabled=True, isextractable=False, bits=64,
            )  # fmt: skip

            def ready() -> bool:
                found = self._templates(zone)
                if found:
                    told(str(found[0].get("status", "")))
                return bool(found) and bool(found[0]["isready"])

            self._await(ready, f"the template was not downloaded; see {self.cloud.agent.log}")
        return str(self._templates(zone)[0]["id"])

    def _templates(self, zone: str) -> list[dict[str, Any]]:
        found = self.client.list("listTemplates", "template", templatefilter="self", zoneid=zone, name=TEMPLATE)
        return [template for template in found if template["name"] == TEMPLATE]

    def _ensure(self, lister: str, kind: str, maker: str, *, find: dict[str, str], **values: object) -> str:
        name = values.get("name") or values.get("clustername")
        for found in self.client.list(lister, kind, **find):
            if found["name"] == name:
                return str(found["id"])
        return str(self.client.call(maker, **values)[kind]["id"])

    def _await(self, reached: Callable[[], bool], failure: str, alive: Callable[[], bool] | None = None) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while not reached():
            if alive is not None and not alive():
                raise LocalCloudError(f"{failure} (it has ended): {self.cloud.agent.last_words()}")
            if time.monotonic() > until:
                raise LocalCloudError(failure)
            time.sleep(0.2)


@contextmanager
def _serving(directory: Path, address: str) -> Iterator[str]:
    """Serve a directory's files over HTTP on the switch's root address while the block runs."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer((address, 0), partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{address}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _resolver() -> str:
    """The machine's first IPv4 resolver that guests can reach, else a public one."""
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        words = line.split()
        if (
            len(words) == 2
            and words[0] == "nameserver"
            and words[1].count(".") == 3
            and not words[1].startswith("127.")
        ):
            return words[1]
    return "9.9.9.9"
