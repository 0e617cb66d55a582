"""Commands on custom certificates."""

from pileus.server.api.command import ROOT_ONLY, Call, Params, Response, Started, command, out, param
from pileus.server.events import types
from pileus.server.services import certificate

_LONGEST = 64 * 1024


class CustomCertificateResponse(Response, name="customcertificate", load=certificate.view):
    """What became of an uploaded certificate."""

    message = out("what became of it")
    updated_console_proxy_id_list = out("console proxies that serve it already")


@command(
    "uploadCustomCertificate",
    roles=ROOT_ONLY,
    returns=CustomCertificateResponse,
    job=True,
    emits=types.UPLOAD_CUSTOM_CERTIFICATE,
)
class UploadCustomCertificate(Params):
    """Uploads a certificate for what the cloud serves to browsers: one with its key, or one that vouches for it."""

    certificate: str = param("the certificate in PEM; those that vouch for it may follow", length=_LONGEST)
    domain_suffix: str = param("the domain below which the names of the certificate lie")
    private_key: str | None = param(
        "the private key of the certificate in PEM, not encrypted", default=None, length=_LONGEST, secret=True
    )
    name: str | None = param("a name for a certificate that vouches for another", default=None)
    id: int | None = param("the position of a certificate that vouches for another, from 1", default=None)

    def run(self, call: Call) -> Started:
        return Started(
            certificate.upload(
                call.tx,
                call.caller,
                certificate=self.certificate,
                private_key=self.private_key,
                name=self.name,
                position=self.id,
                domain_suffix=self.domain_suffix,
            )
        )
