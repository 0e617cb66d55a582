"""Guest operating systems by category, as clients of the 2.2 API know them."""

OS_TYPES: dict[str, tuple[str, ...]] = {
    "CentOS": tuple(
        f"CentOS {version} ({bits}-bit)"
        for version, both in (
            ("4.5", False), ("4.6", False), ("4.7", False), ("4.8", False),
            ("5.0", True), ("5.1", True), ("5.2", True), ("5.3", True), ("5.4", True), ("5.5", True),
        )
        for bits in ((32, 64) if both else (32,))
    ),
    "Debian": (
        "Debian GNU/Linux 4 (32-bit)", "Debian GNU/Linux 4 (64-bit)",
        "Debian GNU/Linux 5 (32-bit)", "Debian GNU/Linux 5 (64-bit)",
        "Debian GNU/Linux 5.0 (32-bit)", "Debian GNU/Linux 6 (32-bit)", "Debian GNU/Linux 6 (64-bit)",
        "Debian GNU/Linux 12 (64-bit)",
    ),
    "Oracle": tuple(
        f"Oracle Enterprise Linux {version} ({bits}-bit)"
        for version in ("5.0", "5.1", "5.2", "5.3", "5.4")
        for bits in (32, 64)
    ),
    "RedHat": (
        *(f"Red Hat Enterprise Linux {version} (32-bit)" for version in ("4.5", "4.6", "4.7", "4.8")),
        *(
            f"Red Hat Enterprise Linux {version} ({bits}-bit)"
            for version in ("5.0", "5.1", "5.2", "5.3", "5.4")
            for bits in (32, 64)
        ),
    ),
    "SUSE": (
        "SUSE Linux Enterprise Server 9 SP4 (32-bit)",
        *(
            f"SUSE Linux Enterprise Server 10 {pack} ({bits}-bit)"
            for pack in ("SP1", "SP2", "SP3")
            for bits in (32, 64)
        ),
        "SUSE Linux Enterprise Server 11 (32-bit)", "SUSE Linux Enterprise Server 11 (64-bit)",
    ),
    "Windows": (
        "Windows 7 (32-bit)", "Windows 7 (64-bit)",
        "Windows Server 2003 Enterprise Edition(32-bit)", "Windows Server 2003 Enterprise Edition(64-bit)",
        "Windows Server 2003 DataCenter Edition(32-bit)", "Windows Server 2003 DataCenter Edition(64-bit)",
        "Windows Server 2003 Standard Edition(32-bit)", "Windows Server 2003 Standard Edition(64-bit)",
        "Windows Server 2003 Web Edition", "Microsoft Small Bussiness Server 2003",
        "Windows Server 2008 (32-bit)", "Windows Server 2008 (64-bit)", "Windows Server 2008 R2 (64-bit)",
        "Windows 2000 Server SP4 (32-bit)", "Windows Vista (32-bit)",
        "Windows XP SP2 (32-bit)", "Windows XP SP3 (32-bit)", "Windows XP (64-bit)",
    ),
    "Novel": ("Novell Netware 6.x", "Novell Netware 5.1", "SCO OpenServer 5", "SCO UnixWare 7"),
    "Unix": (
        "Sun Solaris 10(32-bit)", "Sun Solaris 10(64-bit)", "Sun Solaris 9(Experimental)",
        "FreeBSD (32-bit)", "FreeBSD (64-bit)",
    ),
    "Ubuntu": (
        "Ubuntu 8.04 (32-bit)", "Ubuntu 8.04 (64-bit)", "Ubuntu 8.10 (32-bit)", "Ubuntu 8.10 (64-bit)",
        "Ubuntu 9.04 (32-bit)", "Ubuntu 9.04 (64-bit)", "Ubuntu 9.10 (32-bit)", "Ubuntu 9.10 (64-bit)",
        "Ubuntu 10.04 (32-bit)", "Ubuntu 10.04 (64-bit)",
    ),
    "Other": (
        "Other (32-bit)", "Other (64-bit)", "Other Linux (32-bit)", "Other Linux (64-bit)",
        "Other Ubuntu (32-bit)", "Other Ubuntu (64-bit)", "Other PV (32-bit)", "Other PV (64-bit)",
    ),
}  # fmt: skip
