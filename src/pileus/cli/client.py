"""The query API from outside: signed calls, errors with their text, jobs waited for."""

import base64
import hashlib
import hmac
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

PENDING, SUCCEEDED = 0, 1

_READING = ("list", "query")
"""How the names of commands begin that change nothing."""


class ApiError(Exception):
    """The server said no: `code` is the API's error code, 0 when there is none; `unreached` when nobody answered."""

    def __init__(self, code: int, text: str, *, command: str = "", unreached: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.command = command
        self.unreached = unreached


@dataclass(frozen=True)
class Profile:
    """Where the API is, and the keys to sign with."""

    endpoint: str
    """One URL, or those of several servers of a farm with commas between."""
    api_key: str
    secret_key: str


def signature(parameters: Mapping[str, str], secret: str) -> str:
    """HMAC-SHA1 over the sorted, encoded, lower-cased query, as the API wants it."""
    # As the reference implementation encodes, whose "~" is an escape and whose "*" is none.
    encoded = {name: quote(value, safe="*-._").replace("~", "%7E") for name, value in parameters.items()}
    query = "&".join(f"{name}={value}" for name, value in sorted(encoded.items()))
    digest = hmac.new(secret.encode(), query.lower().encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


class Client:
    """Signed calls with one profile.

    Of several servers it uses one as long as that answers. A call that reached none is made at the next; one that may
    have been carried out is not made again, unless it only reads.
    """

    def __init__(self, profile: Profile, *, timeout_seconds: float = 60.0) -> None:
        self.profile = profile
        self._http = httpx.Client(timeout=timeout_seconds, trust_env=False)
        self._servers = deque(each.strip() for each in profile.endpoint.split(",") if each.strip())

    def call(self, command: str, /, **parameters: object) -> dict[str, Any]:
        """One call; the body without its envelope. Raises `ApiError`."""
        filled = {_wire_name(name): _text(value) for name, value in parameters.items() if value is not None}
        filled |= {"command": command, "response": "json", "apikey": self.profile.api_key}
        filled["signature"] = signature(filled, self.profile.secret_key)
        return self.post(filled)

    def post(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """A call whose parameters are complete, signed or not."""
        command = parameters.get("command", "")
        where, answer = self._answered(command, dict(parameters))
        try:
            (body,) = answer.json().values()
            if not isinstance(body, dict):
                raise ValueError
        except (ValueError, AttributeError):
            raise ApiError(
                0, f"{where} speaks no query API (it answers {answer.status_code})", command=command
            ) from None
        if answer.status_code != httpx.codes.OK or "errorcode" in body:
            code = int(body.get("errorcode", answer.status_code))
            raise ApiError(code, str(body.get("errortext", body)), command=command)
        return body

    def _answered(self, command: str, filled: dict[str, str]) -> tuple[str, httpx.Response]:
        """Which server answered, and what."""
        for left in range(len(self._servers) - 1, -1, -1):
            where = self._servers[0]
            try:
                answer = self._http.post(where, data=filled)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                self._servers.rotate(-1)
                untouched = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if left and (untouched or command.startswith(_READING)):
                    continue
                raise ApiError(0, f"no answer from {where}: {error}", command=command, unreached=True) from error
            if answer.headers.get("connection", "").lower() == "close":
                # It is about to stop: whatever comes next has a better place at another.
                self._servers.rotate(-1)
            return where, answer
        raise ApiError(0, "there is no server to call", command=command, unreached=True)

    def list(self, command: str, entry: str, /, **parameters: object) -> list[dict[str, Any]]:
        """All entries of a list command, however many pages they take."""
        body = self.call(command, **parameters)
        found = list(body.get(entry, []))
        size, page = len(found), 2
        while size and len(found) < int(body.get("count", 0)):
            more = self.call(command, **{**parameters, "page": page, "pagesize": size}).get(entry, [])
            if not more:
                break
            found += more
            page += 1
        return found

    def wait(
        self, job: str, *, seconds: float = 600.0, tick: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """The result of a job. Raises `ApiError` when it fails, or when it has not ended in time.

        Jobs outlive servers: one that does not answer for a while is asked again.
        """
        until = time.monotonic() + seconds
        pause = 0.1
        while True:
            try:
                answer = self.call("queryAsyncJobResult", jobid=job)
            except ApiError as error:
                if not (error.unreached or error.code == httpx.codes.SERVICE_UNAVAILABLE) or time.monotonic() > until:
                    raise
                time.sleep(pause)
                pause = min(pause * 1.5, 1.0)
                continue
            if answer["jobstatus"] == SUCCEEDED:
                return dict(answer.get("jobresult") or {})
            if answer["jobstatus"] != PENDING:
                failure = answer.get("jobresult") or {}
                raise ApiError(int(failure.get("errorcode", 530)), str(failure.get("errortext", "the job failed")))
            if time.monotonic() > until:
                raise ApiError(
                    0, f"job {job} has not ended after {seconds:.0f} s: ask again with queryAsyncJobResult jobid={job}"
                )
            if tick is not None:
                tick(answer)
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)

    def run(self, command: str, /, **parameters: object) -> dict[str, Any]:
        """A call, and its job waited for when it starts one."""
        answer = self.call(command, **parameters)
        return self.wait(str(answer["jobid"])) if starts_job(answer) else answer

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()


def starts_job(answer: Mapping[str, Any]) -> bool:
    """Whether this is the answer of a command that began a job, and not one that tells of a job."""
    return "jobid" in answer and set(answer) <= {"jobid", "id"}


def _wire_name(name: str) -> str:
    """Names are lower case on the wire, except for the fields of maps: details[0].cpuNumber."""
    plain, bracket, field = name.partition("[")
    return plain.lower() + bracket + field


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(str(part) for part in value)
    return str(value)
