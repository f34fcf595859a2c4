// The CPU kernels with vectors of 8 floats. What the standard headers define stays outside, for every machine.
#ifdef __x86_64__
#include <algorithm>
#include <cstddef>
#include <utility>

#include "cpu.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define CLEVER_FAST_CPU avx2
#define CLEVER_FAST_LANES 8
#include "cpu_kernels.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
