"""Write the command reference and openapi.json from the registry: tools/reference.py OUTDIR.

One page per noun, an index of commands, an index of errors. What it writes is never kept in git: it cannot be stale.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pileus.server.api import catalogue, errors, parse
from pileus.server.api.command import CommandSpec, Response, registry
from pileus.server.domain.account import Role
from pileus.server.domain.errors import PileusError
from pileus.server.registered import register_all

ROLES = {
    Role.ADMIN: "root administrators",
    Role.RESOURCE_ADMIN: "resource administrators",
    Role.DOMAIN_ADMIN: "domain administrators",
    Role.USER: "users",
}
MARK = "<!-- Generated from the command registry: changes are lost. -->\n\n"
OF_EVERY_CALL = (401, 430, 431, 530)
"""Errors that any command may answer with; 531 and the rest depend on what it works on."""


def main() -> int:
    """Write everything into the directory named on the command line, and remove what it wrote there before."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: tools/reference.py OUTDIR\n")
        return 2
    register_all()
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    pages = by_noun(registry.values())
    for old in out.glob("*.md"):
        if old.read_text().startswith(MARK):
            old.unlink()
    texts = {noun: page(noun, specs) for noun, specs in pages.items()} | {
        "README": index(pages),
        "errors": error_page(),
    }
    for name, text in texts.items():
        (out / f"{name}.md").write_text(MARK + text)
    document = catalogue.openapi(registry.values())
    (out / "openapi.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(f"{len(registry)} commands on {len(pages)} pages in {out}\n")
    return 0


def by_noun(specs: Iterable[CommandSpec]) -> dict[str, list[CommandSpec]]:
    """Commands by the module that declares them, which is named for their noun."""
    pages: dict[str, list[CommandSpec]] = {}
    for spec in sorted(specs, key=lambda spec: spec.name):
        pages.setdefault(spec.params.__module__.rpartition(".")[2], []).append(spec)
    return dict(sorted(pages.items()))


def index(pages: Mapping[str, list[CommandSpec]]) -> str:
    """Every command with its sentence."""
    lines = [
        "# Commands",
        "",
        "Generated from the command registry by `make docs`. For machines: [openapi.json](openapi.json).",
        "What the error codes mean: [errors](errors.md). A command with *job* answers with a `jobid` at once;"
        " `queryAsyncJobResult` tells how it ends.",
    ]
    for noun, specs in pages.items():
        lines += ["", f"## [{title(noun)}]({noun}.md)", ""]
        lines += [
            f"- [`{spec.name}`]({noun}.md#{spec.name.lower()}){' *job*' if spec.job else ''} {sentence(spec)}"
            for spec in specs
        ]
    return "\n".join(lines) + "\n"


def page(noun: str, specs: list[CommandSpec]) -> str:
    """All commands of a noun, then what they answer with."""
    lines = [f"# {title(noun)}", "", "[All commands](README.md) · [errors](errors.md)"]
    for spec in specs:
        lines += ["", *command(spec)]
    responses = {spec.returns.object_name: spec.returns for spec in specs}
    for response in responses.values():
        if response.fields:
            lines += ["", *answer(response)]
    return "\n".join(lines) + "\n"


def command(spec: CommandSpec) -> Iterator[str]:
    """One command: who may call it, what it takes, what it answers."""
    yield f"## {spec.name}"
    yield ""
    yield cell(spec.description)
    yield ""
    yield f"- Who: {who(spec)}"
    yield f"- Answer: {shape(spec)}"
    if spec.emits:
        yield f"- Events: {', '.join(f'`{event}`' for event in spec.emits)}"
    fields = parse.table(spec.params)
    if not fields:
        yield "- Parameters: none"
        return
    yield ""
    yield "| parameter | type | | meaning |"
    yield "|---|---|---|---|"
    for field in sorted(fields, key=lambda field: (not field.info.required, field.wire)):
        shown = f"{field.wire}[0].key" if field.is_map else field.wire
        kind = f"id of a {field.entity.__name__}" if field.entity is not None else field.wire_type
        if field.many and field.entity is not None:
            kind = f"ids of {field.entity.__name__}, comma-separated"
        yield f"| `{shown}` | {kind} | {'required' if field.info.required else ''} | {cell(field.info.description)} |"


def answer(response: type[Response], *, within: str = "") -> Iterator[str]:
    """The fields of an object, and of the objects inside it."""
    name = f"{within}.{response.object_name}" if within else response.object_name
    yield f"### Object `{name or 'answer'}`"
    yield ""
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    for field in response.fields:
        kind = "list of objects" if field.nested is not None else field.wire_type
        yield f"| `{field.wire}` | {kind} | {cell(field.description)} |"
    for field in response.fields:
        if field.nested is not None:
            yield ""
            yield from answer(field.nested, within=name)


def error_page() -> str:
    """Error codes with the classes of errors behind them."""
    found: dict[int, list[str]] = {}
    for error in sorted(_subclasses(PileusError), key=lambda error: (error.code, error.__name__)):
        if error.__module__.startswith("pileus.server.domain") or error.__module__ == errors.__name__:
            found.setdefault(error.code, []).append(catalogue.text((error.__doc__ or "").strip()))
    lines = [
        "# Errors",
        "",
        "The HTTP status is the error code. The body holds `errorcode` and `errortext` in the command's envelope.",
        f"Any command may answer with {', '.join(str(code) for code in OF_EVERY_CALL)}; others depend on what it does.",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {code} | {cell(' '.join(dict.fromkeys(texts)))} |" for code, texts in sorted(found.items())),
    ]
    return "\n".join(lines) + "\n"


def who(spec: CommandSpec) -> str:
    """Roles in words."""
    if spec.public:
        return "anybody, without signing"
    if all(role in spec.roles for role in ROLES):
        return "everybody who can sign in"
    return ", ".join(words for role, words in ROLES.items() if role in spec.roles)


def shape(spec: CommandSpec) -> str:
    """What stands inside the envelope."""
    name = spec.returns.object_name
    inside = f"`{name}`" if name not in ("", "success") else "`success`" if name else "fields"
    if spec.job:
        return f"`{spec.envelope}` with a `jobid`; the job's result is {inside}"
    if spec.is_list:
        return f"`{spec.envelope}` with `count` and a list of {inside}"
    return f"`{spec.envelope}` with {inside}"


def title(noun: str) -> str:
    """A module's name as a heading."""
    return noun.replace("_", " ").capitalize()


def sentence(spec: CommandSpec) -> str:
    """The first sentence of a description."""
    return re.split(r"(?<=[.!?])\s", cell(spec.description), maxsplit=1)[0]


def cell(text: str) -> str:
    """Text on one line that no table breaks on."""
    return catalogue.text(text).replace("|", "\\|")


def _subclasses(error: type[PileusError]) -> Iterator[type[PileusError]]:
    for each in error.__subclasses__():
        yield each
        yield from _subclasses(each)


if __name__ == "__main__":
    sys.exit(main())
