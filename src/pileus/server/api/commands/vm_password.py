"""Passwords of virtual machines: told in the result of the job that sets them, and to whoever has the SSH key."""

from pileus.server.api.command import EVERYONE, Call, Params, Response, Started, View, command, out, param
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


class VmPasswordResponse(Response, name="password"):
    """A password that only the holder of the virtual machine's SSH key reads."""

    encrypted_password = out("the password, encrypted with the SSH public key (RSA, PKCS #1 v1.5), in base64")


@command("getVMPassword", roles=EVERYONE, returns=VmPasswordResponse)
class GetVmPassword(Params):
    """Tells the password of a virtual machine, encrypted with the SSH key it was deployed with."""

    id: Id[Vm] = param("the ID of the virtual machine")

    def run(self, call: Call) -> View:
        return vm.sealed_password(call.tx, call.caller, self.id)
