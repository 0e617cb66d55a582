"""Demands of guests and the tags of offerings."""

import pytest

from pileus.server.placement.demand import Demand, tags_of


def test_a_guest_claims_the_speed_of_all_its_cores() -> None:
    demand = Demand(name="web", zone_id=1, cpus=4, cpu_mhz=500, ram_mib=512)

    assert demand.claim_mhz == 2000


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (None, set()),
        ("", set()),
        ("ssd", {"ssd"}),
        (" ssd , fast,", {"ssd", "fast"}),
    ],
)
def test_tags_are_read_from_the_comma_separated_text_of_an_offering(text: str | None, tags: set[str]) -> None:
    assert tags_of(text) == tags
