"""User data, metadata and passwords for guests, over HTTP on the router's guest address (guide: "User Data and
Meta Data", "Adding Password Management to Your Templates").

A guest is known by its source address and gets what is its own; nothing a guest sends can name another one.
"""

import base64
from collections.abc import Callable

from pileus.appliance.router.http import Request, Response, Server
from pileus.wire.router import GuestData, RouterConfig

DATA_PORT = 80
PASSWORD_PORT = 8080

NOT_FOUND = Response(404, b"not found\n")


class Pages:
    """Part of the router that owns ports 80 and 8080. `saved` holds ids of passwords that guests have set;
    `keep` stores it, and is called before a guest is told so."""

    def __init__(self, saved: frozenset[str], keep: Callable[[frozenset[str]], None]) -> None:
        self._saved = saved
        self._keep = keep
        self._guests: dict[str, GuestData] = {}
        self._data = Server(DATA_PORT, self._answer_data)
        self._passwords = Server(PASSWORD_PORT, self._answer_password)
        self.pages_served = 0
        self.passwords_served = 0

    async def apply(self, config: RouterConfig | None) -> None:
        """Serve the guests of `config`, and nobody when it is None."""
        services = config.services if config else ()
        ip = config.guest_ip if config else ""
        await self._data.listen(ip if "user-data" in services else "")
        await self._passwords.listen(ip if "password" in services else "")
        self._guests = {guest.ip: guest for guest in config.guests} if config else {}

    def prune(self) -> None:
        """Forget saved passwords that no guest has any more; only after a config is sure to stay."""
        known = {guest.password_id for guest in self._guests.values()}
        if not self._saved <= known:
            self._keep(self._saved & known)
            self._saved &= known

    @property
    def saved(self) -> frozenset[str]:
        """Ids of the passwords that guests have set."""
        return self._saved

    def _answer_data(self, request: Request) -> Response:
        guest = self._guests.get(request.source)
        if guest is None:
            return NOT_FOUND
        self.pages_served += 1
        words = [word for word in request.path.split("/") if word]
        match words:
            case ["latest"]:
                return _text("meta-data\nuser-data")
            case ["latest", "user-data"] if guest.user_data:
                return Response(200, base64.b64decode(guest.user_data), "application/octet-stream")
            case ["latest", "meta-data"]:
                return _text("\n".join(sorted(guest.metadata)))
            case ["latest", "meta-data", key] | ["latest", key] if key in guest.metadata:
                return _text(guest.metadata[key])
        return NOT_FOUND

    def _answer_password(self, request: Request) -> Response:
        guest = self._guests.get(request.source)
        match request.headers.get("domu_request", ""):
            case "send_my_password" if guest is not None and guest.password:
                if guest.password_id in self._saved:
                    return _text("saved_password")
                self.passwords_served += 1
                return _text(guest.password)
            case "saved_password" if guest is not None and guest.password:
                if guest.password_id not in self._saved:
                    self._keep(self._saved | {guest.password_id})
                    self._saved |= {guest.password_id}
                return _text("saved_password")
        return _text("bad_request")


def _text(text: str) -> Response:
    return Response(200, text.encode())
