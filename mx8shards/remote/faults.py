"""Why did a request fail, and what may an error message say about it?

An error names the HTTP status and the code of the answer. It never contains the client's text: that has whole URLs,
and those of Azure may contain a signature.
"""

from __future__ import annotations

import re
import ssl
from http import HTTPStatus
from urllib.parse import urlsplit

from mx8shards.errors import RemoteError, error_text
from mx8shards.remote.store import Reason

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_ODD_KEY = re.compile(r'(?s)Path "(.*)"(?: contained empty|: Encountered illegal)')
_KIND = re.compile(r"kind: ([A-Z][A-Za-z]+)")

_REASONS: dict[int, Reason] = {
    404: "missing",
    410: "missing",
    412: "changed",
    416: "changed",  # the object is shorter than it was
    408: "network",
    409: "network",  # S3's answer to two conditional puts at the same time
    425: "network",
    429: "network",
    501: "denied",
}

_KINDS = {
    "Connect": "no connection",
    "Timeout": "no answer in time",
    "Interrupted": "the connection broke",
    "Unknown": "an answer that is not HTTP",
}

_BROKEN: dict[type[OSError], str] = {TimeoutError: "no answer in time", ConnectionResetError: "the connection broke"}

_ON_THE_WAY = (  # their status is 400 or 404, but another attempt may succeed
    *("BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "RequestTimeout"),  # of the request's body
    "NoSuchUpload",  # it was completed, but the answer was lost; or a cleanup removed it
)
# Errors of obstore itself, before a request: they would come again.
_NOT_SENT = ("InvalidPathError", "NotSupportedError", "UnknownConfigurationKeyError")

ANOTHER_REGION = "the bucket is in another region"
_TO_ANOTHER_REGION = (301, 307, 308)
_HOST = re.compile(r"[A-Za-z0-9.:_-]{1,253}")

_NO_OBJECT = ("NoSuchKey", "BlobNotFound", "EntryNotFound")  # other codes of 404 are about the bucket or the endpoint

_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired")
_HINTS = dict.fromkeys(_EXPIRED, "the credentials have expired") | {
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "AuthorizationHeaderMalformed": "set AWS_REGION",
}


def of_client(error: Exception, subject: str) -> RemoteError:
    """The RemoteError for an error of obstore."""
    text = str(error)
    status, kind = (found[1] if (found := pattern.search(text)) else "" for pattern in (_STATUS, _KIND))
    code = code_in(text)
    if type(error).__name__ in ("PreconditionError", "AlreadyExistsError"):
        return of_status(412, code, subject)
    if status:
        return of_status(int(status), code, subject)
    if isinstance(error, FileNotFoundError):
        return of_status(404, code, subject)
    if "redirect" in text:
        return RemoteError(ANOTHER_REGION, subject=subject, reason="denied", hint="set AWS_REGION")
    if type(error).__name__ in _NOT_SENT:
        message = f"obstore refuses the request ({type(error).__name__})"
        odd = _ODD_KEY.search(text)
        hint = f"rename or delete the object {odd[1]!r}: obstore cannot list a key of this form" if odd else ""
        return RemoteError(message, subject=subject, reason="denied", hint=hint)
    return RemoteError(_KINDS.get(kind, f"no answer ({kind or type(error).__name__})"), subject=subject)


def of_connection(error: OSError, subject: str) -> RemoteError:
    """The RemoteError for a connection of our own that failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        message = f"the certificate of the store is not trusted: {error.verify_message}"
        return RemoteError(message, subject=subject, reason="denied", hint="set AWS_CA_BUNDLE")
    return RemoteError(_BROKEN.get(type(error), f"no answer: {error_text(error)}"), subject=subject)


def ignores_ranges(error: Exception) -> bool:
    """Whether an error of obstore says that a request for a part was answered with the whole object."""
    return "NotPartial" in str(error)


def of_redirect(status: int, tells_region: bool, location: str, subject: str) -> RemoteError:
    """The RemoteError for an answer of status 3xx. `tells_region`: it names a region that is not the one asked."""
    if tells_region and status in _TO_ANOTHER_REGION:
        return RemoteError(ANOTHER_REGION, subject=subject, reason="denied", hint="set AWS_REGION")
    try:
        host = urlsplit(location).hostname or ""  # no more of it is shown: it may contain a signature
    except ValueError:
        host = ""
    to = f" to {host}" if _HOST.fullmatch(host) else ""
    rule = ", and redirects are not followed" if location else ""
    message = f"the store answered {_with_phrase(status)}{to}{rule}"
    return RemoteError(message, subject=subject, reason="denied", hint="check the endpoint")


def code_in(text: str) -> str:
    """The code in the body of an error, such as NoSuchKey; "" if it has none."""
    found = _CODE.search(text)
    return found[1] if found else ""


def of_status(status: int, code: str, subject: str, *, hint: str = "") -> RemoteError:
    """The RemoteError for an HTTP answer. Errors of the server (5xx) have reason "network": a retry may succeed."""
    reason = _REASONS.get(status, "denied" if 400 <= status < 500 else "network")
    if code in _ON_THE_WAY:
        reason = "network"
    if reason == "denied" and not hint:
        hint = _HINTS.get(code, "check credentials, region and endpoint")
    if reason == "missing":
        hint = "" if code in _NO_OBJECT else hint or "check bucket and endpoint"
    message = f"the store answered {_with_phrase(status)}" + (f", {code}" if code else "")
    return RemoteError(message, subject=subject, reason=reason, hint=hint)


def _with_phrase(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else 'unknown status'}"
