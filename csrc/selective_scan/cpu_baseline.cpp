// The CPU kernels with vectors of 4 floats, which every machine has; and which kernels this machine takes.
#include <algorithm>
#include <cstddef>
#include <utility>

#include "cpu.h"

#define CLEVER_FAST_CPU baseline
#define CLEVER_FAST_LANES 4
#include "cpu_kernels.h"

namespace clever_fast::cpu {
namespace {

template <class Params>
const Kernels<Params>& choose(const Kernels<Params>& baseline, const Kernels<Params>& avx2,
                              const Kernels<Params>& avx512) {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2;
#endif
  return baseline;
}

}  // namespace

#ifndef __x86_64__
namespace avx2 = baseline;
namespace avx512 = baseline;
#endif

template <>
const Kernels<Scan>& kernels<Scan>() {
  static const Kernels<Scan>& chosen = choose(baseline::scan, avx2::scan, avx512::scan);
  return chosen;
}

template <>
const Kernels<CrossScan>& kernels<CrossScan>() {
  static const Kernels<CrossScan>& chosen = choose(baseline::cross, avx2::cross, avx512::cross);
  return chosen;
}

}  // namespace clever_fast::cpu
