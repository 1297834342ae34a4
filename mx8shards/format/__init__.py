"""How are index, shards, columns and side-cars encoded? The spec (format_spec/) as pure functions, without files."""
