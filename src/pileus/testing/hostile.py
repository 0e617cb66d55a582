# ruff: noqa: E501, RUF001, S104
"""Values and names that have broken parsers: empty, huge, foreign, misencoded, half right."""

from collections.abc import Sequence

_INT64 = 2**63

VALUES: Sequence[str] = (
    *("", " ", "\x00", "a\x00b", "\x0b\x1f\x7f", "\ufffe\uffff", "\u202e\u0301", "null", "None", "[]", "{}", "true", "yes"),
    *("0", "1", "-1", "2", "-0", "+1", " 7 ", "1_000", "0x10", "1.0", "1e3", "1e309", "NaN", "inf", "-inf", "٣", "１２", "½", "²"),
    *(str(2**31), str(2**31 - 1), str(2**32), str(_INT64 - 1), str(_INT64), str(-_INT64), str(-_INT64 - 1), "9" * 400),
    *("x" * 255, "x" * 256, "x" * 5000, "é" * 255, "😀" * 255, "a," * 3000, ",,,,", "a,,b", "1,2,x"),
    *("<script>alert(1)</script>", "]]>&<!--", "' OR 1=1 --", '"; DROP TABLE vm', "%s%n", "%", "%%", "_", "{0}", "$(id)"),
    *("../../etc/passwd", "a/b", "a\\b", "/", "\r\nSet-Cookie: x=1", "\n", "\t", "-rf", ".", "..", "a.b.c", "-a-", "a" * 64),
    *("2011-13-45", "0000-00-00", "0001-01-01", "9999-12-31", "9999-12-31T23:59:59-2359", "2011-01-01T00:00:00Z", "12:00"),
    *("0.0.0.0", "255.255.255.255", "10.1.1.0/33", "10.1.1.0/0", "10.1.1.5/24", "::1", "::/0", "1.2.3", "01.2.3.4", "1.2.3.256"),
    *("255.0.255.0", "0.0.0.1", "10.0.0.0/8,10.0.0.0/8", "10.1.1.1-10.1.1.9", "9-1", "1-4095", "0-99999999", "1-", "-", "untagged"),
    *("http://", "http://[", "http://[::1", "http://a:99999/x", "http://a:b/x", "file:///etc/passwd", "nfs://", "nfs:///x"),
    *("http://user:pw@a/x.qcow2", "http://\u0131.example/x", "http://a/\x00", "//x", "javascript:1", "http://169.254.169.254/x"),
    *("=", "&", "a=b", "a;b", "QUFB", "!!!!", "=" * 9, "Etc/../../x", "a" * 20 + "@" + "b" * 20, "\u00df", "\u0130"),
)  # fmt: skip

ODD_NAMES: Sequence[str] = (
    *("", "[", "]", "a[", "a[0", "a[0]", "a[0].", "a[x].b", "a[-1].b", "a[0].b.c", "a[0][1].b", "details[9999999].x"),
    *("details[0].key", "details[0].value", "iptonetworklist[0].ip", "iptonetworklist[0].networkid", "tags[0].key"),
    *("_", "command", "COMMAND", "response", "sessionkey", "signatureversion", "expires", "\x00", "é", "x" * 3000, "ID", "iD"),
)  # fmt: skip
