"""Every tolerated form of a signature, computed here independently of the code under test."""

import base64
import hashlib
import hmac
import itertools
from urllib.parse import quote

import pytest

from pileus.server.api.signing import sign, verify
from pileus.server.domain.errors import Unauthorized

SECRET = "s3cret"
NOW = 1_700_000_000_000
PARAMS = {"command": "listZones", "name": "a~b[c]*d e+f", "Apikey": "KEY", "zoneId": "1", "zebra": "2"}


def signature(params: dict[str, str], *, lower_order: bool, tilde: bool, brackets: bool, star: bool) -> str:
    def encode(value: str) -> str:
        value = quote(value, safe="-_." + ("*" if not star else "") + ("[]" if brackets else ""))
        return value if tilde else value.replace("~", "%7E")

    names = sorted(params, key=str.lower if lower_order else None)
    text = "&".join(f"{name}={encode(params[name])}" for name in names).lower()
    return base64.b64encode(hmac.new(SECRET.encode(), text.encode(), hashlib.sha1).digest()).decode()


@pytest.mark.parametrize(("lower_order", "tilde", "brackets", "star"), [*itertools.product((False, True), repeat=4)])
def test_every_form_clients_use_is_accepted(lower_order: bool, tilde: bool, brackets: bool, star: bool) -> None:
    made = signature(PARAMS, lower_order=lower_order, tilde=tilde, brackets=brackets, star=star)
    assert verify({**PARAMS, "signature": made}, SECRET, made, now=NOW)


def test_the_strict_form_is_what_sign_makes() -> None:
    assert sign(PARAMS, SECRET) == signature(PARAMS, lower_order=False, tilde=False, brackets=False, star=False)


@pytest.mark.parametrize("changed", [{"zebra": "3"}, {"extra": "1"}, {"command": "deployVirtualMachine"}])
def test_a_changed_parameter_breaks_the_signature(changed: dict[str, str]) -> None:
    made = sign(PARAMS, SECRET)
    assert not verify({**PARAMS, **changed}, SECRET, made, now=NOW)


@pytest.mark.parametrize("given", ["", "AAAA", "ü"])
def test_what_is_no_signature_is_refused(given: str) -> None:
    assert not verify(PARAMS, SECRET, given, now=NOW)


def test_another_secret_makes_another_signature() -> None:
    assert not verify(PARAMS, SECRET, sign(PARAMS, "other"), now=NOW)


@pytest.mark.parametrize("expires", ["2023-11-14T22:13:20+0000", "2023-11-14T23:13:21+0100", "2030-01-01T00:00:00Z"])
def test_a_call_that_has_not_expired_is_good(expires: str) -> None:
    params = {**PARAMS, "signatureVersion": "3", "expires": expires}
    assert verify(params, SECRET, sign(params, SECRET), now=NOW)


@pytest.mark.parametrize("expires", ["2023-11-14T22:13:19+0000", "tomorrow", ""])
def test_version_3_needs_an_instant_to_come(expires: str) -> None:
    params = {**PARAMS, "signatureversion": "3", "expires": expires}
    with pytest.raises(Unauthorized):
        verify(params, SECRET, sign(params, SECRET), now=NOW)


def test_version_3_without_expires_is_refused() -> None:
    params = {**PARAMS, "signatureversion": "3"}
    with pytest.raises(Unauthorized):
        verify(params, SECRET, sign(params, SECRET), now=NOW)


def test_expires_without_version_3_is_signed_like_anything_else() -> None:
    params = {**PARAMS, "expires": "2001-01-01T00:00:00+0000"}
    assert verify(params, SECRET, sign(params, SECRET), now=NOW)
