"""Alembic's entry: always called by `db.revise` with an open connection, or by `alembic` for a new revision."""

from alembic import context
from sqlalchemy import create_engine

from pileus.server.db.tables import metadata

connection = context.config.attributes.get("connection")
if connection is not None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    url = context.config.get_main_option("sqlalchemy.url")
    if url is None:
        raise SystemExit("give the database: alembic -x … needs sqlalchemy.url")
    with create_engine(url).connect() as fresh:
        context.configure(connection=fresh, target_metadata=metadata, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()
