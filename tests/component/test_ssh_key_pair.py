"""SSH key pairs: made, registered, listed, deleted; and how a guest gets the public one."""

import base64
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from places import refused
from sqlalchemy import select
from vm_setup import deployed, steady_cloud

from pileus.server.db.tables import metadata
from pileus.server.db.tables.account import domain, users
from pileus.server.db.tables.network import guest_data, nic
from pileus.server.db.tables.vm import vm
from pileus.server.domain.account import AccountType
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError
from pileus.server.elements import virtual_router
from pileus.testing import World
from pileus.testing.client import Client

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@home"


@pytest.fixture
def alice(world: World) -> Caller:
    return world.account("alice", domain_id=world.domain("d"))


@pytest.fixture
def client(world: World, alice: Caller) -> Client:
    return Client(world.db, alice)


def public_half(pem: str) -> str:
    private = serialization.load_pem_private_key(pem.encode(), password=None)
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return private.public_key().public_bytes(*form).decode()


def everything(world: World) -> str:
    """Every row of the database as text."""
    with world.reading() as tx:
        return "\n".join(str(dict(row)) for table in metadata.sorted_tables for row in tx.all(select(table)))


def test_a_private_key_is_told_once_and_stored_nowhere(world: World, client: Client) -> None:
    made = client.one("createSSHKeyPair", name="laptop")
    assert made["privatekey"].startswith("-----BEGIN RSA PRIVATE KEY-----")
    (shown,) = client.call("listSSHKeyPairs")["keypair"]
    assert (shown["name"], shown["fingerprint"]) == ("laptop", made["fingerprint"])
    assert "privatekey" not in shown
    body = made["privatekey"].splitlines()[3]
    assert body not in everything(world)


def test_a_registered_key_keeps_its_fingerprint_and_is_found_by_it(client: Client) -> None:
    made = client.one("registerSSHKeyPair", name="laptop", publickey=PUBLIC)
    assert client.one("listSSHKeyPairs", fingerprint=made["fingerprint"].upper())["name"] == "laptop"
    assert client.call("listSSHKeyPairs", fingerprint="00:11") == {}
    assert client.call("listSSHKeyPairs", name="other") == {}


def test_names_are_unique_in_an_account_and_free_again_once_deleted(world: World, client: Client) -> None:
    client.call("registerSSHKeyPair", name="laptop", publickey=PUBLIC)
    for command in ("createSSHKeyPair", "registerSSHKeyPair"):
        with refused(431, "laptop"):
            client.call(command, name="laptop", publickey=PUBLIC if command.startswith("register") else None)
    Client(world.db, world.account("bob")).call("registerSSHKeyPair", name="laptop", publickey=PUBLIC)
    assert client.call("deleteSSHKeyPair", name="laptop") == {"success": True}
    assert client.call("listSSHKeyPairs") == {}
    with refused(431, "laptop"):
        client.call("deleteSSHKeyPair", name="laptop")
    client.call("registerSSHKeyPair", name="laptop", publickey=PUBLIC)


@pytest.mark.parametrize("key", ["", "ssh-rsa AAAA", 'command="x" ' + PUBLIC])
def test_what_is_no_public_key_is_refused(client: Client, key: str) -> None:
    with refused(431, "publickey"):
        client.call("registerSSHKeyPair", name="laptop", publickey=key)


def test_key_pairs_are_their_accounts_own(world: World, alice: Caller, client: Client) -> None:
    client.call("registerSSHKeyPair", name="laptop", publickey=PUBLIC)
    bob = Client(world.db, world.account("bob", domain_id=alice.domain_id))
    chief = Client(world.db, world.account("chief", domain_id=alice.domain_id, type=AccountType.DOMAIN_ADMIN))
    home = world.uuid(domain, alice.domain_id)
    assert bob.call("listSSHKeyPairs", listall=True) == {}
    with refused(531):
        bob.call("deleteSSHKeyPair", name="laptop", account="alice", domainid=home)
    assert chief.call("listSSHKeyPairs") == {}
    assert chief.names("listSSHKeyPairs", listall=True) == ["laptop"]
    chief.call("deleteSSHKeyPair", name="laptop", account="alice", domainid=home)
    assert client.call("listSSHKeyPairs") == {}


def test_a_guest_gets_the_public_key_by_metadata_and_keeps_it(world: World, alice: Caller, client: Client) -> None:
    cloud = steady_cloud(world)
    made = client.one("createSSHKeyPair", name="laptop")
    guest = deployed(world, alice, cloud, name="web", key_pair="laptop")
    plain = deployed(world, alice, cloud, name="plain")
    client.call("deleteSSHKeyPair", name="laptop")
    with world.reading() as tx:
        network = tx.scalar(select(nic.c.network_id).where(nic.c.vm_id == guest, nic.c.live == 1))
        served = {
            each.metadata["vm-id"]: each.metadata for each in virtual_router.config(tx, network, generation=1).guests
        }
    assert served[world.uuid(vm, guest)]["public-keys"] == public_half(made["privatekey"])
    assert "public-keys" not in served[world.uuid(vm, plain)]
    (shown,) = client.call("listVirtualMachines", keypair="laptop")["virtualmachine"]
    assert (shown["name"], shown["keypair"]) == ("web", "laptop")


def test_a_guest_with_a_key_pair_that_is_not_its_accounts_is_refused(world: World, alice: Caller) -> None:
    cloud = steady_cloud(world)
    Client(world.db, world.account("bob")).call("registerSSHKeyPair", name="bobs", publickey=PUBLIC)
    with pytest.raises(ParameterError, match="no SSH key pair bobs") as caught:
        deployed(world, alice, cloud, name="web", key_pair="bobs")
    assert caught.value.parameter == "keypair"
    with world.reading() as tx:
        assert tx.all(select(vm.c.id).where(vm.c.account_id == alice.account_id)) == []


def test_key_pairs_go_with_their_account(world: World, alice: Caller, client: Client) -> None:
    client.call("registerSSHKeyPair", name="laptop", publickey=PUBLIC)
    client.call("createInstanceGroup", name="web")
    admin = Client(world.db)
    (account,) = admin.call("listAccounts", name="alice", domainid=world.uuid(domain, alice.domain_id))["account"]
    world.result(admin.call("deleteAccount", id=account["id"])["jobid"])
    assert admin.call("listSSHKeyPairs", listall=True) == {}
    assert admin.call("listInstanceGroups", listall=True) == {}


def test_a_password_is_told_sealed_for_the_holder_of_the_key(world: World, alice: Caller, client: Client) -> None:
    cloud = steady_cloud(world)
    image = world.template(cloud.zone, password_enabled=1)
    made = client.one("createSSHKeyPair", name="laptop")
    guest = world.uuid(vm, deployed(world, alice, cloud, name="web", template_id=image, key_pair="laptop"))
    private = serialization.load_pem_private_key(made["privatekey"].encode(), password=None)
    assert isinstance(private, rsa.RSAPrivateKey)
    sealed = client.one("getVMPassword", id=guest)["encryptedpassword"]
    opened = private.decrypt(base64.b64decode(sealed), padding.PKCS1v15()).decode()
    with world.reading() as tx:
        assert opened == tx.scalar(select(guest_data.c.password))
    with refused(531):
        Client(world.db, world.account("bob")).call("getVMPassword", id=guest)


def test_a_password_is_not_told_without_a_password_or_a_key_to_seal_it(
    world: World, alice: Caller, client: Client
) -> None:
    cloud = steady_cloud(world)
    image = world.template(cloud.zone, password_enabled=1)
    client.call("registerSSHKeyPair", name="curve", publickey=PUBLIC)
    without_password = deployed(world, alice, cloud, name="one", key_pair="curve")
    without_key = deployed(world, alice, cloud, name="two", template_id=image)
    with_curve = deployed(world, alice, cloud, name="three", template_id=image, key_pair="curve")
    for guest, words in ((without_password, "no password"), (without_key, "without an SSH"), (with_curve, "not RSA")):
        with refused(431, words):
            client.call("getVMPassword", id=world.uuid(vm, guest))


def test_the_name_of_the_cloud_is_signed_for_its_users_only(world: World, alice: Caller, client: Client) -> None:
    me = world.uuid(users, alice.user_id)
    told = client.one("getCloudIdentifier", userid=me)
    digest = hmac.new(client.keys[1].encode(), told["cloudidentifier"].encode(), hashlib.sha1).digest()
    assert told["signature"] == base64.b64encode(digest).decode()
    assert told["userid"] == me
    other = world.account("bob")
    assert (
        Client(world.db, other).one("getCloudIdentifier", userid=world.uuid(users, other.user_id))["cloudidentifier"]
        == told["cloudidentifier"]
    )
    with refused(531):
        client.call("getCloudIdentifier", userid=world.uuid(users, other.user_id))
    with refused(431, "keys"):
        Client(world.db).call("getCloudIdentifier", userid=world.uuid(users, world.account("carol").user_id))
