"""Values out of a fixed choice, named in the error when they are not."""

from enum import StrEnum
from typing import TypeVar

from pileus.server.domain.errors import ParameterError

E = TypeVar("E", bound=StrEnum)


def one_of(choice: type[E], text: str, parameter: str) -> E:
    """The member with this value, whatever its case."""
    for member in choice:
        if member.value.lower() == text.lower():
            return member
    allowed = ", ".join(choice)
    raise ParameterError(f"{parameter} must be one of {allowed}; got {text!r}", parameter=parameter)
