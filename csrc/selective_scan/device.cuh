// What the CUDA kernels are made of. nvcc compiles this header for GPUs; the tests compile it for a CPU emulator.
//
// A block is up to 7 warps. A lane is a channel, a warp has 8 consecutive positions, so a block has a segment of up to
// 56 positions of 32 channels. A thread runs the recurrence over its 8 positions in registers; between the warps the
// states pass through shared memory, in order. No prefix sum over lanes, no atomic: every sum has one order.
#pragma once
#include "params.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace clever_fast::cuda {

constexpr int LANES = 32, ITEMS = 8, MAX_WARPS = MAX_CUDA_SEGMENT / ITEMS;
constexpr int ROW_OF_SUMS = MAX_WARPS * LANES;
constexpr unsigned ALL = 0xffffffffu;
constexpr float LOG2_E = 1.4426950408889634f;

// Loops and branches whose visits are counted (benchmarks/scan_resources.py): a build for that puts a marker, which
// does nothing, where a place is visited, and the emulator counts. In an ordinary build nothing is there.
enum Place { DIRECTION = 1, SEGMENT, ROWS, COLUMNS, RANKS, STATES, WARPS, IMAGE, TASK, TASK_CHANNEL, FOUR_RANKS, POSITION,
             PADDING, CARRY, SUMS, STAGED, SUMMED, SUMMED_WARPS, WRITTEN, IMAGES };
#ifndef CLEVER_FAST_VISIT
#ifdef CLEVER_FAST_COUNT
#define CLEVER_FAST_VISIT(place) asm volatile("pmevent.mask %0;" ::"n"(int(place)))
#else
#define CLEVER_FAST_VISIT(place)
#endif
#endif

__device__ inline float load(const float* from) { return *from; }
__device__ inline float load(const __half* from) { return __half2float(*from); }
__device__ inline float load(const __nv_bfloat16* from) { return __bfloat162float(*from); }
__device__ inline void store(float* to, float x) { *to = x; }
__device__ inline void store(__half* to, float x) { *to = __float2half_rn(x); }
__device__ inline void store(__nv_bfloat16* to, float x) { *to = __float2bfloat16_rn(x); }

__device__ inline float softplus(float x) { return x > 20.f ? x : log1pf(__expf(x)); }
// The slope of softplus where its value is `y`: sigmoid(x) = 1 - exp(-y). It is 0 at a step of length 0, past the end.
__device__ inline float softplus_slope(float y) { return -expm1f(-y); }

struct Thread {
  int lane, warp, warps;
  __device__ Thread() : lane(threadIdx.x % LANES), warp(threadIdx.x / LANES), warps(blockDim.x / LANES) {}
};

// A stretch of the recurrence h <- decay * h + input.
using Stretch = float2;

// The state that enters this warp's positions, when `*before` enters the block's first (REVERSE: last) position; what
// leaves the block goes to `*after`. The caller alternates between two `stretches` [warps][LANES], so that one barrier
// is enough: a warp that writes the one has passed the barrier after which the others last read it.
template <bool REVERSE>
__device__ inline float pass_between_warps(
    Thread t, Stretch own, Stretch* stretches, const float* before, float* after) {
  stretches[t.warp * LANES + t.lane] = own;
  __syncthreads();
  float h = *before, entering = 0.f;
#pragma unroll 1
  for (int i = 0; i < t.warps; ++i) {
    CLEVER_FAST_VISIT(WARPS);
    const int warp = REVERSE ? t.warps - 1 - i : i;
    const Stretch stretch = stretches[warp * LANES + t.lane];
    if (warp == t.warp) entering = h;
    h = stretch.x * h + stretch.y;
  }
  if (t.warp == 0 && after) *after = h;
  return entering;
}

// The sum over the warp's lanes of each of a thread's 8 values, which it uses up. Lanes 4i to 4i + 3 get that of
// value i.
__device__ inline float sum_over_lanes(float (&v)[ITEMS]) {
#pragma unroll
  for (int half = ITEMS / 2; half; half /= 2) {  // lanes with this bit keep the upper half of the values
    const int bit = half * 4;
    const bool upper = threadIdx.x & bit;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float keep = upper ? v[i + half] : v[i], give = upper ? v[i] : v[i + half];
      v[i] = keep + __shfl_xor_sync(ALL, give, bit);
    }
  }
  v[0] += __shfl_xor_sync(ALL, v[0], 2);
  return v[0] + __shfl_xor_sync(ALL, v[0], 1);
}

// A thread's positions in one segment, and its channel's input matrices: B of position i is B[i * stride], C likewise.
struct Inputs {
  float u[ITEMS], delta[ITEMS];
};
struct Matrices {
  const float *B, *C;
  int stride;
};

__device__ inline Stretch run(const Inputs& in, Matrices m, float A, float (&decay)[ITEMS]) {
  float h = 0.f, time = 0.f;
#pragma unroll
  for (int i = 0; i < ITEMS; ++i) {
    decay[i] = exp2f(in.delta[i] * (A * LOG2_E));
    h = decay[i] * h + in.delta[i] * in.u[i] * m.B[i * m.stride];
    time += in.delta[i];
  }
  return {exp2f(time * (A * LOG2_E)), h};
}

__device__ inline void scan_forward(
    Thread t, const Inputs& in, Matrices m, float A, Stretch* stretches, const float* before, float* after,
    float (&y)[ITEMS]) {
  float decay[ITEMS];
  const Stretch own = run(in, m, A, decay);
  float h = pass_between_warps<false>(t, own, stretches, before, after);
#pragma unroll
  for (int i = 0; i < ITEMS; ++i) {
    h = decay[i] * h + in.delta[i] * in.u[i] * m.B[i * m.stride];
    y[i] += h * m.C[i * m.stride];
  }
}

struct Gradients {
  float du[ITEMS], ddelta[ITEMS];
  float dB, dC;  // of position lane / 4, summed over the lanes
};

// The output's gradients dy stay in shared memory: registers are what limits how many warps run at once.
// `state` entered the segment from the left; `*before` and `*after` are the gradient that enters from the right and
// leaves to the left. Returns the gradient of A.
__device__ inline float scan_backward(
    Thread t, const Inputs& in, const float* dy, int dy_stride, Matrices m, float A, Stretch* stretches,
    const float* state, const float* before, float* after, Gradients& out) {
  float decay[ITEMS], left[ITEMS], sum[ITEMS], dA = 0.f;
  const Stretch own = run(in, m, A, decay);
  float h = pass_between_warps<false>(t, own, stretches, state, nullptr), g = 0.f;
#pragma unroll
  for (int i = 0; i < ITEMS; ++i) {
    left[i] = h;
    h = decay[i] * h + in.delta[i] * in.u[i] * m.B[i * m.stride];
    sum[i] = dy[i * dy_stride] * h;
  }
  out.dC = sum_over_lanes(sum);
#pragma unroll
  for (int i = ITEMS - 1; i >= 0; --i) g = decay[i] * (dy[i * dy_stride] * m.C[i * m.stride] + g);
  g = pass_between_warps<true>(t, {own.x, g}, stretches + MAX_WARPS * LANES, before, after);
#pragma unroll
  for (int i = ITEMS - 1; i >= 0; --i) {
    const float dh = dy[i * dy_stride] * m.C[i * m.stride] + g;
    g = dh * decay[i];
    const float through = g * left[i], input = dh * m.B[i * m.stride];
    dA += through * in.delta[i];
    out.ddelta[i] += through * A + input * in.u[i];
    out.du[i] += input * in.delta[i];
    sum[i] = dh * in.delta[i] * in.u[i];
  }
  out.dB = sum_over_lanes(sum);
  return dA;
}

__device__ inline void add_or_set(bool add, float* to, float x) { *to = add ? *to + x : x; }

// Sums [rows][MAX_WARPS][LANES] over the warps, in order; `out(row, sum)` for this thread's lane.
template <class Out>
__device__ inline void sum_over_warps(Thread t, const float* sums, int rows, Out out) {
#pragma unroll 1
  for (int row = t.warp; row < rows; row += t.warps) {
    CLEVER_FAST_VISIT(SUMMED);
    float sum = 0.f;
#pragma unroll 1
    for (int warp = 0; warp < t.warps; ++warp) {
      CLEVER_FAST_VISIT(SUMMED_WARPS);
      sum += sums[row * ROW_OF_SUMS + warp * LANES + t.lane];
    }
    out(row, sum);
  }
}

inline int blocks_of_channels(int64_t D) { return int((D + LANES - 1) / LANES); }

}  // namespace clever_fast::cuda
