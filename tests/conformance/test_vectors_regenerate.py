"""Does the script reproduce the conformance vectors, do they match the spec, and do they cover every rule?"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

SPEC = Path(__file__).resolve().parents[2] / "format_spec"
VECTORS = SPEC / "vectors"
VALID = sorted((VECTORS / "valid").iterdir())
INVALID = sorted((VECTORS / "invalid").iterdir())
SCRIPTS = sorted(SPEC.glob("*.py"))
README = (SPEC / "README.md").read_text(encoding="utf-8")
RULES = re.findall(r"^\*\*(§\d+\.\d+)\*\*", README, re.MULTILINE)

# Breaches that JSON Schema cannot express: 2.0 is an integer to it, and it cannot compare two values with each other.
BEYOND_SCHEMA = {
    "column-lists-of-unequal-length",
    "column-size-as-a-float",
    "column-size-given-for-a-variable-column",
    "column-size-other-than-the-encodings",
    "columns-in-written-order",
    "columns-sorted-without-regard-to-case",
    "columns-too-large-in-sum",
    "fewer-encodings-than-names",
    "hash-list-unsorted",
    "index-with-nan-in-a-key-that-nobody-reads",
    "more-samples-than-the-file-has-room-for",
    "picked-column-that-a-later-shard-lacks",
    "picked-column-that-differs-between-shards",
    "raw-and-zip-basenames-that-are-equal",
    "raw-bytes-as-a-float",
    "raw-file-named-as-another-shards-zip",
    "samples-as-a-float",
    "shard-list-twice-in-one-index",
    "shard-version-as-a-float",
    "shards-with-a-column-more",
    "shards-with-different-column-names",
    "shards-with-different-encodings",
    "side-car-range-past-the-last-shard",
    "side-car-range-that-is-empty",
    "side-car-size-as-a-float",
    "side-cars-of-blocks-in-descending-order",
    "side-cars-of-blocks-that-overlap",
    "side-cars-of-columns-in-descending-order",
    "side-cars-of-columns-that-overlap",
    "size-limit-as-a-float",
    "two-shards-in-one-file",
    "version-as-a-float",
}


def files_below(folder: Path) -> dict[str, bytes]:
    """Every generated file of a vectors folder; the others are written by hand."""
    generated = [*folder.glob("*.json"), *(folder / "valid").rglob("*"), *(folder / "invalid").rglob("*")]
    links = {str(path.relative_to(folder)): bytes(path.readlink()) for path in generated if path.is_symlink()}
    return links | {
        str(path.relative_to(folder)): path.read_bytes()
        for path in generated
        if path.is_file() and not path.is_symlink()
    }


def expected(vector: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((vector / "expected.json").read_bytes())
    return found


def table(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_bytes())
    return found


def section(title: str) -> str:
    """The text below one `## title` of the registry."""
    return (SPEC / "encodings.md").read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def names_in_tables(text: str) -> set[str]:
    """The names in the first cells of its tables."""
    first_cells = re.findall(r"^\|([^|]+)\|", text, re.MULTILINE)
    return {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((SPEC / "index.schema.json").read_bytes()))


def test_regenerating_the_vectors_changes_no_byte_and_removes_obsolete_files(tmp_path: Path) -> None:
    stale = tmp_path / "invalid" / "a-vector-of-yesterday" / "index.json"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"{}")
    subprocess.run([sys.executable, str(SPEC / "make_vectors.py"), "--out", str(tmp_path)], check=True)
    made, committed = files_below(tmp_path), files_below(VECTORS)
    assert sorted(made) == sorted(committed)
    assert [name for name in made if made[name] != committed[name]] == []


def test_the_scripts_do_not_import_the_package() -> None:
    allowed = {*sys.stdlib_module_names, "blake3", "xxhash", *(path.stem for path in SCRIPTS)}
    for path in SCRIPTS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, path


def test_there_are_at_least_30_valid_and_80_invalid_vectors() -> None:
    assert len(VALID) >= 30
    assert len(INVALID) >= 80


def test_no_vector_is_ignored_by_git() -> None:
    if not (SPEC.parent / ".git").exists():
        pytest.skip("not a git checkout")
    names = "\0".join(str(VECTORS / name) for name in files_below(VECTORS))
    command = ["git", "-C", str(SPEC.parent), "check-ignore", "--no-index", "--stdin", "-z"]
    ignored = subprocess.run(command, input=names.encode(), capture_output=True, check=False)
    assert (ignored.returncode, ignored.stdout, ignored.stderr) == (1, b"", b"")  # 1: none is ignored


@pytest.mark.parametrize("vector", [*VALID, *INVALID], ids=lambda path: f"{path.parent.name}-{path.name}")
def test_each_vector_cites_a_rule_and_has_a_sentence_as_name(vector: Path) -> None:
    assert expected(vector)["rule"] in RULES
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", vector.name)


def test_every_reference_to_a_rule_exists() -> None:
    assert len(RULES) == len(set(RULES))
    for path in [*SPEC.glob("*.md"), *SPEC.glob("*.json"), *SCRIPTS]:
        assert set(re.findall(r"§\d+\.\d+", path.read_text(encoding="utf-8"))) <= set(RULES), path


@pytest.mark.parametrize("vector", VALID, ids=lambda path: path.name)
def test_every_index_of_a_valid_vector_fits_the_schema(vector: Path, schema: jsonschema.Draft202012Validator) -> None:
    indices = [path for path in vector.rglob("*.json") if path.name != "expected.json"]
    assert indices
    for path in indices:
        schema.validate(json.loads(path.read_bytes().decode("utf-8")))


def test_the_schema_is_a_valid_schema(schema: jsonschema.Draft202012Validator) -> None:
    jsonschema.Draft202012Validator.check_schema(schema.schema)


def test_the_schema_refuses_every_error_that_a_schema_can_express(schema: jsonschema.Draft202012Validator) -> None:
    accepted: set[str] = set()
    refused: set[str] = set()
    for vector in INVALID:
        if expected(vector)["when"] != "open" or expected(vector)["error"] != "FormatError":
            continue
        try:
            index = json.loads((vector / "index.json").read_bytes().decode("utf-8"))
        except (ValueError, RecursionError):
            continue  # no JSON at all
        (accepted if schema.is_valid(index) else refused).add(vector.name)
    assert accepted == BEYOND_SCHEMA
    assert len(refused) >= 100


def test_the_worked_example_has_the_bytes_of_its_vector() -> None:
    dump = re.findall(r"```hexdump\n(.*?)```", README, re.DOTALL)
    entry = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    vector = VECTORS / "valid" / "three-samples-of-a-string-and-an-integer"
    lines = re.findall(r"^ *(\d+)  ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  |$)", dump[0], re.MULTILINE)
    data = b""
    for offset, digits in lines:
        assert int(offset) == len(data)
        data += bytes.fromhex(digits)
    assert data == (vector / "shard.00000.mds").read_bytes()
    assert [json.loads(entry[0])] == json.loads((vector / "index.json").read_bytes())["shards"]


def test_every_name_of_the_registry_occurs_in_a_valid_vector() -> None:
    indices = [json.loads(path.read_bytes().decode("utf-8")) for vector in VALID for path in vector.rglob("index.json")]
    shards = [shard for index in indices for shard in index["shards"]]
    encodings = {encoding for shard in shards for encoding in shard["column_encodings"]}
    assert {name for name in names_in_tables(section("Encodings")) if "<" not in name} <= encodings
    assert {name.count(":") for name in encodings if name.startswith("ndarray")} == {0, 1, 2}
    compressions = {shard["compression"].split(":")[0] for shard in shards if shard["compression"]}
    assert names_in_tables(section("Compressions")) == compressions
    hashes = {name for shard in shards for name in shard["raw_data"]["hashes"]}
    assert names_in_tables(section("Hashes")) == table("hashes")["hashes"].keys() <= hashes
    kinds = {car["kind"] for index in indices for car in index.get("mx8shards", {}).get("sidecars", [])}
    assert names_in_tables(section("Kinds of side-cars")) <= kinds


def test_the_registry_has_the_lengths_of_hashes(schema: jsonschema.Draft202012Validator) -> None:
    lengths = {
        name: int(digits) for name, digits in re.findall(r"^\| `(\w+)` \| (\d+) \|", section("Hashes"), re.MULTILINE)
    }
    assert lengths == {name: len(values[0]) for name, values in table("hashes")["hashes"].items()}
    in_schema = schema.schema["$defs"]["hashes"]["properties"]
    assert in_schema == {name: {"$ref": f"#/$defs/hex{length}"} for name, length in lengths.items()}


@pytest.mark.parametrize(
    "draw", table("randomness")["draws"], ids="{0[seed]}-{0[epoch]}-{0[sample_id]}-{0[purpose]}-{0[occurrence]}".format
)
def test_the_random_generator_equals_numpys_philox(draw: dict[str, Any]) -> None:
    mask = (1 << 64) - 1
    digest = hashlib.sha256(draw["purpose"].encode()).digest()
    assert int(draw["purpose_word"], 16) == int.from_bytes(digest[:8], "little")
    key = (int(draw["seed"]) & mask) | int(draw["purpose_word"], 16) << 64
    block = int(draw["sample_id"]) << 64 | (int(draw["epoch"]) & mask) << 128 | int(draw["occurrence"]) << 192
    # NumPy increments its counter before it generates a block
    found = np.random.Philox(counter=(block - 1) % (1 << 256), key=key).random_raw(len(draw["words"]))
    words = np.array([int(word, 16) for word in draw["words"]], np.uint64)
    assert (found == words).all()
    # NumPy computes its uniforms in the same way
    uniforms = np.random.Generator(np.random.Philox(counter=(block - 1) % (1 << 256), key=key)).random(len(words))
    assert [float.fromhex(value) for value in draw["uniforms"]] == uniforms.tolist()
    for limit, integers in draw["integers"].items():
        halves = (words >> np.uint64(32)).tolist()
        assert integers == [half * int(limit) // (1 << 32) for half in halves]
        assert all(0 <= value < int(limit) for value in integers)
