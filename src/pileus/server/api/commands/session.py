"""Login and logout: the two commands that need no caller."""

from pileus.server.api.command import EVERYONE, Params, Response, command, out, param
from pileus.server.api.errors import MethodNotAllowed
from pileus.server.api.request import Request
from pileus.server.api.sessions import COOKIE, Told, check_origin, client_of, cookie
from pileus.server.db.transaction import Database, Tx
from pileus.server.services import session


class LoginResponse(Response, name=""):
    """A login. Later calls carry its cookie and its session key."""

    username = out("user name")
    user_id = out("user ID")
    firstname = out("first name of the user")
    lastname = out("last name of the user")
    account = out("the account of the user")
    domain_id = out("domain ID of the user")
    type = out("the account type: 0 user, 1 root administrator, 2 domain administrator, 3 resource administrator")
    timezone = out("time zone of the user")
    timezone_offset = out("hours by which that time zone is ahead of UTC now, such as 5.5")
    registered = out("whether the user is registered")
    timeout = out("seconds after which an idle session ends", "integer")
    session_key = out("the session key to send with every call")


class LogoutResponse(Response, name=""):
    """The end of a login."""

    description = out("success")


@command("login", roles=EVERYONE, returns=LoginResponse, reads=False, public=True)
class Login(Params):
    """Opens a session. Send it by POST, so that the password stays out of logs."""

    username: str = param("user name")
    password: str = param("password", secret=True)
    domain: str | None = param("path of the domain of the user, as /a/b; ROOT unless given", default=None)
    domain_id: str | None = param("ID of the domain of the user", default=None)

    def serve(self, database: Database, request: Request) -> Told:
        """Answer the call."""
        if request.method != "POST":
            raise MethodNotAllowed("login is sent by POST")
        with database.read() as tx:
            check_origin(tx, request)
            client = client_of(tx, request)
        opened = session.login(
            database,
            username=self.username,
            password=self.password,
            domain=self.domain,
            domain_id=self.domain_id,
            client=client,
        )
        return Told(opened.view, (("Set-Cookie", cookie(request, opened.token)),))

    def __repr__(self) -> str:
        return "Login()"


@command("logout", roles=EVERYONE, returns=LogoutResponse, reads=False, public=True)
class Logout(Params):
    """Ends the session, on every server at once."""

    def serve(self, database: Database, request: Request) -> Told:
        """Answer the call."""
        token = request.cookie(COOKIE)

        def leave(tx: Tx) -> None:
            check_origin(tx, request)
            if token:
                session.logout(tx, token)

        database.run(leave)
        return Told({"description": "success"}, (("Set-Cookie", cookie(request, "")),))
