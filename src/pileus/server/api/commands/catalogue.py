"""listApis: every command with its parameters and its answer."""

from pileus.server.api import catalogue
from pileus.server.api.command import EVERYONE, Call, Page, Params, Response, command, out, param
from pileus.server.domain.errors import ParameterError


class ApiParameterResponse(Response, name="params"):
    """A parameter."""

    name = out("the name of the parameter")
    description = out("the description of the parameter")
    type = out("the type of the parameter")
    length = out("the length of the parameter", "integer")
    required = out("true if the parameter is required", "boolean")
    since = out("the release that brought the parameter")
    related = out("commands that list what the parameter names")


class ApiFieldResponse(Response, name="response"):
    """A field of a response."""

    name = out("the name of the field")
    description = out("the description of the field")
    type = out("the type of the field")
    response = out("the fields inside it", "set")


class ApiResponse(Response, name="api"):
    """A command."""

    name = out("the name of the command")
    description = out("the description of the command")
    since = out("the release that brought the command")
    is_async = out("true if the command is asynchronous", "boolean")
    related = out("commands that answer with the same kind of object")
    params = out("the parameters of the command", "set", nested=ApiParameterResponse)
    response = out("the fields of the answer", "set", nested=ApiFieldResponse)


@command("listApis", roles=EVERYONE, returns=ApiResponse)
class ListApis(Params):
    """Lists all commands that the caller may use."""

    name: str | None = param("the name of one command", default=None)

    def run(self, call: Call) -> Page:
        found = catalogue.apis(call.caller.role, self.name)
        if self.name is not None and not found:
            raise ParameterError(f"there is no command {self.name} for you", parameter="name")
        return Page(found, len(found))
