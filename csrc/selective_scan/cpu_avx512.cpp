// The CPU kernels with vectors of 16 floats. What the standard headers define stays outside, for every machine.
#ifdef __x86_64__
#include <algorithm>
#include <cstddef>
#include <utility>

#include "cpu.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif
#define CLEVER_FAST_CPU avx512
#define CLEVER_FAST_LANES 16
#include "cpu_kernels.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
