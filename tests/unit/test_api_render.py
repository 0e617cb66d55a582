"""Answers in JSON and XML."""

import json
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from pileus.server.api import render
from pileus.server.api.command import Page, Response, Started, Success, out
from pileus.server.services.columns import Columns, Parts


class Part(Response, name="part"):
    """Inside."""

    ip_address = out("address")


class Thing(Response, name="thing"):
    """Outside."""

    id = out("id")
    big_name = out("name")
    size = out("size", "long")
    good = out("good", "boolean")
    created = out("created", "date")
    part = out("parts", "list", nested=Part)
    tags = out("tags", "list")
    details = out("details", "map")


VIEW = {
    "id": "u-1",
    "big_name": "<b>&\"'\x00\x1f",
    "size": 5,
    "good": True,
    "created": 1299320430999,
    "part": [{"ip_address": "10.1.1.1"}, {"ip_address": "10.1.1.2"}],
    "tags": ["a", "b"],
    "details": {"a<b": "1", "plain": "2"},
    "unknown": "never shown",
}


def as_json(inner: object) -> object:
    return json.loads(render.envelope("thingresponse", inner, as_json=True).body)  # type: ignore[arg-type]


def as_xml(inner: object) -> ElementTree.Element:
    return ElementTree.fromstring(render.envelope("thingresponse", inner, as_json=False).body)  # type: ignore[arg-type]


def test_json_of_an_object() -> None:
    assert as_json(render.inner(Thing, VIEW)) == {
        "thingresponse": {
            "thing": {
                "id": "u-1",
                "bigname": "<b>&\"'\x00\x1f",
                "size": 5,
                "good": True,
                "created": "2011-03-05T10:20:30+0000",
                "part": [{"ipaddress": "10.1.1.1"}, {"ipaddress": "10.1.1.2"}],
                "tags": ["a", "b"],
                "details": {"a<b": "1", "plain": "2"},
            }
        }
    }


def test_xml_of_an_object_escapes_everything_and_stays_well_formed() -> None:
    root = as_xml(render.inner(Thing, VIEW))
    assert root.tag == "thingresponse"
    assert root.attrib == {"cloud-stack-version": render.VERSION}
    thing = root.find("thing")
    assert thing is not None
    assert thing.findtext("bigname") == "<b>&\"'\ufffd\ufffd"
    assert thing.findtext("good") == "true"
    assert [part.findtext("ipaddress") for part in thing.findall("part")] == ["10.1.1.1", "10.1.1.2"]
    assert [tag.text for tag in thing.findall("tags")] == ["a", "b"]
    assert thing.findtext("details/entry/key") == "a<b"
    assert thing.findtext("details/plain") == "2"


def test_what_is_none_is_left_out() -> None:
    assert render.inner(Thing, {"id": "u", "size": None}) == {"thing": {"id": "u"}}


def test_an_empty_list_is_empty_and_a_page_past_the_end_has_its_count() -> None:
    assert render.inner(Thing, Page([], 0)) == {}
    assert render.inner(Thing, Page([], 7)) == {"count": 7}
    assert as_xml(render.inner(Thing, Page([], 0))).findall("*") == []


def test_a_list_in_xml_repeats_its_elements() -> None:
    root = as_xml(render.inner(Thing, Page([{"id": "a"}, {"id": "b"}], 9)))
    assert [child.tag for child in root] == ["count", "thing", "thing"]


def test_pending_jobs_are_shown_on_their_objects() -> None:
    inner = render.inner(Thing, Page([{"id": "a"}, {"id": "b"}], 2), {"b": "job-1"})
    assert inner["thing"] == [{"id": "a"}, {"id": "b", "jobid": "job-1", "jobstatus": 0}]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Started("j"), {"jobid": "j"}),
        (Started("j", "i"), {"id": "i", "jobid": "j"}),
        (Success(), {"success": True}),
        (Success("why"), {"success": True, "displaytext": "why"}),
    ],
)
def test_jobs_and_success_have_no_object_around_them(result: Started | Success, expected: object) -> None:
    assert render.inner(Thing, result) == expected


COLUMNS = Columns(
    (7, 8, 9),
    {"id": ("a", "b", "c"), "size": (5, None, 0), "created": (1299320430999, None, 0), "unknown": (1, 2, 3)},
    same={"good": True, "tags": []},
    parts={"part": Parts(Columns((8, 8, 9), {"ip_address": ["10.1.1.1", None, "10.1.1.3"]}), [0, 2, 1])},
)


def test_columns_are_told_as_their_views_are() -> None:
    views = COLUMNS.views()
    assert [view["part"] for view in views] == [
        [],
        [{"ip_address": "10.1.1.1"}, {"ip_address": None}],
        [{"ip_address": "10.1.1.3"}],
    ]
    assert [view["good"] for view in views] == [True] * 3
    pending = {"b": "job-1"}
    spec = SimpleNamespace(envelope="thingresponse", returns=Thing)
    for as_json in (True, False):
        columns, plain = (
            render.answer(spec, Page(views, 9), as_json=as_json, pending=pending)  # type: ignore[arg-type]
            for views in (COLUMNS, COLUMNS.views())
        )
        assert columns.body == plain.body
    assert render.inner(Thing, Page(COLUMNS, 9), pending) == render.inner(Thing, Page(views, 9), pending)


def test_what_entries_have_in_common_is_told_of_each() -> None:
    one, other = ({"ip_address": "10.1.1.1"}, {"ip_address": "10.1.1.2"}), ({"ip_address": "10.1.1.9"},)
    shown = render.inner(Thing, Page([{"part": each} for each in (one, one, other, one, ())], 5))["thing"]
    addresses = [[part["ipaddress"] for part in entry["part"]] for entry in shown]
    assert addresses == [["10.1.1.1", "10.1.1.2"]] * 2 + [["10.1.1.9"], ["10.1.1.1", "10.1.1.2"], []]


def test_no_columns_are_an_empty_page() -> None:
    assert Columns((), {}).views() == []
    assert render.inner(Thing, Page(Columns((), {}), 4), as_records=True) == {"count": 4}


def test_a_part_that_the_response_does_not_have_is_an_error() -> None:
    with pytest.raises(TypeError, match="size"):
        render.records(Thing, Columns((1,), {"id": ("a",)}, parts={"size": Parts(Columns((), {}), [0])}), {})


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00+0000"),
        (1299320430999, "2011-03-05T10:20:30+0000"),
        (951868799999, "2000-02-29T23:59:59+0000"),
        (-1, "1969-12-31T23:59:59+0000"),
    ],
)
def test_an_instant_is_written_in_utc_and_whole_seconds(ms: int, text: str) -> None:
    assert render.date(ms) == text
