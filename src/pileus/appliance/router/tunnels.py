"""Turns a checked config's VPN into the files of strongSwan, xl2tpd and pppd: pure, no I/O.

L2TP inside IPsec in transport mode with a pre-shared key (RFC 3193), IKEv1: what every desktop's own client speaks.
"""

import base64
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from pileus.wire.router import RemoteAccessVpn, RouterConfig

PLACE = Path("/run/pileus-vpn")
PPP = Path("/etc/ppp")
"""Where pppd looks for secrets and scripts; it can be told no other place."""

CHARON_CONFIG = PLACE / "strongswan.conf"
SWANCTL_CONFIG = PLACE / "swanctl.conf"
VICI = f"unix://{PLACE}/charon.vici"
XL2TPD_CONFIG = PLACE / "xl2tpd.conf"
PPP_OPTIONS = PLACE / "options.xl2tpd"
SESSIONS = PLACE / "sessions"
SECRETS = PPP / "chap-secrets"
MTU_BYTES = 1400
"""What is left of 1500 behind ESP, UDP for NAT traversal, L2TP and PPP."""

_CHARON = """charon-systemd {{
  load = {plugins}
  install_routes = no
  plugins {{
    vici {{
      socket = {vici}
    }}
  }}
}}
"""
_PLUGINS = (
    *("aes", "des", "sha1", "sha2", "md5", "hmac", "random", "nonce", "kdf", "gmp", "openssl", "pubkey", "x509"),
    *("kernel-netlink", "socket-default", "vici"),
)
"""What it needs and no more: of the others some want what the machine has not, some take packets for themselves."""

_SWANCTL = """connections {{
  l2tp {{
    version = 1
    local_addrs = {ip}
    proposals = aes256-sha256-modp2048,aes128-sha1-modp2048,aes256-sha1-modp1024,aes128-sha1-modp1024,3des-sha1-modp1024
    dpd_delay = 30s
    local {{
      auth = psk
      id = {ip}
    }}
    remote {{
      auth = psk
    }}
    children {{
      l2tp {{
        mode = transport
        local_ts = dynamic[udp/1701]
        remote_ts = dynamic[udp]
        esp_proposals = aes256-sha256,aes128-sha256,aes256-sha1,aes128-sha1,3des-sha1
        dpd_action = clear
      }}
    }}
  }}
}}
secrets {{
  ike-l2tp {{
    secret = 0s{secret}
  }}
}}
"""

_XL2TPD = """[global]
listen-addr = {ip}
port = 1701
ipsec saref = no
[lns default]
ip range = {first}-{last}
local ip = {local}
require chap = yes
refuse pap = yes
require authentication = yes
name = pileus
pppoptfile = {options}
length bit = yes
"""

_PPP = """name pileus
auth
require-mschap-v2
refuse-pap
refuse-eap
ipcp-accept-local
ipcp-accept-remote
noccp
nodefaultroute
nodetach
lcp-echo-interval 30
lcp-echo-failure 4
connect-delay 5000
mtu {mtu}
mru {mtu}
{dns}"""

# pppd calls these with nothing in the environment but what they need.
_UP = f"""#!/bin/busybox sh
/bin/busybox touch "{SESSIONS}/$PEERNAME:$PPPD_PID"
"""
_DOWN = f"""#!/bin/busybox sh
/bin/busybox rm -f "{SESSIONS}/$PEERNAME:$PPPD_PID"
"""


@dataclass(frozen=True)
class File:
    """What is to be at a place, and who may do what with it."""

    text: str
    mode: int = 0o600


@dataclass(frozen=True)
class Plan:
    """`keying` and `tunnelling` are the files that either daemon reads once, `users` may change at any time."""

    keying: dict[Path, File]
    tunnelling: dict[Path, File]
    users: dict[str, str]

    def files(self) -> dict[Path, File]:
        """All of them, and the secrets of the users."""
        secrets = "".join(f'"{name}" pileus "{password}" *\n' for name, password in sorted(self.users.items()))
        scripts = {PPP / "ip-up": File(_UP, 0o700), PPP / "ip-down": File(_DOWN, 0o700), PPP / "options": File("")}
        return {**self.keying, **self.tunnelling, **scripts, SECRETS: File(secrets)}


def plan(config: RouterConfig | None) -> Plan | None:
    """What the VPN of `config` needs; None when it has none."""
    if config is None or config.vpn is None or "vpn" not in config.services:
        return None
    vpn = config.vpn
    keying = {
        CHARON_CONFIG: File(_CHARON.format(vici=VICI, plugins=" ".join(_PLUGINS))),
        SWANCTL_CONFIG: File(_SWANCTL.format(ip=vpn.ip, secret=_key(vpn))),
    }
    dns = (
        f"ms-dns {config.guest_ip}\n" if "dns" in config.services else "".join(f"ms-dns {one}\n" for one in config.dns)
    )
    ends = {"ip": vpn.ip, "first": vpn.first_ip, "last": vpn.last_ip, "local": vpn.local_ip, "options": PPP_OPTIONS}
    tunnelling = {
        XL2TPD_CONFIG: File(_XL2TPD.format(**ends)),
        PPP_OPTIONS: File(_PPP.format(mtu=MTU_BYTES, dns=dns)),
    }
    return Plan(keying, tunnelling, {user.name: user.password for user in vpn.users})


def inside(address: IPv4Address, vpn: RemoteAccessVpn) -> bool:
    """Is it one of a client's or the router's end of a tunnel?"""
    return IPv4Address(vpn.first_ip) <= address <= IPv4Address(vpn.last_ip) or address == IPv4Address(vpn.local_ip)


def ended_users(before: Plan, after: Plan) -> frozenset[str]:
    """Users whose sessions end: those who are gone or have another password."""
    return frozenset(name for name, password in before.users.items() if after.users.get(name) != password)


def _key(vpn: RemoteAccessVpn) -> str:
    # In base64 no character means anything to the reader of the file.
    return base64.b64encode(vpn.preshared_key.encode()).decode()
