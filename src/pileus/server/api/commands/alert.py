"""Commands on alerts."""

from pileus.server.api.command import ADMINS, Call, ListParams, Page, Response, command, out, param
from pileus.server.domain.ids import Alert, Id
from pileus.server.services import alert


class AlertResponse(Response, name="alert"):
    """Something that administrators should see to."""

    id = out("the ID of the alert")
    type = out("the number of its type", "short")
    name = out("the name of its type")
    description = out("what is wrong")
    sent = out("when it was raised", "date")
    standing = out("true until what is wrong is over", "boolean")
    cleared = out("when it was over", "date")


@command("listAlerts", roles=ADMINS, returns=AlertResponse)
class ListAlerts(ListParams):
    """Lists alerts, newest first."""

    id: Id[Alert] | None = param("the ID of the alert", default=None)
    type: str | None = param("list alerts of a type, by number or name", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *alert.list_page(
                call.tx,
                call.caller,
                alert_id=self.id,
                type_text=self.type,
                keyword=self.keyword,
                page_number=self.page,
                page_size=self.page_size,
            )
        )
