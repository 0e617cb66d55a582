"""No secret reaches a log line."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import redirect_stdout

import pytest
import structlog

from pileus.server.log import LINES, write_lines
from pileus.server.redaction import HIDDEN, redact

CANARY = "canary-3f9a"


@pytest.mark.parametrize(
    "name",
    [
        *("password", "Password", "new_password", "passwd", "secretkey", "secret_key", "apikey", "api_key", "apiKey"),
        *("token", "sessionkey", "signature", "private_key", "credentials", "cookie", "Authorization"),
    ],
)
def test_values_under_secret_names_are_hidden_at_any_depth(name: str) -> None:
    line = {
        "event": "call",
        name: CANARY,
        "inside": {name: {"deep": CANARY}, "list": [{name: CANARY}, ({name: [CANARY]},)]},
    }
    hidden = redact(None, "info", line)
    assert CANARY not in str(hidden)
    assert hidden[name] == HIDDEN


def test_what_is_no_secret_stays() -> None:
    line = {"event": "call", "command": "listZones", "password": None, "names": ["a", "b"], "n": {"count": 3}}
    assert redact(None, "info", dict(line)) == line


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What is written by the log as servers set it up; everything is put back afterwards."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    text = io.StringIO()
    with redirect_stdout(text):
        write_lines()
        yield text
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_every_line_is_json_whoever_writes_it(logged: io.StringIO) -> None:
    structlog.get_logger("ours").info("call", password=CANARY, text='a "quoted"\nline')
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("library").exception('it said "no"\nand ended')
    ours, theirs = (json.loads(line) for line in logged.getvalue().splitlines())
    assert (ours["event"], ours["password"], ours["text"]) == ("call", HIDDEN, 'a "quoted"\nline')
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ('it said "no"\nand ended', "error", "library")
    assert "ValueError: broken" in theirs["exception"]
    assert {"timestamp", "event", "level"} <= set(ours) & set(theirs)
    assert CANARY not in logged.getvalue()


def test_lines_of_libraries_bear_the_job_in_whose_thread_they_were_written(logged: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(job="j1", request="r1"):
        logging.getLogger("sqlalchemy.pool").warning("slow")
        structlog.get_logger().info("step")
    for line in map(json.loads, logged.getvalue().splitlines()):
        assert (line["job"], line["request"]) == ("j1", "r1")


def test_lines_are_counted_by_level_whoever_writes_them(logged: io.StringIO) -> None:
    before = LINES.value("warning")
    structlog.get_logger().warning("ours")
    logging.getLogger("library").warning("theirs")
    structlog.get_logger().debug("not written")
    assert LINES.value("warning") - before == 2
    assert len(logged.getvalue().splitlines()) == 2


def test_the_level_is_for_the_file_to_say(logged: io.StringIO) -> None:
    with redirect_stdout(logged):
        write_lines(level="error")
    structlog.get_logger().warning("ours")
    logging.getLogger("library").warning("theirs")
    structlog.get_logger().error("bad")
    (line,) = logged.getvalue().splitlines()
    assert json.loads(line)["event"] == "bad"


def test_text_for_eyes_holds_the_same_and_never_more_than_a_line(logged: io.StringIO) -> None:
    with redirect_stdout(logged):
        write_lines(form="text")
    structlog.get_logger().info("call\nforged line", password=CANARY, command="a\nb", job="j1")
    logging.getLogger("library").error("theirs\nand more")
    ours, theirs = logged.getvalue().splitlines()
    assert 'info    call\\nforged line password="***" command="a\\nb" job="j1"' in ours
    assert 'error   theirs\\nand more logger="library"' in theirs
