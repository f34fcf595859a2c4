"""A GPU in name only: DALI's GPU graphs run on it, and none of their kernels does anything.

DALI links the CUDA runtime statically, so its functions are overwritten in memory by those of `runtime.c`: device
memory is the host's, copies are made, streams and events are names, a launch is checked and dropped. All else is
DALI's own code, which checks operators, arguments, shapes, types and layouts as on a GPU.
"""
