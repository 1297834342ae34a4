"""How is a client of the obstore package, or of boto3, made for S3, Google Cloud Storage or Azure?

S3 gets its settings from access.py. For the other two obstore reads the environment: GOOGLE_APPLICATION_CREDENTIALS,
AZURE_STORAGE_ACCOUNT_NAME and so on.
"""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

from mx8shards.disk.operations import disk_errors
from mx8shards.errors import RemoteError, require
from mx8shards.remote.access import Access, Keys

CONNECT_S = 10.0

# By default boto3 sends bodies over https in S3's own encoding aws-chunked, with a checksum behind them. Some stores
# with S3's API do not know it; the worst would keep the encoding as part of the object.
_ONLY_REQUIRED = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}


def s3_client(bucket: str, prefix: str, access: Access, keys: Keys | None, region: str, limits: dict[str, Any]) -> Any:
    """A client for the objects of an S3 bucket under a prefix, with these credentials."""
    config: dict[str, Any] = {"region": region, "skip_signature": keys is None}
    if access.endpoint:  # under this name, because the environment variable of this name would take precedence
        config["aws_endpoint_url_s3"] = access.endpoint
    if keys:
        config |= {"access_key_id": keys.key_id, "secret_access_key": keys.secret}
        config |= {"session_token": keys.token} if keys.token else {}
    if access.requester_pays:
        config["request_payer"] = True
    options: dict[str, Any] = {"allow_http": (access.endpoint or "").startswith("http://")}
    if access.ca_bundle:
        with disk_errors("read", Path(access.ca_bundle)):
            options["root_certificate"] = Path(access.ca_bundle).read_bytes()
    return _made("S3Store", bucket, prefix, config, limits, options)


def cloud_client(scheme: str, bucket: str, prefix: str, limits: dict[str, Any]) -> Any:
    """A client for Google Cloud Storage ("gs") or Azure ("az")."""
    options = {"allow_http": True}  # their own endpoints are https; another one is the user's choice
    return _made({"gs": "GCSStore", "az": "AzureStore"}[scheme], bucket, prefix, {}, limits, options)


def boto_client(access: Access, keys: Keys | None, **limits: Any) -> Any:
    """A client of boto3 for what obstore cannot do, with these credentials and these settings of botocore's Config.

    RemoteError of reason "denied" if it refuses the settings of the environment, such as a profile that is not there.
    """
    boto3, botocore = require("boto3", "remote"), require("botocore", "remote")
    exceptions = require("botocore.exceptions", "remote")
    options = limits | _ONLY_REQUIRED | ({"s3": {"addressing_style": "path"}} if access.endpoint else {})
    options |= {"signature_version": botocore.UNSIGNED} if keys is None else {}
    signed = {} if keys is None else {"aws_access_key_id": keys.key_id, "aws_secret_access_key": keys.secret}
    settings = {"endpoint_url": access.endpoint, "region_name": access.region, "verify": access.ca_bundle or None}
    settings |= {"aws_session_token": keys.token if keys else None, **signed}
    failed = ""
    try:  # with a session of its own: the default one is not for several threads
        config = require("botocore.config", "remote").Config(**options)
        made = boto3.Session().client("s3", config=config, **settings)
    except exceptions.BotoCoreError as error:  # its text may contain settings
        failed = type(error).__name__
    else:
        if access.requester_pays:
            made.meta.events.register("before-sign.s3", _say_who_pays)
        return made
    hint = "check the environment variables of the store, such as AWS_PROFILE"
    raise RemoteError(f"the settings of boto3 are refused ({failed})", reason="denied", hint=hint)


def _say_who_pays(request: Any, **_: Any) -> None:
    """Send the header of `requester_pays`: not every method of boto3 has an argument for it."""
    request.headers["x-amz-request-payer"] = "requester"


def limits(attempt_s: float, stalled_s: float, retry_s: float, retries: int) -> dict[str, Any]:
    """The time limits of a client, as obstore takes them. Seconds are rounded up, so that clients can be shared.

    obstore itself begins no retry later than `retry_s` after the beginning.
    """
    whole = timedelta(seconds=math.ceil(attempt_s))
    options = {"timeout": whole, "read_timeout": timedelta(seconds=stalled_s)}
    options["connect_timeout"] = timedelta(seconds=min(CONNECT_S, stalled_s))
    backoff = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5)}
    return {
        "client_options": options,
        "retry_config": {
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=math.ceil(retry_s)),
            "backoff": backoff,
        },
    }


def _made(
    kind: str, bucket: str, prefix: str, config: dict[str, Any], limits: dict[str, Any], options: dict[str, Any]
) -> Any:
    """A client of a class of obstore. Its errors about settings may contain them, so only their class is named."""
    made = getattr(require("obstore.store", "remote"), kind)
    failed = ""
    try:
        merged = limits | {"client_options": limits["client_options"] | options}
        return made(bucket, prefix=prefix or None, config=config or None, **merged)
    except Exception as error:  # noqa: BLE001 — obstore raises its own classes and ValueError
        failed = type(error).__name__
    hint = "check the environment variables of the store, such as credentials and endpoint"
    raise RemoteError(f"the settings of {kind} are refused ({failed})", reason="denied", hint=hint)
