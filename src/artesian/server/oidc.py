"""Single sign-on for the dashboard: OpenID Connect's code flow with PKCE, then a signed session cookie.

The identity provider says who somebody is; which groups may do what stands in ``[oidc]`` of artesian.toml.
Programs use tokens instead.
"""

import secrets
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import httpx
from authlib.common.security import generate_token
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from itsdangerous import BadSignature, URLSafeTimedSerializer
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse

from artesian.server.oidc_settings import SESSION, OidcSettings
from artesian.server.problems import Problem
from artesian.server.tokens import Principal, Role


def _oauth_http_error() -> type[Exception]:
    """Return the error of the HTTP library below authlib: httpx2 where that is installed, else httpx."""
    module = next(cls.__module__ for cls in AsyncOAuth2Client.__mro__ if cls.__module__.startswith("httpx"))
    found: type[Exception] = import_module(module.partition(".")[0]).HTTPError
    return found


_NETWORK_ERRORS: tuple[type[Exception], ...] = (httpx.HTTPError, _oauth_http_error())
LOGIN = "artesian_login"
_LOGIN_S = 600
_METADATA_S = 3600.0
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
"""Of ID tokens: signatures by a key pair only."""


class Oidc:
    """Logs people in."""

    def __init__(self, settings: OidcSettings, key: str) -> None:
        self._settings = settings
        self._secret = settings.secret()
        self._sessions = URLSafeTimedSerializer(key, salt="session")
        self._logins = URLSafeTimedSerializer(key, salt="login")
        self._is_secure = settings.public_url.startswith("https:")
        self._redirect = f"{settings.public_url.rstrip('/')}/login/callback"
        self._metadata: dict[str, Any] = {}
        self._metadata_s = 0.0

    # -- sessions -----------------------------------------------------------------------------------

    def session(self, request: HTTPConnection) -> Principal | None:
        """Return who the session cookie says; None where there is none, or it is too old, or forged."""
        cookie = request.cookies.get(SESSION)
        if cookie is None:
            return None
        try:
            found = self._sessions.loads(cookie, max_age=int(self._settings.session_hours * 3600))
        except BadSignature:
            return None
        return Principal(user=found["user"], role=Role(found["role"]), team=found["team"])

    # -- logging in ---------------------------------------------------------------------------------

    async def begin(self, goal: str) -> RedirectResponse:
        """Send somebody to the provider; they come back to ``goal``, a path of ours."""
        metadata = await self._provider()
        verifier = generate_token(48)
        login = {"verifier": verifier, "nonce": generate_token(24), "goal": goal if is_local(goal) else "/"}
        async with self._client() as client:
            url, state = client.create_authorization_url(
                metadata["authorization_endpoint"],
                nonce=login["nonce"],
                code_challenge=create_s256_code_challenge(verifier),
                code_challenge_method="S256",
            )
        response = RedirectResponse(url, 303)
        self._set(response, LOGIN, self._logins.dumps({**login, "state": state}), _LOGIN_S)
        return response

    async def finish(self, request: Request) -> RedirectResponse:
        """Take the provider's word for who somebody is, and give them a session. Raises Problem."""
        try:
            login = self._logins.loads(request.cookies.get(LOGIN, ""), max_age=_LOGIN_S)
        except BadSignature as error:
            raise _failed("it was begun too long ago, or in another browser") from error
        given = request.query_params
        if not secrets.compare_digest(given.get("state", "").encode(), login["state"].encode()):
            raise _failed("the answer is of another login")
        if "code" not in given:
            raise _failed(f"the provider says {given.get('error', 'nothing')!r}")
        claims = await self._claims(given["code"], login)
        who = self._principal(claims)
        response = RedirectResponse(login["goal"], 303)
        session = {"user": who.user, "role": who.role.value, "team": who.team}
        self._set(response, SESSION, self._sessions.dumps(session), int(self._settings.session_hours * 3600))
        response.delete_cookie(LOGIN)
        return response

    async def _claims(self, code: str, login: Mapping[str, str]) -> Mapping[str, Any]:
        metadata = await self._provider()
        try:
            async with self._client() as client:
                token = await client.fetch_token(
                    metadata["token_endpoint"], code=code, code_verifier=login["verifier"]
                )
            async with httpx.AsyncClient(
                timeout=10.0
            ) as plain:  # the keys are for everybody: it sends no token
                keys = (await plain.get(metadata["jwks_uri"])).raise_for_status().json()
            claims: Mapping[str, Any] = jwt.decode(
                token["id_token"], KeySet.import_key_set(keys), algorithms=_ALGORITHMS
            ).claims
            jwt.JWTClaimsRegistry(
                leeway=60,
                iss={"essential": True, "value": metadata["issuer"]},
                aud={"essential": True, "value": self._settings.client_id},
                exp={"essential": True},
                nonce={"essential": True, "value": login["nonce"]},
            ).validate(dict(claims))
        except (OAuthError, JoseError, *_NETWORK_ERRORS, KeyError, ValueError) as error:
            raise _failed(f"the provider's answer is not good: {type(error).__name__}") from error
        return claims

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        settings = self._settings
        user = claims.get(settings.user_claim)
        if not isinstance(user, str) or not user:
            raise _failed(f"the provider does not tell the claim {settings.user_claim!r}")
        groups = claims.get(settings.role_claim) or []
        names = {groups} if isinstance(groups, str) else set(map(str, groups))
        roles = [Role(role) for name, role in settings.roles.items() if name in names]
        if settings.default_role:
            roles.append(Role(settings.default_role))
        if not roles:
            raise Problem(403, "forbidden", f"{user} is in no group that may come in")
        best = max(roles, key=list(Role).index)
        team = claims.get(settings.team_claim) if settings.team_claim else None
        return Principal(user=user, role=best, team=None if team is None else str(team))

    async def _provider(self) -> Mapping[str, Any]:
        """Return the provider's description of itself, asked for once an hour."""
        if time.monotonic() - self._metadata_s > _METADATA_S or not self._metadata:
            url = f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration"
            try:
                async with httpx.AsyncClient(timeout=10.0) as client:
                    found = (await client.get(url)).raise_for_status().json()
            except (httpx.HTTPError, ValueError) as error:
                raise Problem(
                    502, "no-provider", f"the provider {self._settings.issuer} does not answer"
                ) from error
            if found.get("issuer", "").rstrip("/") != self._settings.issuer.rstrip("/"):
                raise Problem(
                    502, "no-provider", f"{url}: expected the issuer itself, got {found.get('issuer')!r}"
                )
            self._metadata, self._metadata_s = found, time.monotonic()
        return self._metadata

    def _client(self) -> AsyncOAuth2Client:
        return AsyncOAuth2Client(
            client_id=self._settings.client_id,
            client_secret=self._secret,
            token_endpoint_auth_method="client_secret_basic" if self._secret else "none",
            scope="openid profile email",
            redirect_uri=self._redirect,
            timeout=10.0,
        )

    def _set(self, response: RedirectResponse, name: str, value: str, age_s: int) -> None:
        # Lax: a link from elsewhere finds one logged in, a form from elsewhere does not.
        response.set_cookie(
            name, value, max_age=age_s, httponly=True, secure=self._is_secure, samesite="lax", path="/"
        )


def is_local(goal: str) -> bool:
    """Whether the path leads to a page of ours: ``//evil.example`` does not."""
    return goal.startswith("/") and not goal.startswith(("//", "/\\")) and goal.isprintable()


def _failed(why: str) -> Problem:
    return Problem(401, "login-failed", f"the login failed: {why}", hint="try again: /login")
