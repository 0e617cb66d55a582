"""Commands on settings."""

from pileus.server.api.command import (
    ROOT_ONLY,
    Call,
    Instant,
    ListParams,
    Page,
    Params,
    Response,
    View,
    command,
    out,
    param,
)
from pileus.server.events.types import CONFIGURATION_VALUE_EDIT
from pileus.server.services import configuration


class ConfigurationResponse(Response, name="configuration"):
    """A setting."""

    category = out("the category of the setting")
    name = out("the name of the setting")
    value = out("the value in force; absent if it is empty or secret")
    default_value = out("the value without any change")
    description = out("what the setting means")


@command("listConfigurations", roles=ROOT_ONLY, returns=ConfigurationResponse)
class ListConfigurations(ListParams):
    """Lists the settings of this cloud."""

    category: str | None = param("list settings of this category", default=None)
    name: str | None = param("list the setting of this name", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *configuration.list_page(
                call.tx,
                category=self.category,
                name=self.name,
                keyword=self.keyword,
                page_number=self.page,
                page_size=self.page_size,
            )
        )


@command("createConfiguration", roles=ROOT_ONLY, returns=ConfigurationResponse, emits=CONFIGURATION_VALUE_EDIT)
class CreateConfiguration(Params):
    """Adds a setting that nothing in the cloud obeys, for tools of administrators to keep things in."""

    category: str = param("the category to list it under", length=255)
    component: str = param("what the setting is of", length=255)
    instance: str = param("the server the setting is for, or DEFAULT", length=255)
    name: str = param("the name of the setting, which is free so far", length=255)
    value: str | None = param("its value, and its default from now on", default=None, length=4096)
    description: str | None = param("what the setting means", default=None, length=1024)

    def run(self, call: Call) -> View:
        return configuration.create(
            call.tx,
            call.caller,
            name=self.name,
            category=self.category,
            component=self.component,
            instance=self.instance,
            value=self.value,
            description=self.description,
        )


@command("updateConfiguration", roles=ROOT_ONLY, returns=ConfigurationResponse, emits=CONFIGURATION_VALUE_EDIT)
class UpdateConfiguration(Params):
    """Changes a setting, on every server at once."""

    name: str = param("the name of the setting")
    value: str | None = param("the new value; the default again without it", default=None, length=4096)

    def run(self, call: Call) -> View:
        return configuration.update(call.tx, call.caller, name=self.name, value=self.value)


class ConfigurationChangeResponse(Response, name="configurationchange"):
    """A change of a setting."""

    name = out("the name of the setting")
    old_value = out("the value before; absent for the default, and if it is secret")
    new_value = out("the value after; absent for the default, and if it is secret")
    user_id = out("the ID of the user who changed it")
    username = out("the name of the user who changed it")
    account = out("the account of the user")
    changed = out("when it was changed", "date")


@command("listConfigurationChanges", roles=ROOT_ONLY, returns=ConfigurationChangeResponse)
class ListConfigurationChanges(ListParams):
    """Lists who changed which setting, the last change first."""

    name: str | None = param("list changes of the setting of this name", default=None)
    start_date: Instant | None = param("list changes from this date on", default=None)
    end_date: Instant | None = param("list changes up to this date", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *configuration.changes_page(
                call.tx,
                name=self.name,
                start=self.start_date,
                end=self.end_date,
                keyword=self.keyword,
                page_number=self.page,
                page_size=self.page_size,
            )
        )
