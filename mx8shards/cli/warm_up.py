"""mx8shards warm-up [WHAT ...]"""

from __future__ import annotations

import argparse

_TOPICS = ("gathering", "shuffling", "pictures", "tiling")

_ABOUT = """\
Compile the kernels ahead of their first use, so that no loader and no convert waits for it: while a container image is
built, for example. They are kept on disk, for this version of the package at this path, and for this kind of processor.
Numba keeps them beside the package, or, where it may not write there, in the user's cache directory. A process that may
not write to a directory does not look there either: so if the image is not run by the user who builds it, set
NUMBA_CACHE_DIR, both times, to one directory that both may write to.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this command takes."""
    parser.description = _ABOUT
    text = f"some of {', '.join(_TOPICS)} (of JPEGs: convert does that); all, if not given"
    parser.add_argument("what", nargs="*", type=_topic, metavar="WHAT", help=text)


def _topic(text: str) -> str:
    if text not in _TOPICS:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(_TOPICS)}, got {text!r}")
    return text


def run(args: argparse.Namespace) -> int:
    """Compile, and say what took how long, and where it is kept."""
    from mx8shards.cli.output import show_fields, show_json
    from mx8shards.kernels.warming import warm_up

    done = list(warm_up(args.what or _TOPICS))
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
        raise OSError("nothing is kept, as no directory may be written to: set NUMBA_CACHE_DIR to one that may be")
    return 0
