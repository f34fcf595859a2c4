// The scans on a CPU: a vector's lanes are channels, so that the recurrence runs along the loop and needs no prefix
// sum. Each function does one task, an independent share of the work; which thread does it changes nothing.
#pragma once
#include "params.h"

namespace clever_fast::cpu {

// The kernels as built for one instruction set. Scratch is so many floats, aligned to 64 bytes.
template <class Params>
struct Kernels {
  int64_t (*forward_tasks)(const Params&);
  int64_t (*forward_scratch)(const Params&);
  void (*forward)(const Params&, int64_t task, float* scratch);
  int64_t (*backward_tasks)(const Params&);
  int64_t (*backward_scratch)(const Params&);
  void (*backward)(const Params&, int64_t task, float* scratch);
};

// One pair from each cpu_*.cpp.
#define CLEVER_FAST_DECLARE_KERNELS(name) \
  namespace name {                        \
  extern const Kernels<Scan> scan;        \
  extern const Kernels<CrossScan> cross;  \
  }
CLEVER_FAST_DECLARE_KERNELS(baseline)
#ifdef __x86_64__
CLEVER_FAST_DECLARE_KERNELS(avx2)
CLEVER_FAST_DECLARE_KERNELS(avx512)
#endif

// The best that this machine runs.
template <class Params>
const Kernels<Params>& kernels();

}  // namespace clever_fast::cpu
