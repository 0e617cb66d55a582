"""URLs that name a host or a directory: taken apart once, with an error that names the parameter, secrets left out."""

import unicodedata
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from pileus.server.domain.errors import ParameterError


@dataclass(frozen=True)
class PlaceUrl:
    """Scheme and host in lower case, the path decoded and without a slash at its end."""

    scheme: str
    host: str
    path: str

    @property
    def shown(self) -> str:
        """The URL again, without user names, passwords, ports and queries."""
        return f"{self.scheme}://{self.host}{self.path}"


def place_of(url: str, parameter: str) -> PlaceUrl:
    """Take a URL apart. 431 when it is none, or when its path holds control characters or climbs."""
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname or ""
        path = unquote(parts.path, errors="strict").rstrip("/")
    except ValueError:
        raise ParameterError(f"{parameter} is not a URL", parameter=parameter) from None
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in url + host + path) or ".." in path.split("/"):
        raise ParameterError(f"{parameter} holds control characters or .. in its path", parameter=parameter)
    return PlaceUrl(parts.scheme.lower(), host, path)
