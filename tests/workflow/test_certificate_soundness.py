"""Announcing an uploaded certificate, whatever goes wrong."""

from dataclasses import dataclass

import pytest
from sqlalchemy import insert

from pileus.server.db.tables.ssh_key import custom_certificate
from pileus.server.domain.account import ADMIN_ACCOUNT, ADMIN_USER, ROOT_DOMAIN
from pileus.server.jobs.submit import JobRef, Owner, submit
from pileus.server.workflows.certificate import certificate_stored
from pileus.testing import World
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness


@dataclass
class Case:
    """A stored certificate."""

    key: int


def stored(world: World) -> Case:
    with world.db.write() as tx:
        values = {"name": "own", "position": 0, "domain_suffix": "example.org", "certificate_pem": "x"}
        return Case(tx.insert(insert(custom_certificate).values(**values, changed_at=tx.now)))


def upload(world: World, case: Case) -> JobRef:
    with world.db.write() as tx:
        owner = Owner(ADMIN_ACCOUNT, ROOT_DOMAIN, ADMIN_USER)
        return submit(tx, certificate_stored(certificate=case.key), owner, command="uploadCustomCertificate")


UPLOAD = Soundness[Case]("certificate.stored", prepare=stored, submit=upload)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_announcing_a_certificate_is_sound(scenario: Scenario) -> None:
    UPLOAD.check(scenario)
