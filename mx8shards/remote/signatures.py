"""How is a GET request signed for S3? By AWS Signature Version 4, in headers: no URL contains a secret."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from functools import reduce

from mx8shards.remote.access import Keys

_NO_BODY = hashlib.sha256(b"").hexdigest()
_ALGORITHM = "AWS4-HMAC-SHA256"


def signed_headers(path: str, headers: dict[str, str], keys: Keys, region: str, at: datetime) -> dict[str, str]:
    """The headers of a GET request, with those of the signature.

    Args:
        path: The path of the URL, escaped as it is sent.
        headers: All headers that are signed. Their names are in lower case; "host" is one of them.
        keys: The credentials.
        region: The region of the bucket.
        at: The time, in UTC. S3 accepts the signature for 15 minutes.
    """
    time, day = at.strftime("%Y%m%dT%H%M%SZ"), at.strftime("%Y%m%d")
    facts = headers | {"x-amz-content-sha256": _NO_BODY, "x-amz-date": time}
    facts |= {"x-amz-security-token": keys.token} if keys.token else {}
    names = ";".join(sorted(facts))
    lines = "".join(f"{name}:{facts[name].strip()}\n" for name in sorted(facts))
    request = f"GET\n{path}\n\n{lines}\n{names}\n{_NO_BODY}"
    scope = f"{day}/{region}/s3/aws4_request"
    text = f"{_ALGORITHM}\n{time}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = reduce(_hmac, scope.split("/"), f"AWS4{keys.secret}".encode())
    proof = f"Credential={keys.key_id}/{scope}, SignedHeaders={names}, Signature={_hmac(key, text).hex()}"
    return facts | {"authorization": f"{_ALGORITHM} {proof}"}


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
