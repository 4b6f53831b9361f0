"""Tokens made on the server's machine, by whoever owns its state folder or database: the first one has to be."""

from artesian.model.views import NewToken, TokenView
from artesian.server.config import StateDir
from artesian.server.tokens import Role, Tokens


class LocalOffice:
    """Makes tokens in a state folder, or in the database of a URL; ``client.Client`` has the same methods for a server's."""

    def __init__(self, state: StateDir, database: str | None) -> None:
        state.create()
        self._tokens = Tokens(database or state.tokens)

    def __enter__(self) -> "LocalOffice":
        return self

    def __exit__(self, *_: object) -> None:
        self._tokens.close()

    def create_token(
        self, *, user: str, role: str, team: str | None = None, lasts_s: float | None = None, note: str = ""
    ) -> NewToken:
        """Make one. Raises TokenError."""
        return self._tokens.create(user=user, role=Role(role), team=team, lasts_s=lasts_s, note=note)

    def tokens(self) -> tuple[TokenView, ...]:
        """Return all."""
        return self._tokens.list()

    def revoke_token(self, id_: str) -> TokenView:
        """Make one worthless. Raises TokenError."""
        return self._tokens.revoke(id_)
