"""Small functions that programs import from `streaming.base.util`."""

from __future__ import annotations

import functools
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from mx8shards.errors import SettingError, shown


def get_list_arg(text: str) -> list[str]:
    """The items of a text such as `"a,b"`.

    Args:
        text: The items, joined by commas.
    """
    return text.split(",") if text else []


def wait_for_file_to_exist(filename: str, poll_interval: float, timeout: float, err_msg: str) -> None:
    """Wait for a file; RuntimeError after `timeout`.

    Args:
        filename: Its path.
        poll_interval: The seconds between two looks.
        timeout: For how many seconds to wait.
        err_msg: The message of the error.
    """
    deadline = time.monotonic() + timeout
    while not os.path.exists(filename):  # noqa: PTH110 - a str
        if time.monotonic() > deadline:
            raise RuntimeError(f"{err_msg} It did not come within {timeout:.3f} s.")
        time.sleep(poll_interval)


def clean_stale_shared_memory() -> None:
    """Nothing: mx8shards has no named shared memory that could be left over."""


def get_import_exception_message(package_name: str, extra_deps: str) -> str:
    """The message for a package that is missing.

    Args:
        package_name: The package.
        extra_deps: The extra that installs it.
    """
    return f'{package_name} is not installed: pip install "mx8shards[{extra_deps}]"'


def retry(
    exc_class: Any = Exception,
    clean_up_fn: Callable[[], None] | None = None,
    num_attempts: int = 3,
    initial_backoff: float = 1.0,
    max_jitter: float = 0.5,
) -> Any:
    """A decorator that repeats a function after an exception, with growing pauses.

    Args:
        exc_class: The exception, or several of them; or the function, if the decorator has no arguments.
        clean_up_fn: Called after each failed attempt.
        num_attempts: The number of attempts.
        initial_backoff: The first pause in seconds; each pause is twice the one before it.
        max_jitter: The most seconds by which a pause is longer, at random.
    """
    if num_attempts < 1:
        raise SettingError(subject="num_attempts", expected="at least 1", found=shown(num_attempts))
    if callable(exc_class) and not isinstance(exc_class, type):
        return retry()(exc_class)
    wanted = tuple(exc_class) if isinstance(exc_class, Sequence) else exc_class

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def repeated(*args: Any, **kwargs: Any) -> Any:
            for attempt in range(num_attempts):
                try:
                    return function(*args, **kwargs)
                except wanted:
                    if clean_up_fn is not None:
                        clean_up_fn()
                    if attempt + 1 == num_attempts:
                        raise
                    time.sleep(initial_backoff * 2**attempt + random.random() * max_jitter)  # noqa: S311 - no secret
            raise AssertionError

        return repeated

    return decorate
