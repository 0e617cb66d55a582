"""What the registry tells of itself: listApis and the OpenAPI document."""

from collections.abc import Iterable
from typing import Any

from pileus.server.api import parse
from pileus.server.api.command import CommandSpec, Response, registry
from pileus.server.api.render import VERSION
from pileus.server.domain.account import Role

_OPENAPI_TYPES: dict[str, dict[str, Any]] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "long": {"type": "integer"},
    "short": {"type": "integer"},
    "float": {"type": "number"},
    "double": {"type": "number"},
    "date": {"type": "string"},
    "list": {"type": "array", "items": {}},
    "set": {"type": "array", "items": {}},
    "map": {"type": "object"},
    "responseobject": {"type": "object"},
}


def apis(role: Role, name: str | None) -> list[dict[str, Any]]:
    """The commands a role may call, by name; one of them with `name`."""
    specs = sorted(registry.values(), key=lambda spec: spec.name)
    return [_api(spec) for spec in specs if (role in spec.roles or spec.public) and (name is None or spec.name == name)]


def openapi(specs: Iterable[CommandSpec]) -> dict[str, Any]:
    """An OpenAPI 3.1 document: one path per command, which stands for its `command` parameter."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pileus query API",
            "version": VERSION,
            "description": "Signed calls carry apikey and signature, session calls a cookie and sessionkey."
            " What is signed includes command=NAME.",
        },
        "servers": [{"url": "/client/api"}],
        "security": [{"apikey": [], "signature": []}, {"session": [], "sessionkey": []}],
        "components": {
            "securitySchemes": {
                "apikey": {"type": "apiKey", "in": "query", "name": "apikey"},
                "signature": {"type": "apiKey", "in": "query", "name": "signature"},
                "session": {"type": "apiKey", "in": "cookie", "name": "JSESSIONID"},
                "sessionkey": {"type": "apiKey", "in": "query", "name": "sessionkey"},
            },
            "schemas": {"error": _ERROR},
        },
        "paths": {f"/{spec.name}": _path(spec) for spec in sorted(specs, key=lambda spec: spec.name)},
    }


_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {"errorcode": {"type": "integer"}, "errortext": {"type": "string"}},
}


def text(description: str) -> str:
    """A description on one line, without a quotation mark at its end."""
    return " ".join(description.split()).rstrip('"').rstrip()


def _api(spec: CommandSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": text(spec.description),
        "since": spec.since,
        "is_async": spec.job,
        "related": _related(spec),
        "params": [_parameter(spec, field) for field in parse.table(spec.params)],
        "response": _response(spec.returns),
    }


def _related(spec: CommandSpec) -> str:
    """Other commands that answer with the same kind of thing."""
    if spec.returns.kind is None:
        return ""
    return ",".join(sorted(o.name for o in registry.values() if o.returns.kind is spec.returns.kind and o is not spec))


def _parameter(spec: CommandSpec, field: parse.Field) -> dict[str, Any]:
    related = ""
    if field.entity is not None:
        related = ",".join(sorted(o.name for o in registry.values() if o.returns.kind is field.entity and o.is_list))
    return {
        "name": field.wire,
        "description": text(field.info.description),
        "type": field.wire_type,
        "length": field.info.length,
        "required": field.info.required,
        "since": spec.since,
        "related": related,
    }


def _response(response: type[Response], *, nested: bool = False) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    for field in response.fields:
        one: dict[str, Any] = {"name": field.wire, "description": text(field.description), "type": field.wire_type}
        if field.nested is not None:
            one |= {"type": "list", "response": _response(field.nested, nested=True)}
        told.append(one)
    if response.kind is not None and not nested and not any(field.wire == "jobid" for field in response.fields):
        told.append(
            {"name": "jobid", "description": "the ID of the latest pending job of the object", "type": "string"}
        )
        told.append({"name": "jobstatus", "description": "the status of that job", "type": "integer"})
    return told


def _path(spec: CommandSpec) -> dict[str, Any]:
    parameters = [
        {
            "name": f"{field.wire}[0].key" if field.is_map else field.wire,
            "in": "query",
            "required": field.info.required,
            "description": text(field.info.description),
            "schema": _schema(field),
        }
        for field in parse.table(spec.params)
    ]
    parameters.append({"name": "response", "in": "query", "schema": {"type": "string", "enum": ["json", "xml"]}})
    operation: dict[str, Any] = {
        "operationId": spec.name,
        "summary": text(spec.description),
        "parameters": parameters,
        "x-asynchronous": spec.job,
        "responses": {
            "200": {"description": "done", "content": {"application/json": {"schema": _answer(spec)}}},
            "default": {
                "description": "an error, in the same envelope",
                "content": {"application/json": {"schema": _envelope(spec, {"$ref": "#/components/schemas/error"})}},
            },
        },
    }
    if spec.public:
        operation["security"] = []
    method = "post" if spec.name == "login" else "get"
    return {method: operation}


def _schema(field: parse.Field) -> dict[str, Any]:
    if field.wire_type == "string":
        return {"type": "string", "maxLength": field.info.length}
    if field.wire_type in ("boolean", "integer", "float"):
        return _OPENAPI_TYPES[field.wire_type]
    return {"type": "string"}


def _answer(spec: CommandSpec) -> dict[str, Any]:
    if spec.job:
        inner: dict[str, Any] = {"jobid": {"type": "string"}, "id": {"type": "string"}}
    else:
        thing = _object(spec.returns)
        if spec.is_list:
            inner = {"count": {"type": "integer"}, spec.returns.object_name: {"type": "array", "items": thing}}
        elif spec.returns.object_name in ("", "success"):
            inner = thing["properties"]
        else:
            inner = {spec.returns.object_name: thing}
    return _envelope(spec, {"type": "object", "properties": inner})


def _envelope(spec: CommandSpec, inner: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {spec.envelope: inner}}


def _object(response: type[Response]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for field in response.fields:
        if field.nested is not None:
            properties[field.wire] = {"type": "array", "items": _object(field.nested)}
        else:
            properties[field.wire] = _OPENAPI_TYPES.get(field.wire_type, {"type": "string"})
    return {"type": "object", "properties": properties}
