"""Messages between the management server, agents and appliances: the only code all programs share."""

PROTOCOL = 1
"""Version of the wire. A peer with another number is refused with a text that says which side to upgrade."""
