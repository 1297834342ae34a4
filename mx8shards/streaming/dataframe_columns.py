"""Which encodings do the columns of a Spark, pandas or Arrow table get? Tables are recognised without imports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mx8shards.errors import SettingError, shown

# By the name of the Spark type. Short and byte integers keep Streaming's unsigned encodings.
SPARK_TO_MDS: dict[str, str | None] = {
    "ByteType": "uint8",
    "ShortType": "uint16",
    "IntegerType": "int32",
    "LongType": "int64",
    "FloatType": "float32",
    "DoubleType": "float64",
    "DecimalType": "str_decimal",
    "StringType": "str",
    "BinaryType": "bytes",
}
_SPARK_ARRAYS = {
    "IntegerType": "ndarray:int32",
    "ShortType": "ndarray:int16",
    "LongType": "ndarray:int64",
    "FloatType": "ndarray:float32",
    "DoubleType": "ndarray:float64",
}
_JSON_TYPES = ("StringType", "IntegerType", "FloatType", "BooleanType", "NullType")
_BINARY = ("pil", "png", "jpeg", "pkl")

_ARROW = {
    **{name: name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
    "halffloat": "float16",
    "float": "float32",
    "double": "float64",
    "string": "str",
    "large_string": "str",
    "string_view": "str",
    "binary": "bytes",
    "large_binary": "bytes",
    "binary_view": "bytes",
}
_NUMBERS = frozenset(name for name in _ARROW.values() if name not in ("str", "bytes"))


def is_spark(frame: Any) -> bool:
    """Whether this is a Spark data frame."""
    return hasattr(frame, "mapInPandas") and hasattr(frame, "schema")


def is_arrow(frame: Any) -> bool:
    """Whether this is an Arrow table or record batch."""
    return hasattr(frame, "to_pylist") and hasattr(frame, "schema") and not hasattr(frame, "dtypes")


def is_pandas(frame: Any) -> bool:
    """Whether this is a pandas data frame."""
    return hasattr(frame, "dtypes") and hasattr(frame, "itertuples")


def infer_dataframe_schema(dataframe: Any, user_defined_cols: Mapping[str, str] | None = None) -> dict[str, str] | None:
    """The encoding of each column. With `user_defined_cols`, None, or an error if one of these does not fit.

    Args:
        dataframe: A Spark or pandas data frame, or an Arrow table or record batch.
        user_defined_cols: The encodings to check.
    """
    types, encoding_of = _types(dataframe)
    if user_defined_cols is None:
        return {name: encoding_of(name, kind) for name, kind in types.items()}
    for name, encoding in user_defined_cols.items():
        if name not in types:
            raise SettingError(subject=f"column {name!r}", expected=f"one of {', '.join(types)}", found="another name")
        if encoding_of is _spark:
            _check_spark(name, encoding, types[name])
    return None


def _types(frame: Any) -> tuple[dict[str, Any], Callable[[str, Any], str]]:
    """The type of each column, and the function from a name and a type to an encoding."""
    if is_spark(frame):
        return {field.name: field.dataType for field in frame.schema}, _spark
    if is_arrow(frame):
        return dict(zip(frame.schema.names, frame.schema.types, strict=True)), _arrow
    if is_pandas(frame):
        for name in frame.columns:
            if not isinstance(name, str):
                raise SettingError(subject="dataframe", expected="columns whose names are strings", found=shown(name))
        return {name: frame[name] for name in frame.columns}, _pandas
    raise _no_frame(frame)


def _no_frame(found: Any) -> SettingError:
    expected = "a Spark or pandas data frame, or an Arrow table or record batch"
    return SettingError(subject="dataframe", expected=expected, found=shown(type(found).__name__))


def _kind(spark_type: Any) -> str:
    return type(spark_type).__name__


def _spark(name: str, kind: Any) -> str:
    element = getattr(kind, "elementType", None)
    found = SPARK_TO_MDS.get(_kind(kind)) if element is None else _SPARK_ARRAYS.get(_kind(element))
    if found is None:
        raise _unsupported(name, kind)
    return found


def is_json_compatible(data_type: Any) -> bool:
    """Whether values of a Spark type can be stored as `json`.

    Args:
        data_type: The type.
    """
    match _kind(data_type):
        case "StructType":
            return all(is_json_compatible(field.dataType) for field in data_type.fields)
        case "ArrayType":
            return is_json_compatible(data_type.elementType)
        case "MapType":
            return is_json_compatible(data_type.keyType) and is_json_compatible(data_type.valueType)
        case found:
            return found in _JSON_TYPES


def _check_spark(name: str, encoding: str, kind: Any) -> None:
    """SettingError if a column of this Spark type cannot have this encoding."""
    if encoding == "json":
        fits = is_json_compatible(kind)
    elif encoding in _BINARY:
        fits = _kind(kind) == "BinaryType"
    else:
        family = ":".join(encoding.split(":")[:2])  # without the shape
        fits = _spark(name, kind) == family
    if not fits:
        raise SettingError(subject=f"column {name!r}", expected=f"values that fit {encoding}", found=str(kind))


def _arrow(name: str, kind: Any) -> str:
    text = str(kind)
    if text.startswith("decimal"):
        return "str_decimal"
    if text.startswith("fixed_size_binary"):
        return "bytes"
    value = str(getattr(kind, "value_type", ""))
    if text.startswith("dictionary"):
        text, value = value, ""
    encoding = f"ndarray:{_ARROW[value]}" if _ARROW.get(value) in _NUMBERS else _ARROW.get(text)
    if encoding is None:
        raise _unsupported(name, kind)
    return encoding


def _pandas(name: str, column: Any) -> str:
    """The encoding of a pandas column; a column of objects gets that of its first value."""
    kind = str(column.dtype)
    plain = kind.lower().removesuffix("[pyarrow]")  # those with missing values are Int64 or int64[pyarrow]
    if (number := _ARROW.get(plain, plain)) in _NUMBERS:
        return number
    first: Any = next((value for value in column if not _is_missing(value)), None)
    if isinstance(first, str):
        return "str"
    if isinstance(first, bytes):
        return "bytes"
    if type(first).__name__ == "Decimal":
        return "str_decimal"
    if isinstance(first, np.ndarray | list | tuple):
        element = str(np.asarray(first).dtype) if len(first) else ""
        if element in _NUMBERS:
            return f"ndarray:{element}"
    raise _unsupported(name, f"{kind} of {type(first).__name__}")


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ == "NAType"


def _unsupported(name: str, kind: Any) -> SettingError:
    hint = "give mds_kwargs={'columns': …} an encoding for it, or leave it out"
    return SettingError(
        subject=f"column {name!r}", expected="a type with an encoding in MDS", found=str(kind), hint=hint
    )
