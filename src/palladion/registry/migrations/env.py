"""What alembic runs for every migration: hands it the connection and transaction that `schema.upgrade` was given.

Alembic loads this file by its path, and only inside `schema.upgrade`.
"""

from palladion.registry import tables


def run() -> None:
    """Run the migrations that alembic has chosen."""
    from alembic import context

    # The connection is in a transaction already, and alembic leaves it open: the caller commits or rolls back.
    context.configure(connection=context.config.attributes["connection"], target_metadata=tables.metadata)
    with context.begin_transaction():
        context.run_migrations()


run()
