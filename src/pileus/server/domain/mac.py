"""MAC addresses, unique by construction: locally administered, the rest is the key of the NIC's row."""


def mac_of(nic_id: int) -> str:
    """The address of a NIC (02:00 and four bytes of its key)."""
    digits = f"{nic_id & 0xFFFFFFFF:08x}"
    return ":".join(("02", "00", *(digits[i : i + 2] for i in range(0, 8, 2))))
