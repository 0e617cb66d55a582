"""A remote-access VPN end to end: a second machine with the same kernel is the client, and reaches a guest through it.

Both boot from the system template under emulation, joined by a wire of their own; the guest is a network namespace.
Nothing between client and router may be anything but IKE and ESP: the wire is recorded.
"""

import asyncio
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from router_world import ROUTER_IP, config, run, until

from pileus.agent.backends.kvm import router_control
from pileus.agent.backends.kvm.router_control import Port
from pileus.agent.backends.kvm.router_image import BOOT_OFFSET, command_line, unpack
from pileus.appliance.image import system
from pileus.appliance.image.initramfs import Entry, archive
from pileus.sandbox.watchdog import Watchdog
from pileus.wire.appliance import CONTROL_PORT
from pileus.wire.router import PublicAddress, RemoteAccessVpn, RouterConfig, VpnUser

IMAGE = Path(__file__).parents[3] / "build/systemvm.qcow2"
OUTSIDE, CLIENT = "203.0.113.10", "203.0.113.77"
GUEST, GUEST_MAC, PUBLIC_MAC = "10.1.1.5", "02:00:00:00:02:01", "02:00:00:00:02:02"
SERVICES = ("dhcp", "dns", "gateway", "source-nat", "user-data", "password", "vpn")
KEY, USER = "24characterspresharedkey", VpnUser("ann", "pass_word1")
VPN = RemoteAccessVpn(OUTSIDE, KEY, "10.1.2.1", "10.1.2.2", "10.1.2.8", (USER,))

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not system.is_current(IMAGE), reason="no system template of these sources: make systemvm"),
]

CLIENT_INIT = """#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin
/bin/busybox mount -t devtmpfs devtmpfs /dev
while read -r module; do /bin/busybox insmod "/modules/$module" 2>/dev/null; done </modules/order
while [ ! -b /dev/vda3 ]; do /bin/busybox usleep 20000; done
/bin/busybox mount -t ext4 -o ro /dev/vda2 /mnt
/bin/busybox mount -o move /dev /mnt/dev
exec /bin/busybox chroot /mnt /usr/bin/busybox sh -c "$(/bin/busybox cat /client.sh)"
"""

CLIENT_SCRIPT = r"""
exec >/dev/console 2>&1
mount -t proc proc /proc; mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp; mount -t tmpfs tmpfs /var/lib/pileus
mkdir -p /var/lib/pileus/vpn
while read -r module; do insmod "$module"; done </etc/modules.order
for module in ppp_generic l2tp_ppp esp4 xfrm_user authenc echainiv seqiv drbg; do
  modprobe $module
done
ip link set lo up; ip link set eth0 up; ip addr add @CLIENT@/24 dev eth0
cat >/run/strongswan.conf <<C
charon-systemd {
  load = random nonce openssl aes sha1 sha2 hmac kdf gmp pem kernel-netlink socket-default vici
  filelog {
    stderr {
      default = 1
    }
  }
}
C
cat >/run/swanctl.conf <<C
connections {
  vpn {
    version = 1
    remote_addrs = @OUTSIDE@
    proposals = aes128-sha1-modp2048
    local {
      auth = psk
    }
    remote {
      auth = psk
    }
    children {
      vpn {
        mode = transport
        local_ts = dynamic[udp/1701]
        remote_ts = dynamic[udp/1701]
        esp_proposals = aes128-sha1
      }
    }
  }
}
secrets {
  ike-1 {
    secret = 0x@KEY@
  }
}
C
cat >/run/xl2tpd.conf <<C
[lac vpn]
lns = @OUTSIDE@
pppoptfile = /run/ppp.options
length bit = yes
C
cat >/run/ppp.options <<C
ipcp-accept-local
ipcp-accept-remote
refuse-eap
refuse-pap
noauth
noccp
mtu 1410
mru 1410
name "@NAME@"
password "@PASSWORD@"
logfile /run/ppp.log
C
say() { echo "CLIENT $1"; }
STRONGSWAN_CONF=/run/strongswan.conf charon-systemd >/run/charon.log 2>&1 &
n=0; while ! swanctl --load-all --noprompt --file /run/swanctl.conf >/run/load 2>&1; do
  n=$((n + 1)); [ $n -gt 100 ] && break; usleep 100000; done
xl2tpd -D -c /run/xl2tpd.conf -p /run/xl2tpd.pid -C /run/l2tp >/run/xl2tpd.log 2>&1 &
sleep 1
swanctl --initiate --child vpn >/run/initiate 2>&1 && say "has an association" || cat /run/initiate /run/charon.log

echo 'c vpn' >/run/l2tp
n=0; while ! ip addr show dev ppp0 up 2>/dev/null | grep -q inet; do
  n=$((n + 1)); [ $n -gt 200 ] && break; usleep 100000; done
if ip addr show dev ppp0 | grep -q inet; then
  say "has $(ip -4 -o addr show dev ppp0 | awk '{print $4, $6}')"
  ip route add 10.1.1.0/24 dev ppp0
  ping -c 1 -w 15 @ROUTER@ >/dev/null && say "pings the router"
  ping -c 1 -w 15 @GUEST@ >/dev/null && say "pings the guest"
  say "fetches $(timeout 15 wget -q -O - http://@GUEST@:8000/hello)"
else
  cat /run/ppp.log /run/xl2tpd.log /run/charon.log | tail -60
fi
say done
poweroff -f
"""


@dataclass
class Machines:
    """The files that both machines boot from, the wires' directory, and what the client has said."""

    directory: Path
    command_line: str
    disk: Path
    namespace: str

    def boot(self, name: str, *options: str, initrd: Path, argv: tuple[str, ...] = ()) -> "subprocess.Popen[bytes]":
        overlay = self.directory / f"{name}.qcow2"
        overlay.unlink(missing_ok=True)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(self.disk), "-F", "qcow2", str(overlay))
        kernel = ["-kernel", str(self.directory / "vmlinux"), "-initrd", str(initrd), "-append", self.command_line]
        machine = ["-machine", "q35,accel=tcg", "-cpu", "qemu64", "-m", "160", "-nodefaults", "-display", "none"]
        drive = ["-drive", f"file={overlay},if=virtio", "-serial", f"file:{self.directory / name}.log"]
        return subprocess.Popen(
            [*argv, "qemu-system-x86_64", *machine, *kernel, *drive, "-device", "virtio-rng-pci", *options],
            stdin=subprocess.DEVNULL,
        )

    def said(self, name: str) -> list[str]:
        log = (self.directory / f"{name}.log").read_text(errors="replace") if (
            self.directory / f"{name}.log").exists() else ""  # fmt: skip
        return log.replace("\r", "").splitlines()

    @property
    def wire(self) -> Path:
        return self.directory / "wire"

    @property
    def port(self) -> Port:
        return Port(self.directory / "control")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, watchdog: Watchdog) -> Iterator[Machines]:
    """The router's machine, booting, with a guest on a tap."""
    directory = tmp_path_factory.mktemp("vpn")
    disk, raw = directory / "disk.qcow2", directory / "raw"
    run("qemu-img", "convert", "-O", "qcow2", str(IMAGE), str(disk))
    run("qemu-img", "convert", "-O", "raw", str(IMAGE), str(raw))
    for name in ("vmlinuz", "initrd", "syslinux.cfg"):
        run("mcopy", "-n", "-i", f"{raw}@@{BOOT_OFFSET}", f"::{name}", str(directory / name))
    raw.unlink()
    (directory / "vmlinux").write_bytes(unpack((directory / "vmlinuz").read_bytes()))
    namespace = f"t{os.getpid() % 100000}vpn"
    watchdog.network(namespace)
    made = Machines(directory, command_line((directory / "syslinux.cfg").read_text()), disk, namespace)
    run("ip", "netns", "add", namespace)
    inside = ("ip", "netns", "exec", namespace)
    web = directory / "web"
    web.mkdir()
    (web / "hello").write_text("hello-from-the-guest")
    started: list[subprocess.Popen[bytes]] = []
    try:
        run(*inside, "ip", "tuntap", "add", "tap0", "mode", "tap")
        run(*inside, "ip", "addr", "add", f"{GUEST}/24", "dev", "tap0")
        run(*inside, "ip", "link", "set", "tap0", "up")
        run(*inside, "ip", "link", "set", "lo", "up")
        run(*inside, "ip", "route", "add", "default", "via", ROUTER_IP)
        serve = ["python3", "-m", "http.server", "8000", "--bind", GUEST, "--directory", str(web)]
        started.append(subprocess.Popen([*inside, *serve], stderr=subprocess.DEVNULL))
        told = f"type=11,value=pileus.name=r-1-VM,value=pileus.guest={GUEST_MAC},value=pileus.public={PUBLIC_MAC}"
        channel = f"socket,id=c,path={made.port.path},server=on,wait=off"
        started.append(
            made.boot(
                "router",
                *("-smbios", told),
                *("-netdev", "tap,id=g,ifname=tap0,script=no,downscript=no"),
                *("-device", f"virtio-net-pci,netdev=g,mac={GUEST_MAC},romfile="),
                *("-netdev", f"stream,id=p,server=on,addr.type=unix,addr.path={made.wire}"),
                *("-device", f"virtio-net-pci,netdev=p,mac={PUBLIC_MAC},romfile="),
                *("-object", f"filter-dump,id=d,netdev=p,file={directory / 'wire.pcap'}"),
                *("-device", "virtio-serial", "-chardev", channel),
                *("-device", f"virtserialport,chardev=c,name={CONTROL_PORT}"),
                initrd=directory / "initrd",
                argv=inside,
            )
        )
        until(made.port.path.exists, "the router's machine does not start")
        yield made
    finally:
        for process in started[::-1]:
            process.kill()
            process.wait()
        run("ip", "netns", "del", namespace)


def wanted(generation: int, vpn: RemoteAccessVpn) -> RouterConfig:
    public = (PublicAddress(OUTSIDE, 24, "203.0.113.1", source_nat=True),)
    return config(generation, public=public, services=SERVICES, vpn=vpn, port_forwards=())


def configured(machines: Machines, generation: int, vpn: RemoteAccessVpn) -> None:
    facts = asyncio.run(router_control.configure(machines.port, wanted(generation, vpn)))
    assert facts.generation == generation


def client(machines: Machines, name: str, *, password: str) -> list[str]:
    """What a client says that dials in once."""
    values = {
        "CLIENT": CLIENT,
        "OUTSIDE": OUTSIDE,
        "ROUTER": ROUTER_IP,
        "GUEST": GUEST,
        "KEY": KEY.encode().hex(),
        "NAME": USER.name.replace("\\", "\\\\").replace('"', '\\"'),
        "PASSWORD": password,
    }
    script = CLIENT_SCRIPT.replace("<<C", "<<'C'")
    for key, value in values.items():
        script = script.replace(f"@{key}@", value)
    files = [Entry.file("init", CLIENT_INIT.encode(), 0o755), Entry.file("client.sh", script.encode(), 0o644)]
    initrd = machines.directory / f"{name}.initrd"
    # A later archive's files take the place of an earlier one's.
    initrd.write_bytes((machines.directory / "initrd").read_bytes() + archive(files))
    wire = f"stream,id=n,server=off,addr.type=unix,addr.path={machines.wire}"
    process = machines.boot(
        name, "-netdev", wire, "-device", "virtio-net-pci,netdev=n,mac=02:00:00:00:02:77,romfile=", initrd=initrd
    )
    try:
        until(lambda: "CLIENT done" in machines.said(name), "the client does not end", seconds=110)
    finally:
        process.kill()
        process.wait()
    return [line.removeprefix("CLIENT ") for line in machines.said(name) if line.startswith("CLIENT ")]


def frames(capture: Path) -> Iterator[bytes]:
    """The frames of a packet capture (pcap, little endian)."""
    data = capture.read_bytes()
    at = 24
    while at + 16 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 8)
        yield data[at + 16 : at + 16 + length]
        at += 16 + length


def test_a_client_reaches_a_guest_and_only_ike_and_esp_are_on_the_wire(machines: Machines) -> None:
    configured(machines, 1, VPN)
    said = client(machines, "ann", password=USER.password)
    assert "has an association" in said, machines.said("ann")
    assert "pings the guest" in said, machines.said("ann")
    assert "pings the router" in said
    assert "fetches hello-from-the-guest" in said
    assert any(line.startswith("has 10.1.2.") for line in said)
    kinds = set()
    for frame in frames(machines.directory / "wire.pcap"):
        if frame[12:14] == b"\x08\x00":
            protocol, header = frame[23], (frame[14] & 15) * 4
            ports = struct.unpack_from("!HH", frame, 14 + header) if protocol == 17 else ()
            kinds.add(f"udp/{min(ports)}" if ports else {50: "esp"}.get(protocol, str(protocol)))
    assert kinds <= {"udp/500", "udp/4500", "esp"} | NOT_OF_THE_VPN
    assert "esp" in kinds


NOT_OF_THE_VPN = {"1", "2"}
"""ICMP and IGMP of two machines that meet on a wire."""
