"""Revision 0001: records, the end of their chain, snapshots, and who leads."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables. ``head`` and ``lease`` have one row each, always."""
    op.execute(
        """
        CREATE TABLE artesian.records (
            seq  bigint           PRIMARY KEY,
            at_s double precision NOT NULL,
            type text             NOT NULL,
            body bytea            NOT NULL,
            crc  bigint           NOT NULL
        )
        """
    )
    op.execute("CREATE TABLE artesian.head (seq bigint NOT NULL, crc bigint NOT NULL) WITH (fillfactor = 10)")
    op.execute("CREATE UNIQUE INDEX head_is_one_row ON artesian.head ((true))")
    op.execute("INSERT INTO artesian.head VALUES (0, 0)")
    op.execute(
        """
        CREATE TABLE artesian.snapshots (
            seq        bigint PRIMARY KEY,
            record_crc bigint NOT NULL,
            version    text   NOT NULL,
            body       bytea  NOT NULL,
            crc        bigint NOT NULL
        )
        """
    )
    # It is compressed already.
    op.execute("ALTER TABLE artesian.snapshots ALTER COLUMN body SET STORAGE EXTERNAL")
    op.execute(
        """
        CREATE TABLE artesian.lease (
            epoch      bigint      PRIMARY KEY,
            holder     text        NOT NULL,
            expires_at timestamptz NOT NULL
        ) WITH (fillfactor = 10)
        """
    )
    op.execute("CREATE UNIQUE INDEX lease_is_one_row ON artesian.lease ((true))")
    op.execute("INSERT INTO artesian.lease VALUES (0, '', '-infinity')")
