"""Finds out with a few small requests whether an endpoint is there, lets us in, and is of the declared type."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from nemo_evaluator.adapters.redaction import redact_text, redact_url, secrets_of
from nemo_evaluator.adapters.tls import is_loopback
from nemo_evaluator.adapters.upstream import Upstream
from nemo_evaluator.core import endpoint_forms as forms
from nemo_evaluator.core.endpoint_forms import Kind
from nemo_evaluator.core.http_exchange import HttpClient, NoAnswerError, Reply
from nemo_evaluator.core.stop_signal import StopSignal
from nemo_evaluator.suggest import nearest

POLL_SECONDS = 0.5
BUSY_TRIES = 3
MAX_RETRY_AFTER_SECONDS = 5.0
MAX_LISTED_MODELS = 10
MIN_TOKENS_ELSEWHERE = 16
"""The smallest limit on tokens that servers with a minimum take (OpenAI's Responses API, Azure)."""

_NO_KEY = (401, 403)
_NO_SUCH_PATH = (404, 405, 501)
_REDIRECTIONS = range(300, 400)
_INVALID = (400, 404, 422)
_BUSY = (408, 409, 425, 429, 500, *range(502, 600))
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))


@dataclass(slots=True)
class Verdict:
    """What one URL turned out to be: it works, or there is a problem, or there is nothing at this path."""

    works: bool = False
    problem: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Finding:
    """The URL to use, what is wrong with the endpoint (None: nothing), and what the user should know."""

    url: str
    problem: str | None = None
    notes: tuple[str, ...] = ()


class EndpointProbe:
    """Requests to one endpoint.

    Args:
        client: has the key and the time limit.
        model_id: the model to ask for.
        key_name: the variable that the key came from, for messages.
        wait: seconds to go on trying while nothing listens.
        notify: called with a sentence for the user while something takes long.
        stop: ends the waiting early.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        model_id: str,
        key_name: str | None,
        wait: float,
        notify: Callable[[str], None],
        stop: StopSignal,
    ) -> None:
        self._client = client
        self._model_id = model_id
        self._key_name = key_name
        self._wait = wait
        self._notify = notify
        self._stop = stop
        self._secrets = {*([client.key] if client.key else []), *secrets_of(client.headers.items(), "")}

    def reach(self, url: str) -> Finding:
        """Whether anything answers at `url`, of whatever type."""
        try:
            self._patiently(lambda: self._client.get(forms.models_url(url)))
        except NoAnswerError as error:
            return Finding(url, problem=self._unreachable(url, error))
        return Finding(url)

    def find(self, url: str, kind: Kind) -> Finding:
        """Whether `url`, or one that is probably meant by it, is an endpoint of this kind."""
        try:
            reply = self.ask(url, forms.smallest_request(kind, self._model_id))
        except NoAnswerError as error:
            return Finding(url, problem=self._unreachable(url, error))
        verdict = self._judge(url, kind, reply)
        if verdict.works or verdict.problem:
            return Finding(url, problem=verdict.problem, notes=tuple(verdict.notes))
        return self._look_elsewhere(url, kind, reply)

    def ask(self, url: str, body: dict[str, Any]) -> Reply:
        """Send `body`, again while the server is busy or not there yet; another name for `max_tokens` where needed.

        Raises:
            NoAnswerError: no answer came in time.
        """
        reply = self._patiently(lambda: self._client.post(url, body))
        if reply.status in _INVALID and "max_tokens" in body and forms.is_about_token_limit(reply):
            other = {key: value for key, value in body.items() if key != "max_tokens"}
            other["max_completion_tokens"] = max(body["max_tokens"], MIN_TOKENS_ELSEWHERE)
            second = self._patiently(lambda: self._client.post(url, other))
            return second if second.status == forms.HTTP_OK else reply
        return reply

    def quote(self, reply: Reply) -> str:
        """Status and message of a refusal, short and without secrets."""
        said = redact_text(forms.refusal(reply), self._secrets)
        return f"HTTP {reply.status}: {said}" if said else f"HTTP {reply.status}"

    def _judge(self, url: str, kind: Kind, reply: Reply) -> Verdict:
        """What the answer to the smallest request says about `url`."""
        if forms.kind_of_answer(reply) == kind:
            return Verdict(works=True)
        if reply.status == forms.HTTP_OK:
            return self._judge_other_answer(url, kind, reply)
        if reply.status in _BUSY:
            return self._judge_busy(url, kind, reply)
        return self._judge_refusal(url, kind, reply)

    def _judge_refusal(self, url: str, kind: Kind, reply: Reply) -> Verdict:
        if reply.status in _NO_KEY:
            return Verdict(problem=self._refused_key(url, reply))
        if reply.status in _INVALID and forms.says_model_is_missing(reply):
            return Verdict(problem=self._missing_model(url, reply))
        if reply.status in _NO_SUCH_PATH or reply.status in _REDIRECTIONS:
            return Verdict()
        if forms.is_about_token_limit(reply):
            note = f"{redact_url(url)} does not take max_tokens=1 ({self.quote(reply)})"
            return Verdict(works=True, notes=[note])
        other = self._other_kind(url, kind)
        if other:
            return Verdict(problem=_wrong_kind(url, kind, other))
        return Verdict(problem=f"{redact_url(url)} refuses the smallest {kind} request ({self.quote(reply)})")

    def _judge_busy(self, url: str, kind: Kind, reply: Reply) -> Verdict:
        # Some servers fail over fields that they miss instead of naming them.
        other = self._other_kind(url, kind) if reply.status == HTTPStatus.INTERNAL_SERVER_ERROR else None
        if other:
            return Verdict(problem=_wrong_kind(url, kind, other))
        note = f"{redact_url(url)} is there but cannot answer now ({self.quote(reply)}); the run starts all the same"
        return Verdict(works=True, notes=[note])

    def _judge_other_answer(self, url: str, kind: Kind, reply: Reply) -> Verdict:
        """A success that is not what a `kind` endpoint answers."""
        other = forms.kind_of_answer(reply) or self._other_kind(url, kind)
        if other:
            return Verdict(problem=_wrong_kind(url, kind, other))
        if "text/event-stream" in reply.headers.get("content-type", ""):
            return Verdict(works=True, notes=[f"{redact_url(url)} streams its answers without being asked to"])
        said = redact_text(forms.refusal(reply), self._secrets)
        return Verdict(problem=f"{redact_url(url)} answers, but not as a {kind} endpoint does: {said}")

    def _look_elsewhere(self, url: str, kind: Kind, reply: Reply) -> Finding:
        """After an answer that there is nothing at `url`: the URLs that may have been meant."""
        urls = list(forms.candidates(url, kind))
        target = forms.redirection(url, reply) if reply.status in _REDIRECTIONS else None
        if target is not None:
            if Upstream(target).origin != Upstream(url).origin:
                return Finding(
                    url,
                    problem=f"{redact_url(url)} sends its clients to {redact_url(target)}; use that URL if you trust "
                    "it (redirections are not followed, because the key would travel with them)",
                )
            urls.insert(0, target)
        for other in urls:
            found = self._once(other, forms.smallest_request(kind, self._model_id))
            verdict = Verdict() if found is None else self._judge(other, kind, found)
            if verdict.works:
                note = f"{redact_url(url)} is not an endpoint ({self.quote(reply)}); using {redact_url(other)}"
                return Finding(other, notes=(note, *verdict.notes))
            if verdict.problem:
                return Finding(url, problem=verdict.problem)
        tried = "".join(f", {redact_url(other)}" for other in urls)
        suffix = forms.SUFFIXES[kind]
        if url.partition("?")[0].rstrip("/").endswith(suffix):
            advice = f"the URL ends as such URLs do: check its host and path, and --model_id ({self._model_id!r})"
        else:
            advice = f"give its full URL, which ends like /v1{suffix}"
        return Finding(
            url,
            problem=f"there is no {kind} endpoint at {redact_url(url)}{tried} ({self.quote(reply)}); "
            f"{advice}{self._hint_at_siblings(url, kind)}",
        )

    def _hint_at_siblings(self, url: str, kind: Kind) -> str:
        for other in forms.KINDS:
            if other != kind and self._answers_as(forms.sibling(url, other), other):
                return (
                    f". There is a {other} endpoint at {redact_url(forms.sibling(url, other))} (--model_type {other})"
                )
        return ""

    def _other_kind(self, url: str, kind: Kind) -> Kind | None:
        """The kind that `url` really is, found by asking."""
        return next((other for other in forms.KINDS if other != kind and self._answers_as(url, other)), None)

    def _answers_as(self, url: str, kind: Kind) -> bool:
        reply = self._once(url, forms.smallest_request(kind, self._model_id))
        return reply is not None and forms.kind_of_answer(reply) == kind

    def _once(self, url: str, body: dict[str, Any]) -> Reply | None:
        self._stop.raise_if_requested()
        try:
            return self._client.post(url, body)
        except NoAnswerError:
            return None

    def _refused_key(self, url: str, reply: Reply) -> str:
        if self._key_name is None:
            return (
                f"{redact_url(url)} wants an API key ({self.quote(reply)}): put it into an environment variable and "
                "give the variable's name (--api_key_name, target.api_endpoint.api_key_name)"
            )
        return (
            f"{redact_url(url)} refuses the key in the variable {self._key_name} ({self.quote(reply)}); "
            f"check the key and whether it may use the model {self._model_id!r}"
        )

    def _missing_model(self, url: str, reply: Reply) -> str:
        try:
            ids = forms.model_ids(self._client.get(forms.models_url(url)))
        except NoAnswerError:
            ids = []
        said = self.quote(reply)
        if self._model_id in ids:
            return f"{redact_url(url)} lists the model {self._model_id!r} but refuses it ({said})"
        if not ids:
            return f"{redact_url(url)} does not serve the model {self._model_id!r} ({said})"
        return (
            f"{redact_url(url)} does not serve the model {self._model_id!r} ({said}); "
            f"it serves {list_names(self._model_id, ids)}; choose one with --model_id"
        )

    def _unreachable(self, url: str, error: NoAnswerError) -> str:
        text = f"the endpoint {redact_url(url)} cannot be reached: {error}"
        if error.trouble == "refused":
            if self._wait:
                text += f", also not after waiting {self._wait:g} s"
            text += "; is the model server running?"
            if is_loopback(Upstream(url).host) and any(mark.exists() for mark in _CONTAINER_MARKS):
                text += (
                    " In a container, localhost is the container itself: use --network host, or the name of the host "
                    "(host.docker.internal)"
                )
        return text

    def _patiently(self, send: Callable[[], Reply]) -> Reply:
        """The answer, waiting while nothing listens and a little while the server is busy."""
        end = time.monotonic() + self._wait
        told = False
        tries = 0
        while True:
            self._stop.raise_if_requested()
            try:
                reply = send()
            except NoAnswerError as error:
                tries += error.trouble == "broken"
                waits = error.trouble == "refused" and time.monotonic() < end
                if not waits and not 0 < tries < BUSY_TRIES:
                    raise
                if waits and not told:
                    told = True
                    self._notify(f"{error}; waiting up to {self._wait:g} s for the endpoint")
                time.sleep(POLL_SECONDS)
                continue
            tries += 1
            if reply.status not in _BUSY or tries >= BUSY_TRIES:
                return reply
            time.sleep(_pause(reply, tries))


def _pause(reply: Reply, tries: int) -> float:
    """Seconds until the next try; Retry-After counts when it is a small number."""
    try:
        wanted = float(reply.headers.get("retry-after", ""))
    except ValueError:
        wanted = POLL_SECONDS * 2**tries
    return min(max(wanted, 0.0), MAX_RETRY_AFTER_SECONDS)


def _wrong_kind(url: str, declared: Kind, other: Kind) -> str:
    return (
        f"{redact_url(url)} is a {other} endpoint, but {declared} is declared: use --model_type {other} "
        f"(target.api_endpoint.type), or the URL of a {declared} endpoint (…{forms.SUFFIXES[declared]})"
    )


def list_names(wanted: str, names: Iterable[str]) -> str:
    """Some of `names`, those nearest to `wanted` first."""
    every = list(names)
    first = nearest(wanted, every)
    ordered = [*first, *(name for name in every if name not in first)]
    shown = ", ".join(repr(name) for name in ordered[:MAX_LISTED_MODELS])
    more = len(ordered) - MAX_LISTED_MODELS
    return f"{shown} and {more} more" if more > 0 else shown
