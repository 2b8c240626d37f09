"""A chat endpoint: one answer to one conversation, whatever the server does."""

import json
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from fairclip.core.errors import UserError, require
from fairclip.core.reading import in_a_line, printable
from fairclip.core.web import NETWORK_ERRORS, asked

TIMEOUT = 120  # seconds for one answer
ATTEMPTS = 8  # of a request that fails or is told to wait
LOST = 2  # of those, how often no connection may come about or hold
LONGEST = 120  # seconds that a server may tell us to wait
LARGEST = 2**22  # bytes of an answer
TEXT = 10**5  # characters of its text
BUSY = (408, 409, 429, 500, 502, 503, 504)
HINTS = {
    401: " Is the key right (OPENAI_API_KEY)?",
    403: " Is the key right (OPENAI_API_KEY)?",
    404: " Are the base URL and the model right?",
}


@dataclass(frozen=True)
class Answer:
    """What a server answered, in bytes, and the seconds it asks us to wait for (None: it does not say)."""

    status: int
    body: bytes
    wait: float | None


@dataclass(frozen=True)
class Endpoint:
    """Where to ask. `url` ends before /chat/completions.

    Raises:
        UserError: an address or a key that cannot be.
    """

    url: str
    model: str
    key: str

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        require(parts.scheme in ("http", "https"), "the base URL has to begin with https:// or http://")
        require("@" not in parts.netloc, "the base URL has a name or password in it: give a key by OPENAI_API_KEY")
        fit = self.key.isascii() and self.key.isprintable() and " " not in self.key
        require(fit, "the key (OPENAI_API_KEY) has spaces, line breaks or characters that no key has")

    def ask(self, messages: Sequence[dict[str, str]]) -> str:
        """The answer to a conversation. Busy and failing servers are asked again, as they say or ever more slowly.

        Raises:
            UserError: no connection, a refusal, or no answer in the expected form. It does not tell the key.
        """
        url = f"{self.url.rstrip('/')}/chat/completions"
        body = json.dumps({"model": self.model, "messages": messages}).encode()
        lost = 0
        for attempt in range(ATTEMPTS):
            try:
                answer = self._post(url, body)
            except NETWORK_ERRORS as error:
                lost += 1
                if lost >= LOST:
                    raise UserError(f"no answer from {self.shown(url)}: {self.shown(in_a_line(error))}") from None
                continue
            if answer.status not in BUSY or attempt + 1 == ATTEMPTS:
                break
            seconds = min(2.0**attempt, LONGEST) if answer.wait is None else answer.wait
            require(seconds <= LONGEST, f"{self.shown(url)} asks to wait for {seconds:,.0f} seconds: run again then")
            time.sleep(seconds)
        text = self.shown(answer.body.decode("utf-8", "replace").strip())
        if answer.status != 200:
            hint = HINTS.get(answer.status, " Is the base URL right?" if answer.status in range(300, 400) else "")
            raise UserError(f"{self.shown(url)} answered {answer.status}: {text}.{hint}")
        try:
            said = json.loads(answer.body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            said = None
        require(isinstance(said, str), f"{self.shown(url)} does not answer like a chat endpoint: {text}")
        require(len(said) <= TEXT, f"{self.shown(url)} answered {len(said):,} characters: that is no list of sentences")
        return said

    def _post(self, url: str, body: bytes) -> Answer:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        # Redirects are not followed: the key is for this server.
        with asked(url, headers, TIMEOUT, body, follow=False) as (response, watch):
            content = response.read(LARGEST + 1)
            watch.check()
            encoding = response.headers.get("Content-Encoding", "identity")
            if len(content) > LARGEST:
                raise ValueError(f"it is longer than {LARGEST:,} bytes")
            if encoding.strip().lower() not in ("identity", ""):
                raise ValueError(f"it is compressed ({encoding}), which was not asked for")
            return Answer(response.status, content, seconds_to_wait(response.headers.get("Retry-After")))

    def shown(self, text: str) -> str:
        """The start of a text for people, without the key, in one line that steers no terminal."""
        forms = {self.key, urllib.parse.quote(self.key, safe=""), json.dumps(self.key)[1:-1]} - {""}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "<key>")
        return printable(text)


def seconds_to_wait(header: str | None) -> float | None:
    """What Retry-After says, in seconds from now; None if it says nothing that makes sense."""
    try:
        return max(0.0, float(int(header or "")))
    except (ValueError, OverflowError):
        pass
    try:
        return max(0.0, parsedate_to_datetime(header or "").timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, AttributeError, IndexError):
        return None
