"""What a guest says of itself, asked from outside through a port forwarded on its account's address."""

import re
import socket
from typing import Any
from urllib.parse import quote

import httpx
from cloud import Cloud, eventually

from pileus.cli.client import Client


class Guest:
    """A running guest of the small template, reachable on a public port."""

    def __init__(self, cloud: Cloud, client: Client, vm: dict[str, Any], port: int) -> None:
        self.vm = vm
        self.address = vm["nic"][0]["ipaddress"]
        found = client.list("listPublicIpAddresses", "publicipaddress", associatednetworkid=vm["nic"][0]["networkid"])
        source_nat = next(each for each in found if each["issourcenat"])
        self.public = source_nat["ipaddress"]
        self.port = port
        for public, private in ((port, 80), (port + 1000, 23)):
            client.run(
                "createPortForwardingRule",
                ipaddressid=source_nat["id"],
                protocol="TCP",
                publicport=public,
                privateport=private,
                virtualmachineid=vm["id"],
            )

    def get(self, path: str) -> str:
        """A page of the guest's web server."""
        answer = httpx.get(f"http://{self.public}:{self.port}{path}", timeout=20, trust_env=False)
        answer.raise_for_status()
        return answer.text

    def await_answer(self) -> None:
        """Wait until the guest has booted and introduced itself."""

        def answers() -> bool:
            try:
                return "metadata.instance-id=" in self.get("/cgi-bin/status")
            except httpx.HTTPError:
                return False

        eventually(f"guest {self.vm['name']} answers on {self.public}:{self.port}", answers)

    def status(self) -> dict[str, str]:
        """The guest's own view: address, gateway, DNS, metadata, boots …"""
        return dict(line.split("=", 1) for line in self.get("/cgi-bin/status").splitlines() if "=" in line)

    def pings(self, host: str) -> bool:
        """Whether an echo request from inside the guest is answered."""
        return self.get(f"/cgi-bin/ping?host={quote(host)}").startswith("exit=0")

    def resolves(self, name: str) -> list[str]:
        """Addresses the guest's resolver gives for a name."""
        answer = self.get(f"/cgi-bin/resolve?name={quote(name)}")
        return (
            re.findall(r"Address(?: \d+)?: ([0-9.]+)\b(?!:)", answer.split("Name:", 1)[-1]) if "Name:" in answer else []
        )

    def fetches(self, url: str) -> str | None:
        """A page fetched from inside the guest; None when it could not."""
        answer = self.get(f"/cgi-bin/fetch?url={quote(url, safe='')}")
        first, _, rest = answer.partition("\n")
        return rest if first == "exit=0" else None

    def logs_in(self, password: str) -> bool:
        """Whether root's password is this one, tried at the guest's own login over a forwarded telnet port."""
        with socket.create_connection((self.public, self.port + 1000), timeout=20) as line:
            line.settimeout(20)
            said = b""
            for answer, after in ((b"root", b"login:"), (password.encode(), b"assword:")):
                said = _until(line, after)
                line.sendall(answer + b"\r\n")
            said = _until(line, b"#", b"incorrect")
        return b"incorrect" not in said


def _until(line: socket.socket, *ends: bytes) -> bytes:
    said = b""
    while not any(end in said for end in ends):
        more = line.recv(4096)
        if not more:
            return said
        said += more
    return said
