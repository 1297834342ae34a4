"""Which loops run without the GIL? Numba only; nothing of ours is imported here.

Kernels take read-only sources first and `out` last, return nothing, allocate nothing and raise nothing: a failure is a
status code in an array. They trust their arguments. Addresses and spans were checked before; an index out of bounds
would be silent garbage or a SIGSEGV.
"""
