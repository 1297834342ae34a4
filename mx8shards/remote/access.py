"""Which endpoint, region and credentials are used for an S3 bucket? Both engines get their settings from here.

Settings come from the environment and from the profile in ~/.aws; credentials from the environment, or from
boto3's chain (profiles, SSO, roles, instance metadata), which also refreshes them. Without credentials, requests are
not signed, which is how public buckets are read. Nothing here is pickled: another process loads its own.
"""

from __future__ import annotations

import configparser
import http.client
import os
import re
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from mx8shards.errors import RemoteError, SettingError, require

_PLAIN_URL = re.compile(r'[!"$->@-~]+')  # printable ASCII without "#" and "?"
_REGION_S = 10.0  # the time limit for asking for a bucket's region

_ENDPOINTS = ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_OF_PROFILE = ("region", "endpoint_url", "ca_bundle", "services")
_ANONYMOUS = ("AWS_SKIP_SIGNATURE", "AWS_NO_SIGN_REQUEST")


class Keys(NamedTuple):
    """Credentials at one moment. They are never shown and never pickled."""

    key_id: str
    secret: str
    token: str | None

    def __repr__(self) -> str:
        return "Keys(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials are not pickled")


class Access:
    """Endpoint, region and credentials of S3, resolved when it is made. It is thread-safe.

    Attributes:
        endpoint: The URL of an S3-compatible store; None for AWS.
        region: Its region. If it is not the bucket's, `find_region` corrects it.
        ca_bundle: A file of certificates to trust, besides those of the system; "" for none.
        requester_pays: Whether the requester, not the owner of the bucket, pays for requests.
    """

    def __init__(self) -> None:
        profile = _profile()
        endpoint = _first(_ENDPOINTS) or profile.get("endpoint_url")
        self.endpoint = checked_endpoint(" or ".join(_ENDPOINTS), endpoint) if endpoint else None
        self.region = _first(_REGIONS) or profile.get("region") or "us-east-1"
        self.ca_bundle = os.environ.get("AWS_CA_BUNDLE") or profile.get("ca_bundle") or ""
        self.requester_pays = os.environ.get("AWS_REQUEST_PAYER", "").lower() in ("requester", "true")
        self._anonymous = any(os.environ.get(name, "").lower() in ("1", "true", "yes") for name in _ANONYMOUS)
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._source: Any = None if self._anonymous else _credentials()

    def __repr__(self) -> str:
        return f"Access(endpoint={self.endpoint!r}, region={self.region!r})"

    def __reduce__(self) -> tuple[type[Access], tuple[()]]:
        return Access, ()

    def keys(self) -> Keys | None:
        """The credentials of this moment, refreshed if they expire soon. None if requests are not signed."""
        with self._lock:
            source = self._source
            if source is None or isinstance(source, Keys):
                return source and _checked(source)
            try:
                frozen = source.get_frozen_credentials()
            except Exception as error:  # noqa: BLE001 — botocore's, urllib3's and a credential process's errors
                raise _not_loaded(error) from None
            return _checked(Keys(frozen.access_key, frozen.secret_key, frozen.token))

    def renew(self, refused: Keys | None) -> bool:
        """Load the credentials again, because the store refused these. Returns whether they are others now."""
        if self._anonymous:
            return False
        with self._renewing:
            if self.keys() == refused:  # otherwise another thread has renewed them meanwhile
                source = _credentials()
                with self._lock:
                    self._source = source
        return self.keys() != refused

    def find_region(self, bucket: str, refused: str) -> bool:
        """Ask AWS for the region of a bucket, which any endpoint tells. Returns whether it is not the refused one."""
        base = self.endpoint or f"https://s3.{self.region}.amazonaws.com"
        request = urllib.request.Request(f"{base}/{bucket}", method="HEAD")  # noqa: S310 — http or https, see above
        context = ssl.create_default_context(cafile=self.ca_bundle or None)
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))
        try:
            with opener.open(request, timeout=_REGION_S) as answer:
                headers = answer.headers
        except urllib.error.HTTPError as answer:  # without a signature, the answer is an error, but it has the header
            headers = answer.headers
            answer.close()
        except (OSError, http.client.HTTPException):
            return False
        found = headers.get("x-amz-bucket-region") or ""
        if re.fullmatch(r"[a-z0-9-]{1,32}", found):
            self.region = found
        return self.region != refused


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow no redirect: the redirecting answer itself names the region."""


def _first(names: tuple[str, ...]) -> str | None:
    """The value of the first of these environment variables that is set."""
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def checked_endpoint(setting: str, endpoint: str) -> str:
    """The URL of an endpoint, without a slash at its end. SettingError if it is no URL or contains credentials."""
    try:
        parts = urlsplit(endpoint)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:  # also of a port that is no number up to 65535
        good = False
    if not good or not _PLAIN_URL.fullmatch(endpoint):  # the value is not shown: it may contain a password
        expected = "an http:// or https:// URL of ASCII characters, without user, password, space, '?' and '#'"
        raise SettingError(subject=setting, expected=expected, found="another value")
    return endpoint.rstrip("/")


def _profile() -> dict[str, str]:
    """Region, endpoint and certificates of the profile, as boto3 finds them. Importing boto3 would take 0.5 s."""
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    config = _sections("AWS_CONFIG_FILE", "~/.aws/config")
    credentials = _sections("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    found = config.get(f"profile {name}") or config.get(name, {})
    found |= {key: value for key, value in credentials.get(name, {}).items() if key in _OF_PROFILE}
    services = config.get(f"services {found.get('services')}", {})
    return found | _endpoint_in(services.get("s3", ""))


def _sections(variable: str, usual: str) -> dict[str, dict[str, str]]:
    """The sections of a file that an environment variable names. boto3 reports a broken file where it needs one."""
    config = configparser.RawConfigParser()
    try:
        config.read(Path(os.environ.get(variable) or usual).expanduser(), encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        return {}
    return {title: dict(config[title]) for title in config.sections()}


def _endpoint_in(service: str) -> dict[str, str]:
    """The endpoint among the indented lines that belong to one service; an empty dict without one."""
    pairs = (line.partition("=") for line in service.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip() == "endpoint_url"}


def _credentials() -> Any:
    """Keys of the environment, credentials of boto3's chain, or None if there are none."""
    key_id, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if key_id and secret:  # boto3 prefers them too
        return Keys(key_id, secret, os.environ.get("AWS_SESSION_TOKEN") or None)
    boto3 = require("boto3", "remote")
    try:
        return boto3.Session().get_credentials()
    except Exception as error:  # noqa: BLE001 — as in `keys`
        raise _not_loaded(error) from None


def _checked(keys: Keys) -> Keys:
    """The credentials. RemoteError if a header cannot contain them: a line end would begin another header."""
    if not all(part.isascii() and part.isprintable() for part in keys if part):
        message = "the AWS credentials contain a character that no key has, such as a line end"
        raise RemoteError(message, reason="denied", hint="set them again, without characters that were copied along")
    return keys


def _not_loaded(error: Exception) -> RemoteError:
    """The error for credentials that cannot be loaded. Only the class is named: a message could contain secrets."""
    hint = "try: aws sts get-caller-identity"
    return RemoteError(f"the AWS credentials cannot be loaded ({type(error).__name__})", reason="denied", hint=hint)
