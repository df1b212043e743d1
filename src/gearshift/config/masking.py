"""Showing values without showing secrets.

Two ways, used together. A value is *shown as it stands in the file*, before ``${VAR}`` is replaced,
and with what its key or its form says is a password masked. A text that somebody else wrote (a
plugin's error) is *redacted*: every secret that this configuration is known to hold is cut out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, unquote

__all__ = ["MASK", "REFERENCE", "Redactor", "is_secret_key", "mask_url", "shown"]

MASK = "***"

#: A ``${VAR}`` that is not escaped as ``$${VAR}``.
REFERENCE = r"(?<!\$)\$\{[A-Za-z_][A-Za-z0-9_]*\}"

_ONLY_REFERENCES = re.compile(rf"(?:{REFERENCE})+")
_SECRET_NAME = (
    r"(?:pas+w|pwd|passphrase|secret|token|credential|jaas|key[._-]?pem"
    r"|(?:api|access|private|account)[._-]?key)"
)
_SECRET_KEY = re.compile(_SECRET_NAME, re.IGNORECASE)
_PARAMETER = re.compile(
    rf"""{_SECRET_NAME}[\w.-]*\s*=\s*("[^"]*"|'[^']*'|[^\s&;,]+)""", re.IGNORECASE
)
_PORT = re.compile(r"\d{1,5}(?![^/,?#])")
_ADDRESS = re.compile(rf"(?:\[[^\]]*\]|{REFERENCE}|[\w.-])*(?::(?:\d+|{REFERENCE}))?(?![^/,?#\s])")
_LONGEST = 160
_SHORTEST = 4


def is_secret_key(key: object) -> bool:
    """True if a key's name says that its value is a password, token or private key."""
    return isinstance(key, str) and bool(_SECRET_KEY.search(key))


def mask_url(text: str) -> str:
    """Mask the password of ``scheme://user:PASSWORD@host`` and of ``...password=PASSWORD``.

    Meant for whole values that may be malformed: an unescaped ``/`` or ``@`` in the password, a
    missing scheme or a missing host must not bring it to light, so it rather masks too much.
    """
    for start, end in reversed(_secret_spans(text)):
        text = text[:start] + MASK + text[end:]
    return text


def shown(value: object, *, secret: bool = False) -> str:
    """``value`` in the notation of TOML, on one line, shortened, secrets masked."""
    text = _literal(value, secret)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


class Redactor:
    """Knows the secrets of one configuration and cuts them out of any text."""

    __slots__ = ("_secrets", "_suspects")

    def __init__(self) -> None:
        self._secrets: frozenset[str] = frozenset()  # replaced, so that other threads may read
        self._suspects: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return "Redactor()"

    def learn(self, secret: str) -> None:
        """Remember a secret, in every spelling in which a message could repeat it."""
        self._secrets |= _spellings(secret)

    def suspect(self, text: str) -> None:
        """Treat ``text`` as a secret until it turns out to be an address."""
        self._suspects |= {text}

    def without_short(self) -> Redactor:
        """One that knows only what a text can lose and still be read."""
        other = Redactor()
        other._secrets = frozenset(text for text in self._secrets if len(text) >= _SHORTEST)
        return other

    def clear(self, endpoints: Iterable[tuple[str, int]]) -> None:
        """Show these hosts and ports, unless they are known to be secret for another reason."""
        for host, port in endpoints:
            self._suspects -= {host, str(port), f"{host}:{port}", f"[{host}]:{port}"}

    def learn_from(self, value: object, *, secret: bool = False) -> None:
        """Remember what the keys and the form of a setting say is secret."""
        if isinstance(value, Mapping):
            for key, inner in value.items():
                self.learn_from(key)
                self.learn_from(inner, secret=secret or is_secret_key(key))
        elif isinstance(value, list):
            for inner in value:
                self.learn_from(inner, secret=secret)
        elif secret and isinstance(value, str | int | float):
            if not _ONLY_REFERENCES.fullmatch(str(value)):
                self.learn(str(value))
        elif isinstance(value, str):
            for start, end in _secret_spans(value):
                self.learn(value[start:end])

    def redact(self, text: str) -> str:
        """``text`` without any known secret, or the beginning of a long one."""
        secrets = self._secrets.union(*map(_spellings, self._suspects))
        if not secrets:
            return text
        longest_first = sorted(secrets, key=len, reverse=True)
        text = re.sub("|".join(map(re.escape, longest_first)), MASK, text)
        for secret in longest_first:
            text = _cut_beginning(text, secret)
        return text


def _spellings(secret: str) -> set[str]:
    texts = (secret, unquote(secret))
    spelt = [s for t in texts for s in (t, quote(t, safe=""), quote(t), repr(t)[1:-1])]
    return {text for text in spelt if text}


def _cut_beginning(text: str, secret: str) -> str:
    """Mask ``secret`` where a message has cut it short, as ``value[:10]`` does."""
    for length in range(len(secret) - 1, 7, -1):
        if secret[:length] in text:
            return text.replace(secret[:length], MASK)
    return text


def _secret_spans(text: str) -> list[tuple[int, int]]:
    """The places of passwords in ``text``, in order, apart from each other."""
    spans = [match.span(1) for match in _PARAMETER.finditer(text)]
    if url := _url_password(text):
        spans = [span for span in spans if span[1] <= url[0] or span[0] >= url[1]]
        spans.append(url)
    return sorted(span for span in spans if not _ONLY_REFERENCES.fullmatch(text, *span))


def _url_password(text: str) -> tuple[int, int] | None:
    """The place between the first ':' of the credentials and the last '@', if anything."""
    scheme, at = text.find("://"), text.rfind("@")
    start = scheme + 3 if scheme >= 0 else 0
    end = at if at >= start else len(text)
    colon = text.find(":", start, end)
    if at >= start and not _ADDRESS.match(text, at + 1):
        end = len(text)  # that '@' was part of a password, and the host is missing
    if colon < 0 or colon + 1 == end:
        return None
    if at < start and (scheme < 0 or text[start] == "[" or _PORT.match(text, colon + 1)):
        return None  # no credentials: host:port, [IPv6]:port
    return colon + 1, end


def _literal(value: object, secret: bool) -> str:
    if isinstance(value, Mapping):
        inner = (f"{_key(k)} = {_literal(v, secret or is_secret_key(k))}" for k, v in value.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "[" + ", ".join(_literal(item, secret) for item in value) + "]"
    if value is None:
        return "none"
    if isinstance(value, bool) and not secret:
        return str(value).lower()
    if isinstance(value, int | float) and not secret:
        return str(value)
    text = str(value)
    if secret and text and not _ONLY_REFERENCES.fullmatch(text):
        return MASK
    return json.dumps(mask_url(text), ensure_ascii=not text.isprintable())


def _key(key: object) -> str:
    text = str(key)
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else json.dumps(text)
