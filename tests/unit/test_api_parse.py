"""Reading parameters: types, maps, dates, and what the errors say."""

import pytest

from pileus.server.api import parse
from pileus.server.api.command import (
    EVERYONE,
    Call,
    CommandSpec,
    Instant,
    MapParameter,
    Params,
    PasswordHash,
    Success,
    SuccessResponse,
    param,
    registry,
)
from pileus.server.api.request import decode
from pileus.server.domain.errors import MalformedParameter, ParameterError
from pileus.server.domain.host import AllocationState
from pileus.server.domain.ids import Id, Zone


class Sample(Params):
    """A command that is in no registry."""

    zone_id: Id[Zone] = param("a zone")
    name: str | None = param("a name", default=None, length=10)
    many: list[str] = param("texts", default=())
    zones: list[Id[Zone]] | None = param("zones", default=None)
    number: int | None = param("a number", default=None)
    share: float | None = param("a share", default=None)
    flag: bool = param("a flag", default=False)
    details: MapParameter = param("details", default=())
    start_date: Instant | None = param("from", default=None)
    end_date: Instant | None = param("to", default=None)
    password: PasswordHash | None = param("a password", default=None)
    state: AllocationState | None = param("a state", default=None)

    def run(self, call: Call) -> Success:
        return Success()


SPEC = CommandSpec(
    name="doSample",
    roles=EVERYONE,
    returns=SuccessResponse,
    params=Sample,
    job=False,
    is_list=False,
    reads=False,
    emits=(),
    envelope="dosampleresponse",
    description="-",
    since="2.2",
    public=False,
)


def values(**sent: str) -> dict[str, object]:
    return dict(parse.prepare(SPEC, {"zoneid": "1", **sent}).values)


def test_names_are_read_without_case() -> None:
    assert parse.prepare(SPEC, {"ZoneID": "7", "NAME": "x"}).values == {"zone_id": "7", "name": "x"}


def test_lists_drop_empty_members() -> None:
    assert values(many="a, b,,c ,") == {"zone_id": "1", "many": ["a", "b", "c"]}
    assert values(zones="1,2")["zones"] == ["1", "2"]


def test_numbers_and_flags() -> None:
    assert values(number="-3", share="0.5", flag="TRUE") == {"zone_id": "1", "number": -3, "share": 0.5, "flag": True}
    assert values(flag="yes")["flag"] is False


@pytest.mark.parametrize("number", ["1.5", "0x10", "1_000", "٣", "9223372036854775808", "abc"])
def test_what_is_no_whole_number_is_refused(number: str) -> None:
    with pytest.raises(ParameterError, match="parameter number"):
        values(number=number)


@pytest.mark.parametrize("share", ["nan", "inf", "x"])
def test_what_is_no_decimal_number_is_refused(share: str) -> None:
    with pytest.raises(ParameterError, match="parameter share"):
        values(share=share)


def test_a_choice_is_read_without_case_and_bounded() -> None:
    assert values(state="disabled")["state"] is AllocationState.DISABLED
    with pytest.raises(ParameterError, match="Enabled, Disabled"):
        values(state="maybe")


def test_an_empty_text_is_a_value_but_an_empty_number_is_none() -> None:
    assert values(name="", number="") == {"zone_id": "1", "name": ""}


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(ParameterError, match="longer than 10"):
        values(name="x" * 11)


def test_a_missing_required_parameter_is_named() -> None:
    with pytest.raises(ParameterError) as caught:
        parse.prepare(SPEC, {"zoneid": ""})
    assert caught.value.text == "Unable to execute API command dosample due to missing parameter zoneid"
    assert caught.value.parameter == "zoneid"


def test_a_misspelt_required_parameter_is_recognised() -> None:
    with pytest.raises(ParameterError, match="zonid looks like a misspelt zoneid"):
        parse.prepare(SPEC, {"zonid": "1"})


def test_an_invalid_value_is_told_but_a_password_is_not() -> None:
    with pytest.raises(ParameterError, match="due to invalid value abc for parameter number"):
        values(number="abc")
    with pytest.raises(ParameterError) as caught:
        values(password="hunter2" * 40)
    assert "hunter2" not in caught.value.text


def test_maps_are_ordered_by_index_and_keep_the_case_of_their_fields() -> None:
    sent = {"zoneid": "1", "Details[10].cpuNumber": "2", "details[2].key": "a", "details[2].value": "b"}
    assert parse.prepare(SPEC, sent).values["details"] == ({"key": "a", "value": "b"}, {"cpuNumber": "2"})


@pytest.mark.parametrize(
    "name", ["details[0", "details[x].b", "details[0]", "details[0].", "details]0[.a", "details[0].a[1]"]
)
def test_broken_maps_are_malformed(name: str) -> None:
    with pytest.raises(MalformedParameter):
        parse.prepare(SPEC, {"zoneid": "1", name: "v"})


def test_a_map_without_brackets_is_malformed() -> None:
    with pytest.raises(MalformedParameter):
        values(details="a")


def test_more_map_entries_than_any_call_needs_are_refused() -> None:
    with pytest.raises(ParameterError):
        parse.prepare(SPEC, {"zoneid": "1", **{f"details[{i}].a": "1" for i in range(1001)}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2011-03-05", 1299283200000),
        ("2011-03-05 10:20:30", 1299320430000),
        ("2011-03-05T10:20:30+0000", 1299320430000),
        ("2011-03-05T10:20:30Z", 1299320430000),
        ("2011-03-05T11:20:30+01:00", 1299320430000),
        ("2011-03-05T10:20:30", 1299320430000),
    ],
)
def test_every_form_of_dates_is_read(text: str, expected: int) -> None:
    assert values(startdate=text)["start_date"] == expected


def test_a_day_at_the_end_of_a_span_is_inside_it() -> None:
    assert values(enddate="2011-03-05")["end_date"] == 1299283200000 + 86_399_999


@pytest.mark.parametrize("text", ["5.3.2011", "2011-13-01", "2011-03-05T25:00:00", "yesterday"])
def test_what_is_no_date_is_malformed(text: str) -> None:
    with pytest.raises(MalformedParameter):
        values(startdate=text)


def test_passwords_are_hashed_and_nothing_shows_them() -> None:
    prepared = parse.prepare(SPEC, {"zoneid": "1", "password": "hunter2"})
    assert prepared.has_passwords
    assert "hunter2" not in repr(prepared)
    hashed = parse.hash_passwords(prepared)
    assert str(hashed.values["password"]).startswith("$argon2id$")


def test_an_empty_password_is_refused() -> None:
    with pytest.raises(ParameterError):
        parse.hash_passwords(parse.prepare(SPEC, {"zoneid": "1", "password": ""}))


def test_unknown_parameters_are_named() -> None:
    assert parse.unknown(SPEC, {"zoneid": "1", "Nonsense": "1", "command": "x", "_": "1", "foo[0].bar": "1"}) == [
        "foo",
        "nonsense",
    ]


def test_a_parameter_given_twice_with_two_values_is_refused() -> None:
    assert decode(b"a=1&b=%20x", b"a=1") == {"a": "1", "b": " x"}
    with pytest.raises(ParameterError, match="given twice"):
        decode(b"a=1", b"A=2")


@pytest.mark.parametrize("query", [b"a=%zz", b"a=%ff", b"%=1"])
def test_broken_encoding_is_refused(query: bytes) -> None:
    with pytest.raises(ParameterError):
        decode(query)


def test_parameters_without_a_value_are_left_out_where_they_shall_be() -> None:
    assert decode(b"a&b=1", bare_names=False) == {"b": "1"}
    assert decode(b"a&b=1") == {"a": "", "b": "1"}


def test_the_sample_is_in_no_registry() -> None:
    assert "doSample" not in registry
