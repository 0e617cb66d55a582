"""What people may call things: any text, but visible."""

import unicodedata

from pileus.server.domain.errors import ParameterError

LONGEST = 255


def checked_name(name: str, parameter: str) -> str:
    """The name, if it has 1 to 255 characters, none of them a control character, no blank at an end."""
    if not name or len(name) > LONGEST or name != name.strip():
        raise ParameterError(f"{parameter} has 1 to {LONGEST} characters, no blank at an end", parameter=parameter)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise ParameterError(f"{parameter} holds a control character", parameter=parameter)
    return name


def checked_text(text: str, parameter: str) -> str:
    """The text, if there is something to see in it and no control character."""
    if not text.strip() or any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ParameterError(f"{parameter} must not be empty nor hold a control character", parameter=parameter)
    return text
