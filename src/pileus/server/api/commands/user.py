"""Commands on users and their keys."""

from pileus.server.api.command import (
    ADMINS,
    DOMAIN_ADMINS,
    EVERYONE,
    ROOT_ONLY,
    SUCCESS,
    Call,
    ListParams,
    Page,
    Params,
    PasswordHash,
    Response,
    Started,
    Success,
    SuccessResponse,
    View,
    command,
    out,
    param,
)
from pileus.server.domain.ids import Domain, Id, User
from pileus.server.events import types
from pileus.server.services import user


class UserResponse(Response, name="user", kind=User, load=user.view):
    """A user. Its password and keys are never told."""

    id = out("the user ID")
    username = out("the user name")
    firstname = out("the user firstname")
    lastname = out("the user lastname")
    email = out("the user email address")
    created = out("when the user was created", "date")
    state = out("the user state")
    account = out("the account name of the user")
    account_id = out("the account ID of the user")
    account_type = out("the account type of the user", "short")
    domain_id = out("the domain ID of the user")
    domain = out("the domain name of the user")
    timezone = out("the time zone the user was created in")
    is_default = out("true for the built-in administrator", "boolean")


class KeysResponse(Response, name="userkeys"):
    """New keys of a user, told this once."""

    api_key = out("the API key of the registered user")
    secret_key = out("the secret key of the registered user")


@command("createUser", roles=ADMINS, returns=UserResponse, emits=types.USER_CREATE)
class CreateUser(Params):
    """Creates a user for an account that already exists."""

    account: str = param("the account of the user")
    domain_id: Id[Domain] | None = param("the domain of the account; your own unless given", default=None)
    email: str = param("email address")
    firstname: str = param("first name")
    lastname: str = param("last name")
    password: PasswordHash = param("the password, as the user will type it")
    timezone: str | None = param("a time zone identifier, such as Europe/Berlin", default=None)
    username: str = param("the user name, unique in the domain")

    def run(self, call: Call) -> View:
        return user.create(
            call.tx,
            call.caller,
            account_name=self.account,
            domain_id=self.domain_id,
            username=self.username,
            password_hash=self.password,
            firstname=self.firstname,
            lastname=self.lastname,
            email=self.email,
            timezone=self.timezone,
        )


@command("updateUser", roles=ADMINS, returns=UserResponse, emits=types.USER_UPDATE)
class UpdateUser(Params):
    """Updates a user."""

    id: Id[User] = param("the user ID")
    email: str | None = param("email address", default=None)
    firstname: str | None = param("first name", default=None)
    lastname: str | None = param("last name", default=None)
    password: PasswordHash | None = param("a new password, as the user will type it", default=None)
    timezone: str | None = param("a time zone identifier", default=None)
    user_api_key: str | None = param("a new API key, together with usersecretkey", default=None)
    username: str | None = param("a new user name, unique in the domain", default=None)
    user_secret_key: str | None = param("a new secret key, together with userapikey", default=None, secret=True)

    def run(self, call: Call) -> View:
        return user.update(
            call.tx,
            call.caller,
            self.id,
            username=self.username,
            password_hash=self.password,
            firstname=self.firstname,
            lastname=self.lastname,
            email=self.email,
            timezone=self.timezone,
            api_key=self.user_api_key,
            secret_key=self.user_secret_key,
        )


@command("deleteUser", roles=ADMINS, returns=SuccessResponse, emits=types.USER_DELETE)
class DeleteUser(Params):
    """Deletes a user; its logins and keys end at once."""

    id: Id[User] = param("the user ID")

    def run(self, call: Call) -> Success:
        user.delete(call.tx, call.caller, self.id)
        return SUCCESS


@command("disableUser", roles=DOMAIN_ADMINS, returns=UserResponse, job=True, emits=types.USER_DISABLE)
class DisableUser(Params):
    """Disables a user; its logins and keys end at once."""

    id: Id[User] = param("the user ID")

    def run(self, call: Call) -> Started:
        return Started(user.disable(call.tx, call.caller, self.id))


@command("enableUser", roles=DOMAIN_ADMINS, returns=UserResponse, emits=types.USER_ENABLE)
class EnableUser(Params):
    """Enables a user."""

    id: Id[User] = param("the user ID")

    def run(self, call: Call) -> View:
        return user.enable(call.tx, call.caller, self.id)


@command("lockUser", roles=DOMAIN_ADMINS, returns=UserResponse, emits=types.USER_LOCK)
class LockUser(Params):
    """Locks a user out until it is enabled."""

    id: Id[User] = param("the user ID")

    def run(self, call: Call) -> View:
        return user.lock(call.tx, call.caller, self.id)


@command("registerUserKeys", roles=ROOT_ONLY, returns=KeysResponse, emits=types.REGISTER_USER_KEY)
class RegisterUserKeys(Params):
    """Gives a user new API and secret keys, told this once; the old ones end."""

    id: Id[User] = param("the user ID")

    def run(self, call: Call) -> View:
        return user.register_keys(call.tx, call.caller, self.id)


@command("listUsers", roles=DOMAIN_ADMINS, returns=UserResponse)
class ListUsers(ListParams):
    """Lists users."""

    id: Id[User] | None = param("the user ID", default=None)
    account: str | None = param("list users of this account; with domainid unless it is in yours", default=None)
    account_type: int | None = param("list users of accounts of this type", default=None)
    domain_id: Id[Domain] | None = param("list users of this domain", default=None)
    is_recursive: bool | None = param("with domainid, also of the domains below it", default=None)
    list_all: bool | None = param("list all users that you may see", default=None)
    state: str | None = param("list users in this state", default=None)
    username: str | None = param("list users of this name", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *user.list_page(
                call.tx,
                call.caller,
                user_id=self.id,
                account_name=self.account,
                account_type=self.account_type,
                domain_id=self.domain_id,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                state=self.state,
                username=self.username,
                keyword=self.keyword,
                page_number=self.page,
                page_size=self.page_size,
            )
        )


class CloudIdentifierResponse(Response, name="cloudidentifier"):
    """The name of this cloud, signed for a user."""

    user_id = out("the ID of the user")
    cloud_identifier = out("the name of this cloud")
    signature = out("HMAC-SHA1 of the name with the secret key of the user, in base64")


@command("getCloudIdentifier", roles=EVERYONE, returns=CloudIdentifierResponse)
class GetCloudIdentifier(Params):
    """Tells the name of this cloud, signed with the secret key of a user."""

    user_id: Id[User] = param("the ID of the user")

    def run(self, call: Call) -> View:
        return user.cloud_identifier(call.tx, call.caller, self.user_id)
