"""The rules of `page` and `pagesize`, the same for every list."""

from pileus.server.config import keys, value
from pileus.server.db.transaction import Tx
from pileus.server.domain.errors import ParameterError

ALL = -1
EVERYTHING = 2**31 - 1
"""A limit that no list reaches."""


def bounds(tx: Tx, page: int | None, page_size: int | None) -> tuple[int, int]:
    """Offset and limit of a page. `pagesize` -1 alone asks for everything; neither, for the first default page."""
    if page is None and page_size == ALL:
        return 0, EVERYTHING
    largest = value(tx, keys.default_page_size)
    if page is None and page_size is None:
        return 0, largest
    if page is None:
        raise ParameterError('"page" parameter is required when "pagesize" is specified', parameter="page")
    if page_size is None:
        raise ParameterError('"pagesize" parameter is required when "page" is specified', parameter="pagesize")
    if page < 1:
        raise ParameterError(f"page numbers begin at 1, not {page}", parameter="page")
    if page_size < 1:
        raise ParameterError(f"a page holds at least 1 entry, not {page_size}", parameter="pagesize")
    if page_size > largest:
        raise ParameterError(f"Page size can't exceed max allowed page size value: {largest}", parameter="pagesize")
    return min((page - 1) * page_size, EVERYTHING), page_size
