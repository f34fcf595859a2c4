// What both CPU kernels are made of: the recurrence over one segment, and reading and writing of any dtype.
#pragma once
#include "cpu.h"
#include "simd.h"

// All that a kernel calls becomes a part of it: a function of the standard headers left on its own could be shared with
// another instruction set's kernels.
#define CLEVER_FAST_KERNEL inline __attribute__((flatten))

namespace clever_fast::cpu::CLEVER_FAST_CPU {

constexpr int SEGMENT = MAX_CPU_SEGMENT;

inline int64_t tiles(int64_t channels) { return (channels + LANES - 1) / LANES; }

// One state of a vector of channels over up to SEGMENT positions. B and C are scalars `stride` apart.
struct Steps {
  int count;
  const V *u, *delta;
  const float *B, *C;
  int64_t stride;
};

CLEVER_FAST_INLINE V scan_forward(const Steps& x, V A, V h, V* y) {
  A *= LOG2_E;
  for (int l = 0; l < x.count; ++l) {
    h = exp2(x.delta[l] * A) * h + x.delta[l] * x.u[l] * x.B[l * x.stride];
    y[l] += h * x.C[l * x.stride];
  }
  return h;
}

// Adds to the gradients of a vector of channels; `g` is the gradient that reaches the state before the last position from the
// right, already through that step's decay. Returns it for the next segment to the left.
CLEVER_FAST_INLINE V scan_backward(
    const Steps& x, V A, V h, V g, const V* dy, V* du, V* ddelta, V* dB, V* dC, int64_t stride, V& dA) {
  V decay[SEGMENT], before[SEGMENT];
  for (int l = 0; l < x.count; ++l) {
    decay[l] = exp2(x.delta[l] * (A * LOG2_E));
    before[l] = h;
    h = decay[l] * h + x.delta[l] * x.u[l] * x.B[l * x.stride];
    dC[l * stride] += dy[l] * h;
  }
  for (int l = x.count - 1; l >= 0; --l) {
    const V dh = dy[l] * x.C[l * x.stride] + g;
    g = dh * decay[l];
    const V through = g * before[l], input = dh * x.B[l * x.stride];
    dA += through * x.delta[l];
    ddelta[l] += through * A + input * x.u[l];
    du[l] += input * x.delta[l];
    dB[l * stride] += dh * x.delta[l] * x.u[l];
  }
  return g;
}

CLEVER_FAST_INLINE void widen(float* to, Dtype dtype, const void* from, int64_t offset, int64_t count) {
  for (int64_t i = 0; i < count; i += LANES) store(to + i, load(dtype, from, offset + i, count - i), count - i);
}

}  // namespace clever_fast::cpu::CLEVER_FAST_CPU
