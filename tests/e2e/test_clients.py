"""The field's clients, unmodified from their registry, work on the API: list, deploy, stop, destroy."""

from urllib.parse import urlsplit

import pytest
from cloud import Cloud
from cs import CloudStack
from libcloud.compute.drivers.cloudstack import CloudStackNodeDriver
from libcloud.compute.types import NodeState


@pytest.mark.slow
def test_cs_lists_deploys_stops_and_destroys(simulated_cloud: Cloud) -> None:
    profile = simulated_cloud.admin.profile
    client = CloudStack(endpoint=profile.endpoint, key=profile.api_key, secret=profile.secret_key)
    zone = client.listZones()["zone"][0]["id"]
    offering = next(o["id"] for o in client.listServiceOfferings()["serviceoffering"] if o["name"] == "tiny")
    template = client.listTemplates(templatefilter="executable")["template"][0]["id"]

    vm = client.deployVirtualMachine(
        zoneid=zone, serviceofferingid=offering, templateid=template, name="by-cs", fetch_result=True
    )["virtualmachine"]
    assert vm["state"] == "Running"
    assert vm["nic"][0]["ipaddress"].startswith("10.1.1.")
    listed = client.listVirtualMachines(fetch_list=True)
    assert [each["name"] for each in listed] == ["by-cs"]

    stopped = client.stopVirtualMachine(id=vm["id"], fetch_result=True)["virtualmachine"]
    assert stopped["state"] == "Stopped"
    client.destroyVirtualMachine(id=vm["id"], fetch_result=True)
    states = [each["state"] for each in client.listVirtualMachines(fetch_list=True)]
    assert states in ([], ["Destroyed"], ["Expunging"])


@pytest.mark.slow
def test_libcloud_lists_deploys_stops_and_destroys(simulated_cloud: Cloud) -> None:
    profile = simulated_cloud.admin.profile
    place = urlsplit(profile.endpoint)
    driver = CloudStackNodeDriver(
        key=profile.api_key, secret=profile.secret_key, secure=False, host=place.hostname, port=place.port,
        path=place.path,
    )  # fmt: skip
    location = driver.list_locations()[0]
    size = next(size for size in driver.list_sizes() if size.name == "tiny")
    image = driver.list_images()[0]

    node = driver.create_node(name="by-libcloud", size=size, image=image, location=location, ex_start_vm=True)
    assert node.state == NodeState.RUNNING
    assert node.private_ips[0].startswith("10.1.1.")
    assert "by-libcloud" in [each.name for each in driver.list_nodes()]

    assert driver.ex_stop(node) == "Stopped"
    assert driver.destroy_node(node)
    living = [each.name for each in driver.list_nodes() if each.state == NodeState.RUNNING]
    assert "by-libcloud" not in living
