// What the CUDA kernels are made of. nvcc compiles this header for GPUs; the tests compile it for a CPU emulator.
//
// A block is up to 7 warps. A lane is a channel, a warp has 8 consecutive positions, so a block has a segment of up to
// 56 positions of 32 channels. A thread runs the recurrence over its 8 positions in registers; between the warps the
// states pass through shared memory, in order. No prefix sum over lanes; every sum has one order.
#pragma once
#include "params.h"

#ifdef __CUDACC__
#include "instructions.cuh"
#endif

namespace clever_fast::cuda {

constexpr int LANES = 32, ITEMS = 8, MAX_WARPS = MAX_CUDA_SEGMENT / ITEMS;
constexpr int ROW_OF_SUMS = MAX_WARPS * LANES;
constexpr unsigned ALL = 0xffffffffu;
constexpr float LOG2_E = 1.4426950408889634f;

// Loops and branches whose visits are counted (benchmarks/scan_counts.py): a build for that puts a marker, which does
// nothing, where a place is visited, and the emulator counts. In an ordinary build nothing is there.
enum Place { TILE = 1, DIRECTION, IMAGE, SEGMENT, STATE, ROWS, COLUMN, RANKS, PADDING, STAGED, SUMS, SUMMED, WRITTEN, TASK, FOUR_RANKS,
             PARTIAL, ADDED, SET };
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

__device__ inline void add_or_set(bool add, bool here, float* to, float x) {
  add_in_memory(add && here, to, x);
  store_in_memory(!add && here, to, x);
}

// softplus(x) = max(x, 0) + log(1 + e) with e = exp(-|x|), which is x in float32 above 20, as torch has it. The
// polynomial is log(1 + e) / e on [0, 1], to 4e-7 of it in float32: no branch, so that a thread's 8 positions interleave.
__device__ inline float softplus(float x, float& e) {
  e = exp2_approximate(-fabsf(x) * LOG2_E);
  float p = e * -0.008952316828072071f + 0.04559360444545746f;
  p = p * e - 0.10984590649604797f;
  p = p * e + 0.17900702357292175f;
  p = p * e - 0.24553121626377106f;
  p = p * e + 0.33285650610923767f;
  p = p * e - 0.4999805688858032f;
  p = p * e + 0.9999998807907104f;
  return p * e + fmaxf(x, 0.f);
}

// The slope of softplus, from the e that belongs to x.
__device__ inline float softplus_slope(float x, float e) {
  return (x < 0.f ? e : 1.f) * reciprocal_approximate(1.f + e);
}

struct Thread {
  int lane, warp, warps;
  __device__ Thread() : lane(threadIdx.x % LANES), warp(threadIdx.x / LANES), warps(blockDim.x / LANES) {}
};

// A stretch of the recurrence h <- decay * h + input.
using Stretch = float2;

// The state that enters this warp's positions, when `before()` enters the block's first (REVERSE: last) position; one
// warp tells `after` what leaves the block. The caller alternates between two `stretches` [warps][LANES], so that one
// barrier is enough: a warp that writes the one has passed the barrier after which the others last read it. Before and
// after are asked and told after the barrier.
template <bool REVERSE, class Before, class After>
__device__ inline float pass_between_warps(Thread t, Stretch own, Stretch* stretches, Before before, After after) {
  const int order = REVERSE ? t.warps - 1 - t.warp : t.warp;
  stretches[order * LANES + t.lane] = own;
  __syncthreads();
  float h = before();
#pragma unroll
  for (int i = 0; i < MAX_WARPS - 1; ++i) {  // those that are not before this warp are read, but not used
    const Stretch stretch = stretches[i * LANES + t.lane];
    const float next = stretch.x * h + stretch.y;
    h = i < order ? next : h;
  }
  if (order == t.warps - 1) after(own.x * h + own.y);
  return h;
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

// A thread's positions in one segment.
struct Inputs {
  float u[ITEMS], delta[ITEMS];
};

// A channel's input and output matrices of one state: B and C of position i.
struct Matrices {
  const float *B, *C;
  int stride;
  __device__ float2 operator()(int i) const { return {B[i * stride], C[i * stride]}; }
};

template <class At>
__device__ inline Stretch run(const Inputs& in, At matrices, float A, float (&decay)[ITEMS], float (&input)[ITEMS]) {
  float h = 0.f, time = 0.f;
#pragma unroll
  for (int i = 0; i < ITEMS; ++i) {
    decay[i] = exp2_approximate(in.delta[i] * (A * LOG2_E));
    input[i] = in.delta[i] * in.u[i] * matrices(i).x;
    h = decay[i] * h + input[i];
    time += in.delta[i];
  }
  return {exp2_approximate(time * (A * LOG2_E)), h};
}

// y += <C, h>. Before and after: the state before and after the segment.
template <class At, class Before, class After>
__device__ inline void scan_forward(
    Thread t, const Inputs& in, At matrices, float A, Stretch* stretches, Before before, After after,
    float (&y)[ITEMS]) {
  float decay[ITEMS], input[ITEMS];
  const Stretch own = run(in, matrices, A, decay, input);
  float h = pass_between_warps<false>(t, own, stretches, before, after);
#pragma unroll
  for (int i = 0; i < ITEMS; ++i) {
    h = decay[i] * h + input[i];
    y[i] += h * matrices(i).y;
  }
}

struct Gradients {
  float du[ITEMS], ddelta[ITEMS];
  float dB, dC;  // of position lane / 4, summed over the lanes
};

// `dy(i)` is the gradient of the output. `state` entered the segment from the left; before and after are the gradient
// that enters from the right and leaves to the left. Returns the gradient of A.
template <class At, class Dy, class State, class Before, class After>
__device__ inline float scan_backward(
    Thread t, const Inputs& in, Dy dy, At matrices, float A, Stretch* stretches, State state, Before before,
    After after, Gradients& out) {
  float decay[ITEMS], left[ITEMS], sum[ITEMS], dA = 0.f;
  const Stretch own = run(in, matrices, A, decay, left);
  float h = pass_between_warps<false>(t, own, stretches, state, [](float) {}), g = 0.f;
#pragma unroll
  for (int i = 0; i < ITEMS; ++i) {
    const float next = decay[i] * h + left[i];
    left[i] = h, h = next;
    sum[i] = dy(i) * h;
  }
  out.dC = sum_over_lanes(sum);
#pragma unroll
  for (int i = ITEMS - 1; i >= 0; --i) g = decay[i] * (dy(i) * matrices(i).y + g);
  g = pass_between_warps<true>(t, {own.x, g}, stretches + MAX_WARPS * LANES, before, after);
#pragma unroll
  for (int i = ITEMS - 1; i >= 0; --i) {
    const float2 m = matrices(i);
    const float dh = dy(i) * m.y + g;
    g = dh * decay[i];
    const float through = g * left[i], input = dh * m.x;
    dA += through * in.delta[i];
    out.ddelta[i] += through * A + input * in.u[i];
    out.du[i] += input * in.delta[i];
    sum[i] = dh * in.delta[i] * in.u[i];
  }
  out.dB = sum_over_lanes(sum);
  return dA;
}

// Sums [rows][MAX_WARPS][LANES] over the warps, in order; `out(row, sum)` for this thread's lane.
template <class Out>
__device__ inline void sum_over_warps(Thread t, const float* sums, int rows, Out out) {
#pragma unroll 1
  for (int row = t.warp; row < rows; row += t.warps) {
    CLEVER_FAST_VISIT(SUMMED);
    float sum = 0.f;
#pragma unroll
    for (int warp = 0; warp < MAX_WARPS; ++warp)
      if (warp < t.warps) sum += sums[row * ROW_OF_SUMS + warp * LANES + t.lane];
    out(row, sum);
  }
}

inline int blocks_of_channels(int64_t D) { return int((D + LANES - 1) / LANES); }

}  // namespace clever_fast::cuda
