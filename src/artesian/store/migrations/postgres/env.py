"""What Alembic runs: the revisions, on the connection that ``migrate`` gives it, in its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table_schema="artesian")
with context.begin_transaction():
    context.run_migrations()
