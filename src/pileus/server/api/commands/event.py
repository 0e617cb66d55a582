"""Commands on events."""

from pileus.server.api.command import EVERYONE, Call, Instant, ListParams, Page, Params, Response, command, out, param
from pileus.server.domain.ids import Domain, Event, Id
from pileus.server.services import event


class EventResponse(Response, name="event", kind=Event):
    """An event."""

    id = out("the ID of the event")
    username = out("the user who performed the action")
    type = out("the type of the event (see listEventTypes)")
    level = out("the level of the event: INFO, WARN, ERROR")
    description = out("a brief description of the event")
    account = out("the account of the event")
    domain_id = out("the ID of the domain of the account")
    domain = out("the name of the domain of the account")
    created = out("when the event happened", "date")
    state = out("the state of the event: Scheduled, Started or Completed")
    parent_id = out("the event with which the job began")


class EventTypeResponse(Response, name="eventtype"):
    """A type of event."""

    name = out("the name of the type")


@command("listEvents", roles=EVERYONE, returns=EventResponse)
class ListEvents(ListParams):
    """Lists events, newest first."""

    id: Id[Event] | None = param("the ID of the event", default=None)
    account: str | None = param("list events of this account; with domainid unless it is in yours", default=None)
    domain_id: Id[Domain] | None = param("list events of this domain", default=None)
    is_recursive: bool | None = param("with domainid, also of the domains below it", default=None)
    list_all: bool | None = param("list all events that you may see", default=None)
    type: str | None = param("the type of the events", default=None)
    level: str | None = param("the level of the events: INFO, WARN, ERROR", default=None)
    start_date: Instant | None = param("list events from this date on", default=None)
    end_date: Instant | None = param("list events up to this date", default=None)
    entry_time: int | None = param("list first events of open jobs, at most so many seconds old", default=None)
    duration: int | None = param("list first events of open jobs, at least so many seconds old", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *event.list_page(
                call.tx,
                call.caller,
                event_id=self.id,
                account=self.account,
                domain_id=self.domain_id,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                type=self.type,
                level=self.level,
                start=self.start_date,
                end=self.end_date,
                entry_seconds=self.entry_time,
                duration_seconds=self.duration,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )


@command("listEventTypes", roles=EVERYONE, returns=EventTypeResponse)
class ListEventTypes(Params):
    """Lists all types of events."""

    def run(self, call: Call) -> Page:
        names = event.type_names()
        return Page(list(names), len(names))
