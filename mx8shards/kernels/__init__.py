"""Which loops run without the GIL? Numba kernels, which import no other package of mx8shards.

Kernels take read-only inputs first and `out` last. They allocate nothing and raise nothing: a failure is a status code.
They do not check their arguments. Callers check addresses and spans, because an index out of bounds would read garbage
or cause a SIGSEGV.
"""
