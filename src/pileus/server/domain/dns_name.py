"""Names in the DNS. RFC 1035, RFC 1123."""

import re

from pileus.server.domain.errors import ParameterError

LONGEST = 190
"""Room for the name of a guest before it: a whole name has at most 253 characters."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")


def dns_domain(text: str, parameter: str) -> str:
    """A domain that guests' names may end in, in lower case."""
    lowered = text.lower()
    if len(lowered) > LONGEST or not all(_LABEL.match(label) for label in lowered.split(".")):
        raise ParameterError(f"{parameter} must be a domain such as example.org, got {text!r}", parameter=parameter)
    return lowered
