"""Is a request signed as the documentation of S3 shows it?"""

from __future__ import annotations

from datetime import UTC, datetime

from mx8shards.remote.access import Keys
from mx8shards.remote.signatures import signed_headers

KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None)
AT = datetime(2013, 5, 24, tzinfo=UTC)
HEADERS = {"host": "examplebucket.s3.amazonaws.com", "range": "bytes=0-9"}


def test_the_documented_request_has_the_documented_signature() -> None:
    found = signed_headers("/test.txt", HEADERS, KEYS, "us-east-1", AT)
    assert found["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
    assert found["x-amz-date"] == "20130524T000000Z"


def test_a_session_token_is_sent_and_signed() -> None:
    found = signed_headers("/test.txt", HEADERS, KEYS._replace(token="token"), "us-east-1", AT)
    assert found["x-amz-security-token"] == "token"
    assert ";x-amz-security-token, Signature=" in found["authorization"]
