"""The query API from outside: signed calls, errors with their text, jobs waited for."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

PENDING, SUCCEEDED = 0, 1


class ApiError(Exception):
    """The server said no: `code` is the API's error code, 0 when no server answered."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True)
class Profile:
    """Where the API is, and the keys to sign with."""

    endpoint: str
    api_key: str
    secret_key: str


def signature(parameters: Mapping[str, str], secret: str) -> str:
    """HMAC-SHA1 over the sorted, encoded, lower-cased query, as the API wants it."""
    query = "&".join(f"{name}={quote(value, safe='*-._')}" for name, value in sorted(parameters.items()))
    digest = hmac.new(secret.encode(), query.lower().encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


class Client:
    """Signed calls with one profile."""

    def __init__(self, profile: Profile, *, timeout_seconds: float = 60.0) -> None:
        self.profile = profile
        self._http = httpx.Client(timeout=timeout_seconds, trust_env=False)

    def call(self, command: str, /, **parameters: object) -> dict[str, Any]:
        """One call; the body without its envelope. Raises `ApiError`."""
        filled = {name.lower(): _text(value) for name, value in parameters.items() if value is not None}
        filled |= {"command": command, "response": "json", "apikey": self.profile.api_key}
        filled["signature"] = signature(filled, self.profile.secret_key)
        return self.post(filled)

    def post(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """A call whose parameters are complete, signed or not."""
        try:
            answer = self._http.post(self.profile.endpoint, data=dict(parameters))
        except httpx.HTTPError as error:
            raise ApiError(0, f"no answer from {self.profile.endpoint}: {error}") from error
        try:
            body = next(iter(answer.json().values()))
        except (ValueError, AttributeError, StopIteration):
            raise ApiError(answer.status_code, f"{self.profile.endpoint} speaks no query API") from None
        if answer.status_code != httpx.codes.OK or "errorcode" in body:
            raise ApiError(int(body.get("errorcode", answer.status_code)), str(body.get("errortext", body)))
        return dict(body)

    def list(self, command: str, entry: str, /, **parameters: object) -> list[dict[str, Any]]:
        """All entries of a list command's one page."""
        return list(self.call(command, **parameters).get(entry, []))

    def wait(
        self, job: str, *, seconds: float = 600.0, tick: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """The result of a job. Raises `ApiError` when it fails, or when it has not ended in time."""
        until = time.monotonic() + seconds
        pause = 0.1
        while True:
            answer = self.call("queryAsyncJobResult", jobid=job)
            if answer["jobstatus"] == SUCCEEDED:
                return dict(answer.get("jobresult") or {})
            if answer["jobstatus"] != PENDING:
                failure = answer.get("jobresult") or {}
                raise ApiError(int(failure.get("errorcode", 530)), str(failure.get("errortext", "the job failed")))
            if time.monotonic() > until:
                raise ApiError(0, f"job {job} has not ended after {seconds:.0f} s")
            if tick is not None:
                tick(answer)
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)

    def run(self, command: str, /, **parameters: object) -> dict[str, Any]:
        """A call, and its job waited for when it starts one."""
        answer = self.call(command, **parameters)
        return self.wait(str(answer["jobid"])) if "jobid" in answer else answer

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(str(part) for part in value)
    return str(value)
