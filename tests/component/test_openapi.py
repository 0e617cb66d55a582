"""The OpenAPI document is valid, whole, and served; the count of API 2.2 can be made."""

import re
import subprocess
import sys
from pathlib import Path

from api_client import Api
from openapi_spec_validator import OpenAPIV31SpecValidator

from pileus.server.api.catalogue import openapi
from pileus.server.api.command import registry
from pileus.server.api.parse import table
from pileus.server.registered import register_all

TOOLS = Path(__file__).parent.parent.parent / "tools"


def test_the_document_is_valid_openapi_and_the_one_that_is_served(api: Api) -> None:
    served = api.send("GET", path="/openapi.json")
    assert served.status_code == 200
    assert list(OpenAPIV31SpecValidator(served.json()).iter_errors()) == []
    assert served.json()["openapi"].startswith("3.1")


def test_every_command_is_in_the_document_with_every_parameter() -> None:
    register_all()
    paths = openapi(registry.values())["paths"]
    assert set(paths) == {f"/{name}" for name in registry}
    for name, spec in registry.items():
        (operation,) = paths[f"/{name}"].values()
        told = {parameter["name"].partition("[")[0]: parameter for parameter in operation["parameters"]}
        assert set(told) == {field.wire for field in table(spec.params)} | {"response"}
        assert all(told[field.wire]["required"] is field.info.required for field in table(spec.params))
        assert operation["summary"]


def test_how_much_of_api_2_2_is_there_is_counted() -> None:
    run = [sys.executable, str(TOOLS / "api_coverage.py"), "--missing"]
    told = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    counts = {noun: (int(there), int(of)) for there, of, noun in re.findall(r"(?m)^(\d+) of (\d+) (.+)$", told)}
    assert {noun: of for noun, (_, of) in counts.items()} == {
        "commands": 208,
        "parameters": 977,
        "response fields": 785,
    }
    listed = re.findall(r"(?m)^    (\w+)$", told)
    assert len(listed) == 208 - counts["commands"][0]
    assert not set(listed) & set(registry)
