"""mx8shards warm-up [WHAT ...]: compile the Numba kernels before their first use"""

from __future__ import annotations

import argparse

_TOPICS = {
    "gathering": "copy samples into batches",
    "shuffling": "compute the order of samples",
    "pictures": "decode pictures",
    "videos": "crop frames of videos",
    "tiling": "store JPEGs in tiles (convert)",
}

_ABOUT = """\
Compile the Numba kernels before their first use, for example while building a container image, so that no loader or
conversion has to wait for the compiler. Numba caches them on disk, for this version and path of the package and this
kind of processor: beside the package or, if that is not writable, in the user's cache directory. A process ignores a
cache that it may not write to. So if one user builds an image and another one runs it, set NUMBA_CACHE_DIR for both to
a directory that both may write to.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description = _ABOUT
    listed = "; ".join(f"{name}: {purpose}" for name, purpose in _TOPICS.items())
    parser.add_argument("what", nargs="*", type=_topic, metavar="WHAT", help=f"{listed} (default: all)")


def _topic(text: str) -> str:
    if text not in _TOPICS:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(_TOPICS)}, got {text!r}")
    return text


def run(args: argparse.Namespace) -> int:
    """Compile, and print the time for each topic and the cache directories."""
    from mx8shards.cli.output import show_fields, show_json
    from mx8shards.kernels.warming import warm_up

    done = list(warm_up(args.what or tuple(_TOPICS)))
    places = sorted({each.place for each in done if each.place})
    if args.json:
        show_json({"kernels": [each._asdict() for each in done], "places": places})
    else:
        fields: list[tuple[str, object]] = []
        for topic in dict.fromkeys(each.topic for each in done):
            kernels = [each for each in done if each.topic == topic]
            seconds = sum(each.seconds for each in kernels if each.compiled)
            count = sum(each.compiled for each in kernels)
            fields.append((topic, f"{seconds:.1f} s, {count} of {len(kernels)} kernels were compiled"))
        show_fields([*fields, *(("kept in", place) for place in places)])
    if not places:
        raise OSError(
            "kernels were compiled but not cached: no cache directory is writable; set NUMBA_CACHE_DIR to one that is"
        )
    return 0
