"""Answers: JSON and XML from the field tables of responses. All text is escaped; None is left out."""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import repeat
from types import MappingProxyType
from typing import Any

import msgspec

from pileus.server.api.command import CommandSpec, Page, Response, Started, Success, View
from pileus.server.services.columns import Columns

VERSION = "2.2.14"
"""The release of the API that answers are shaped after."""

JSON_TYPE = "application/json; charset=UTF-8"
XML_TYPE = "text/xml; charset=UTF-8"

Body = Mapping[str, Any]
Convert = Callable[[Any], Any]
Result = Page | View | Started | Success


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, ready to be sent."""

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()

    def with_header(self, name: str, value: str) -> "Answer":
        """The same answer with one more header."""
        return replace(self, headers=(*self.headers, (name, value)))


def answer(spec: CommandSpec, result: Result, *, as_json: bool, pending: Mapping[str, str] | None = None) -> Answer:
    """Render what a command returned, in its envelope. `pending`: open jobs by the UUID of their object."""
    body = inner(spec.returns, result, pending or {}, as_records=as_json)
    return envelope(spec.envelope, body, as_json=as_json)


def inner(
    response: type[Response],
    result: Result,
    pending: Mapping[str, str] = MappingProxyType({}),
    *,
    as_records: bool = False,
) -> Body:
    """What stands inside the envelope: a list with its count, an object, a job, or success.

    With `as_records` a page of columns is a list of structs that only JSON is written from, not of mappings.
    """
    if isinstance(result, Page):
        if result.count == 0:
            return {}
        if not result.views:
            return {"count": result.count}
        if as_records and isinstance(result.views, Columns):
            return {"count": result.count, response.object_name: records(response, result.views, pending)}
        views = result.views.views() if isinstance(result.views, Columns) else result.views
        listed = [_with_job(fields(response, view), pending) for view in views]
        return {"count": result.count, response.object_name: listed}
    if isinstance(result, Started):
        return {"jobid": result.job} if result.id is None else {"id": result.id, "jobid": result.job}
    if isinstance(result, Success):
        return {"success": True, "displaytext": result.text} if result.text else {"success": True}
    rendered = _with_job(fields(response, result), pending)
    return {response.object_name: rendered} if response.object_name else rendered


def fields(response: type[Response], view: View) -> dict[str, Any]:
    """One object by its wire names."""
    plain, converted = _table(response)
    get = view.get
    rendered = {wire: value for name, wire in plain if (value := get(name)) is not None}
    for name, wire, convert in converted:
        value = get(name)
        if value is not None:
            rendered[wire] = convert(value)
    return rendered


def _with_job(rendered: dict[str, Any], pending: Mapping[str, str]) -> dict[str, Any]:
    job = pending.get(rendered.get("id", "")) if pending else None
    if job is not None and "jobid" not in rendered:
        rendered["jobid"] = job
        rendered["jobstatus"] = 0
    return rendered


def records(response: type[Response], columns: Columns, pending: Mapping[str, str]) -> list[msgspec.Struct]:
    """What `fields` makes of every view, in as many steps as there are fields, with their open jobs."""
    converters = {name: convert for name, _, convert in _table(response)[1]}
    values: dict[str, Iterable[Any]] = {}
    for name, column in columns.fields.items():
        convert = converters.get(name)
        values[name] = column if convert is None else _converted(convert, column)
    for name, value in columns.same.items():
        convert = converters.get(name)
        values[name] = repeat(value if convert is None or value is None else convert(value), len(columns))
    for name, part in columns.parts.items():
        values[name] = part.of_each(records(_nested(response, name), part.columns, {}))
    jobs = [pending.get(each) for each in columns.fields["id"]] if pending and "id" in columns.fields else ()
    if jobs:
        values |= {_JOB: jobs, _JOB_STATUS: [None if each is None else 0 for each in jobs]}
    record, names = _record(response, frozenset(values))
    return list(map(record, *[values[name] for name in names]))


def _converted(convert: Convert, column: Sequence[Any]) -> Iterable[Any]:
    return [None if each is None else convert(each) for each in column] if None in column else map(convert, column)


_JOB, _JOB_STATUS = "jobid", "jobstatus"


_Record = tuple[Callable[..., msgspec.Struct], tuple[str, ...]]
_records: dict[tuple[Any, frozenset[str]], _Record] = {}


def _record(response: type[Response], given: frozenset[str]) -> _Record:
    """A struct of those fields of a response that are given, None left out, and their names in its order."""
    known = _records.get((response, given))
    if known is None:
        plain, converted = _table(response)
        order = (*plain, *((name, wire) for name, wire, _ in converted))
        wires = {name: wire for name, wire in order if name in given}
        if _JOB in given and _JOB not in wires.values():
            wires |= {_JOB: _JOB, _JOB_STATUS: _JOB_STATUS}
        entries = [(f"f{place}", Any, None) for place in range(len(wires))]
        renamed: Mapping[str, str] = {f"f{place}": wire for place, wire in enumerate(wires.values())}
        record = msgspec.defstruct(response.__name__, entries, rename=renamed, omit_defaults=True, gc=False)
        known = _records[response, given] = record, tuple(wires)
    return known


def _nested(response: type[Response], name: str) -> type[Response]:
    nested = next((field.nested for field in response.fields if field.name == name), None)
    if nested is None:
        raise TypeError(f"{response.__name__}.{name} has no views within it")
    return nested


_MINUTES = tuple(f"T{minute // 60:02}:{minute % 60:02}:" for minute in range(1440))
_SECONDS = tuple(f"{second:02}+0000" for second in range(60))


def date(ms: int) -> str:
    """An instant as the API writes it: UTC, whole seconds, `+0000`."""
    days, seconds = divmod(ms // 1000, 86_400)
    return _day(days) + _MINUTES[seconds // 60] + _SECONDS[seconds % 60]


@lru_cache(4096)
def _day(days: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(days * 86_400))


def envelope(name: str, body: Body, *, as_json: bool, status: int = 200) -> Answer:
    """Put a body into its envelope and write it out."""
    if as_json:
        return Answer(status, msgspec.json.encode({name: body}), JSON_TYPE)
    parts = ['<?xml version="1.0" encoding="UTF-8"?>', f'<{name} cloud-stack-version="{VERSION}">']
    _children(body.items(), parts)
    parts.append(f"</{name}>")
    return Answer(status, "".join(parts).encode("utf-8", "replace"), XML_TYPE)


_Table = tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str, Convert], ...]]
_tables: dict[Any, _Table] = {}


def _table(response: type[Response]) -> _Table:
    """Fields that are told as they are, and those that are not."""
    known = _tables.get(response)
    if known is None:
        all_fields = [(field.name, field.wire, _converter(field.wire_type, field.nested)) for field in response.fields]
        known = (
            tuple((name, wire) for name, wire, convert in all_fields if convert is None),
            tuple((name, wire, convert) for name, wire, convert in all_fields if convert is not None),
        )
        _tables[response] = known
    return known


def _converter(wire_type: str, nested: type[Response] | None) -> Convert | None:
    if nested is not None:
        inside = nested
        last: tuple[Any, Any] = None, None

        def convert(value: Any) -> Any:
            nonlocal last
            if isinstance(value, Mapping):
                return fields(inside, value)
            # A tuple is what many entries of a page have in common, as networks have the services of their offering.
            shared = isinstance(value, tuple)
            known, rendered = last
            if shared and value is known:
                return rendered
            rendered = [fields(inside, one) for one in value]
            if shared:
                last = value, rendered
            return rendered

        return convert
    if wire_type in ("date", "tzdate"):
        return date
    return None


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold even when it is escaped."""


def _children(items: Iterable[tuple[str, Any]], parts: list[str]) -> None:
    for name, value in items:
        if isinstance(value, (list, tuple)):
            for one in value:
                _element(name, one, parts)
        elif value is not None:
            _element(name, value, parts)


def _element(name: str, value: Any, parts: list[str]) -> None:
    if not _NAME.match(name):
        parts.append(f"<entry><key>{_escaped(name)}</key>")
        _element("value", value, parts)
        parts.append("</entry>")
        return
    parts.append(f"<{name}>")
    if isinstance(value, Mapping):
        _children(value.items(), parts)
    elif isinstance(value, bool):
        parts.append("true" if value else "false")
    else:
        parts.append(_escaped(str(value)))
    parts.append(f"</{name}>")


def _escaped(text: str) -> str:
    text = _FORBIDDEN.sub("\ufffd", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("'", "&apos;")
