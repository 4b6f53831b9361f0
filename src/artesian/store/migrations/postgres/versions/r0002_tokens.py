"""Revision 0002: tokens, sessions and the key that signs them, which servers on one database share."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables. ``token_changes`` has one row, always. Only hashes of tokens and cookies are kept."""
    op.execute(
        """
        CREATE TABLE artesian.tokens (
            id        text             PRIMARY KEY,
            hash      text             NOT NULL,
            user_name text             NOT NULL,
            role      text             NOT NULL,
            team      text,
            created_s double precision NOT NULL,
            expires_s double precision,
            revoked_s double precision,
            note      text             NOT NULL
        )
        """
    )
    op.execute(
        """
        CREATE TABLE artesian.sessions (
            cookie_hash text             PRIMARY KEY,
            token_id    text             NOT NULL REFERENCES artesian.tokens,
            begun_s     double precision NOT NULL
        )
        """
    )
    op.execute("CREATE TABLE artesian.secrets (name text PRIMARY KEY, value text NOT NULL)")
    op.execute("CREATE TABLE artesian.token_changes (number bigint NOT NULL)")
    op.execute("CREATE UNIQUE INDEX token_changes_is_one_row ON artesian.token_changes ((true))")
    op.execute("INSERT INTO artesian.token_changes VALUES (0)")
