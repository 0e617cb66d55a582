"""Passwords of virtual machines: told once, in the result of the job that sets them."""

from pileus.server.api.command import EVERYONE, Call, Params, Started, command, param
from pileus.server.api.commands.vm import VmResponse
from pileus.server.domain.ids import Id, Vm
from pileus.server.events import types
from pileus.server.services import vm


@command("resetPasswordForVirtualMachine", roles=EVERYONE, job=True, emits=types.VM_RESETPASSWORD, returns=VmResponse)
class ResetPasswordForVirtualMachine(Params):
    """Gives a stopped virtual machine a new password; its template must take passwords."""

    id: Id[Vm] = param("the ID of the virtual machine")

    def run(self, call: Call) -> Started:
        return Started(vm.reset_password(call.tx, call.caller, self.id)[0])
