"""Images that must not come in: refused with a reason that listTemplates tells, and nothing of them is kept."""

import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud import Cloud, Files, eventually

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server with bad images; its URL."""
    directory = tmp_path_factory.mktemp("bad")
    _qemu_img("create", "-f", "qcow2", str(directory / "base.qcow2"), "8M")
    _qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", "/etc/passwd", "-u", str(directory / "backed.qcow2"), "8M")
    _qemu_img("create", "-f", "qcow2", str(directory / "huge.qcow2"), "9T")
    _qemu_img("create", "-f", "qcow2", "-o", "data_file=other.raw", str(directory / "elsewhere.qcow2"), "8M")
    (directory / "text.qcow2").write_text("<html>not found</html>" * 100)
    files = Files("127.0.0.1", directory)
    try:
        yield files.url
    finally:
        files.close()


@pytest.fixture(scope="module")
def redirect(images: str) -> Iterator[str]:
    """A web server on the allowed address that sends everybody on to loopback addresses which are not allowed."""

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("location", images.replace("127.0.0.1", "127.0.0.2") + "/base.qcow2")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("redirect.qcow2", "127.0.0.2"),
        ("backed.qcow2", "backing file"),
        ("elsewhere.qcow2", "data file"),
        ("huge.qcow2", "bytes"),
        ("text.qcow2", "QCOW2"),
    ],
)
def test_a_bad_image_is_refused_with_its_reason_and_not_kept(
    simulated_cloud: Cloud, images: str, redirect: str, name: str, told: str
) -> None:
    cloud = simulated_cloud
    store = cloud.directory / cloud.places[0].name / "secondary"
    before = _files(store)
    os_type = cloud.admin.list("listOsTypes", "ostype", keyword="Other Linux (64-bit)")[0]["id"]
    source = redirect if name == "redirect.qcow2" else images
    made = cloud.admin.call(
        "registerTemplate", name=name, displaytext=name, format="QCOW2", hypervisor="Simulator", ostypeid=os_type,
        zoneid=cloud.zone, url=f"{source}/{name}",
    )["template"][0]["id"]  # fmt: skip

    def ended() -> str | None:
        (found,) = cloud.admin.list("listTemplates", "template", templatefilter="self", id=made)
        assert not found["isready"]
        return str(found["status"]) if told in found.get("status", "") else None

    eventually(f"the template's status tells of {told}", ended, seconds=30)
    assert _files(store) == before
    cloud.admin.run("deleteTemplate", id=made)


def _files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def _qemu_img(*words: str) -> None:
    subprocess.run(["qemu-img", words[0], "-q", *words[1:]], check=True)
