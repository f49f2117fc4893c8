"""From an exchange to an entry of the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.adapters.messages import HOP_BY_HOP, Request, TooLargeError, decode
from nemo_evaluator.adapters.redaction import (
    REDACTED,
    hide_secrets,
    is_credential_name,
    is_secret_header,
    redact_text,
    secrets_of,
)
from nemo_evaluator.adapters.sample import sample_of
from nemo_evaluator.adapters.store.entry import NewEntry
from nemo_evaluator.adapters.store.identity import Identity
from nemo_evaluator.adapters.store.packing import Told
from nemo_evaluator.adapters.usable import error_message, parse_json

_SHORTEST_SECRET = 8
_LARGEST_ERROR = 16 * 1024 * 1024
_FIRST_ERROR = 400
_MOST_KNOWN = 64
_HIDDEN = REDACTED.encode()

# They are about the moment, the connection or the harness, and would mislead whoever gets the answer again.
_NOT_KEPT = HOP_BY_HOP | {
    "age", "alt-svc", "cf-ray", "content-length", "date", "expires", "last-modified", "nel", "report-to", "retry-after",
    "server-timing", "set-cookie", "set-cookie2", "strict-transport-security", "vary", "via",
}  # fmt: skip
_RATE_LIMIT = ("ratelimit", "x-ratelimit")


class Observer:
    """Makes entries of exchanges, without the secrets of the run.

    Args:
        environ: the environment; values under credential-like names are taken out of the texts of failures, where
            endpoints like to repeat keys.
        secrets: those that only the endpoint gets; they are taken out of everything. In answers that are usable a word
            of letters only is none, since a replayed answer has to be what was sent.
    """

    def __init__(self, environ: Mapping[str, str], *, secrets: Iterable[str] = ()) -> None:
        own = sorted((secret for secret in secrets if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True)
        self._own = tuple(secret.encode(errors="surrogateescape") for secret in own if not secret.isalpha())
        named = (
            value for name, value in environ.items() if len(value) >= _SHORTEST_SECRET and is_credential_name(name)
        )
        self._secrets = (*own, *named)
        self._known: dict[str, bool] = {}

    def answered(
        self, request: Request, identity: Identity, exchange: Exchange, body: bytes, headers: Iterable[tuple[str, str]]
    ) -> NewEntry:
        """The entry of an exchange that is over, or that nobody waits for any more.

        Args:
            request: as it was sent.
            identity: of the request.
            exchange: what is known about it.
            body: what came of the answer, as on the wire.
            headers: of the answer.
        """
        kept = [(name, value) for name, value in headers if _is_kept(name)]
        entry = self._entry(request, identity, exchange.facts, kept)
        entry.status = exchange.status
        entry.is_usable = exchange.is_usable
        entry.seconds = exchange.seconds
        entry.first_byte_seconds = exchange.first_byte_seconds
        entry.cost = exchange.cost
        entry.response = body
        entry.response_bytes = exchange.received or len(body)
        if not exchange.is_usable:
            self._not_usable(entry, request, exchange)
            if exchange.is_over and exchange.failure is None:
                entry.told = Told(exchange.status, message=(exchange.flaw and entry.problem) or "")
        self._hide(entry, request)
        return entry

    def failed(self, request: Request, identity: Identity, problem: str, *, seconds: float) -> NewEntry:
        """The entry of an exchange that brought no answer.

        Args:
            request: as it was sent.
            identity: of the request.
            problem: why there is none, without secrets.
            seconds: how long it took.
        """
        entry = self._entry(request, identity, AnswerFacts(), [])
        entry.problem = problem
        entry.seconds = seconds
        self._hide(entry, request)
        return entry

    def _entry(
        self, request: Request, identity: Identity, facts: AnswerFacts, headers: list[tuple[str, str]]
    ) -> NewEntry:
        body = request.body
        return NewEntry(
            upstream=request.upstream,
            address=identity.address,
            time=0.0,
            status=0,
            is_usable=False,
            sample=sample_of(request),
            identity=identity,
            request_id=request.id,
            attempt=request.attempt,
            facts=facts,
            headers=headers,
            request=body,
            request_bytes=len(body),
        )

    def _not_usable(self, entry: NewEntry, request: Request, exchange: Exchange) -> None:
        """Say why, and keep the text without what endpoints like to repeat in errors: keys."""
        coding = next((value for name, value in entry.headers if name.lower() == "content-encoding"), "")
        body = entry.response or b""
        try:
            body = decode(body, coding, limit=_LARGEST_ERROR)
        except (ValueError, TooLargeError):
            # What is packed may hide anything.
            body = b"" if coding else body
        secrets = secrets_of(request.headers.items(), request.url).union(self._secrets)
        text = body.decode(errors="surrogateescape")
        entry.response = hide_secrets(text, secrets).encode(errors="surrogateescape")
        entry.headers = [(name, value) for name, value in entry.headers if name.lower() != "content-encoding"]
        problem = exchange.failure or exchange.flaw
        if problem is None:
            problem = f"status {exchange.status}"
            if exchange.status >= _FIRST_ERROR and body:
                problem += f": {_said(body)}"
        entry.problem = redact_text(problem, secrets)

    def _hide(self, entry: NewEntry, request: Request) -> None:
        """Take the keys out of the texts; an answer that has one is not given again."""
        authorization = request.headers.get("Authorization")
        credential = _credential(authorization) if authorization else ""
        has_credential = len(credential) >= _SHORTEST_SECRET
        self._hide_headers(entry, credential if has_credential else None)
        keys = self._own
        if has_credential and self._is_key(credential):
            keys = (*keys, credential.encode(errors="surrogateescape"))
        for key in keys:
            if entry.request and key in entry.request:
                entry.request = entry.request.replace(key, _HIDDEN)
            if entry.response and key in entry.response:
                entry.response = entry.response.replace(key, _HIDDEN)
                entry.identity = None

    def _is_key(self, credential: str) -> bool:
        """Whether what a harness sends is a key: endpoints without keys are sent any word, which texts may have."""
        if credential not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[credential] = not credential.isalpha() and (
                credential in self._secrets or hide_secrets(credential) != credential
            )
        return self._known[credential]

    def _hide_headers(self, entry: NewEntry, key: str | None) -> None:
        """Leave out the headers in which the endpoint repeats a secret."""
        secrets = self._secrets if key is None else (*self._secrets, key)
        values = "\n".join([value for _, value in entry.headers])
        repeated = [secret for secret in secrets if secret in values]
        if repeated:
            entry.headers = [
                (name, value) for name, value in entry.headers if not any(secret in value for secret in repeated)
            ]


def _said(body: bytes) -> str:
    try:
        return error_message(parse_json(body))
    except ValueError:
        return body[:1000].decode(errors="replace")


@lru_cache(maxsize=64)
def _credential(authorization: str) -> str:
    return authorization.partition(" ")[2] or authorization


@lru_cache(maxsize=1024)
def _is_kept(name: str) -> bool:
    lower = name.lower()
    return lower not in _NOT_KEPT and not lower.startswith(_RATE_LIMIT) and not is_secret_header(lower, "")
