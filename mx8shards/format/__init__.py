"""What do the bytes mean? The spec (format_spec/) as pure functions: no files, no threads, no Numba."""
