// selective_scan on a CPU.
#pragma once
#include "cpu_steps.h"

namespace clever_fast::cpu::CLEVER_FAST_CPU {

// Rows of positions, `stride` apart, <-> vectors of channels, in blocks of 4 positions of 4 channels, LANES / 4 blocks
// at once. The last blocks end where the positions end, so they may repeat some of those before.

template <class T, int BLOCKS>
CLEVER_FAST_INLINE Vector<T, 4 * BLOCKS> side_by_side(const T* from, int64_t stride) {
  if constexpr (BLOCKS == 1)
    return read<Vector<T, 4>>(from);
  else
    return join<Vector<T, 4 * BLOCKS>>(side_by_side<T, BLOCKS / 2>(from, stride),
                                       side_by_side<T, BLOCKS / 2>(from + 2 * BLOCKS * stride, stride),
                                       std::make_index_sequence<4 * BLOCKS>());
}

template <class T, int BLOCKS>
CLEVER_FAST_INLINE void take_apart(T* to, int64_t stride, Vector<T, 4 * BLOCKS> x) {
  if constexpr (BLOCKS == 1) {
    write(to, x);
  } else {
    using Half = Vector<T, 2 * BLOCKS>;
    const std::make_index_sequence<2 * BLOCKS> lanes;
    take_apart<T, BLOCKS / 2>(to, stride, cut<0, Half>(x, lanes));
    take_apart<T, BLOCKS / 2>(to + 2 * BLOCKS * stride, stride, cut<2 * BLOCKS, Half>(x, lanes));
  }
}

// What lies `next` elements further is fetched meanwhile: no hardware foresees so many short rows.
template <class T>
CLEVER_FAST_INLINE void fetch(T* rows, int64_t stride, int count, int64_t next) {
  for (int l = 0; l < count; l += 64 / sizeof(T))
    for (int c = 0; c < LANES; ++c) __builtin_prefetch(rows + c * stride + l + next);
}

// Lanes that are no channel load as 0. What is past the positions, within a block, is anything.
template <class T>
CLEVER_FAST_INLINE void load_rows(
    V* out, Dtype dtype, const T* from, int64_t stride, int active, int count, int64_t next) {
  T some[LANES][SEGMENT];
  fetch(from, stride, count, next);
  if (active < LANES || count < 4) {  // blocks that are not whole: from a copy
    for (int c = 0; c < LANES; ++c)
      for (int l = 0; l < std::max(count, 4); ++l) some[c][l] = c < active && l < count ? from[c * stride + l] : T{};
    from = some[0], stride = SEGMENT;
  }
  for (int block = 0; block < count; block += 4) {
    const int l = std::max(0, std::min(block, count - 4));
    V x[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) x[i] = widen(side_by_side<T, LANES / 4>(from + i * stride + l, stride), dtype);
    transpose_blocks(x);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) out[l + i] = x[i];
  }
}

template <class T>
CLEVER_FAST_INLINE void store_rows(
    Dtype dtype, T* to, const V* from, int64_t stride, int active, int count, int64_t next) {
  T some[LANES][SEGMENT];
  fetch(to, stride, count, next);
  const bool whole = active == LANES && count >= 4;
  T* const blocks = whole ? to : some[0];
  const int64_t apart = whole ? stride : SEGMENT;
  for (int block = 0; block < count; block += 4) {
    const int l = std::max(0, std::min(block, count - 4));
    V x[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) x[i] = from[l + i];
    transpose_blocks(x);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      if constexpr (sizeof(T) == 4)
        take_apart<T, LANES / 4>(blocks + i * apart + l, apart, x[i]);
      else
        take_apart<T, LANES / 4>(blocks + i * apart + l, apart, narrow(x[i], dtype));
  }
  if (!whole)
    for (int c = 0; c < active; ++c)
      for (int l = 0; l < count; ++l) to[c * stride + l] = some[c][l];
}

// Not inlined: once for each instruction set and not for each call.
__attribute__((noinline, flatten)) static void load_columns(
    V* out, Dtype dtype, const void* from, int64_t offset, int64_t stride, int active, int count, int64_t next) {
  if (dtype == Dtype::float32)
    load_rows(out, dtype, static_cast<const float*>(from) + offset, stride, active, count, next);
  else
    load_rows(out, dtype, static_cast<const uint16_t*>(from) + offset, stride, active, count, next);
}

__attribute__((noinline, flatten)) static void store_columns(
    Dtype dtype, void* to, int64_t offset, const V* from, int64_t stride, int active, int count, int64_t next) {
  if (dtype == Dtype::float32)
    store_rows(dtype, static_cast<float*>(to) + offset, from, stride, active, count, next);
  else
    store_rows(dtype, static_cast<uint16_t*>(to) + offset, from, stride, active, count, next);
}

inline int64_t forward_tasks(const Scan& p) { return p.N * p.K * tiles(p.D); }

inline int64_t forward_scratch(const Scan&) { return 0; }

inline int64_t backward_tasks(const Scan& p) { return p.N * p.K; }

inline int64_t backward_scratch(const Scan& p) { return ((2 * p.S + 2) * tiles(p.D) + 2 * p.S * p.segment) * LANES; }

CLEVER_FAST_KERNEL void forward(const Scan& p, int64_t task, float*) {
  const int64_t tile = task % tiles(p.D), nk = task / tiles(p.D), n = nk / p.K, KD = p.K * p.D;
  const int64_t channel = nk % p.K * p.D + tile * LANES;
  const int active = int(std::min<int64_t>(LANES, p.D - tile * LANES));
  const int64_t row = (n * KD + channel) * p.L;
  const V skip = load(p.skip + channel, active), bias = load(p.bias + channel, active);
  V h[MAX_STATES];
  for (int64_t s = 0; s < p.S; ++s) h[s] = V{};
  V u[SEGMENT], delta[SEGMENT], y[SEGMENT];
  float B[SEGMENT], C[SEGMENT];
  for (int64_t segment = 0, start = 0; start < p.L; ++segment, start += p.segment) {
    const int count = int(std::min(p.segment, p.L - start));
    load_columns(u, p.dtype, p.u, row + start, p.L, active, count, p.segment);
    load_columns(delta, p.dtype, p.delta, row + start, p.L, active, count, p.segment);
    for (int l = 0; l < count; ++l) {
      delta[l] = p.softplus ? softplus(delta[l] + bias) : delta[l] + bias;
      y[l] = skip * u[l];
    }
    for (int64_t s = 0; s < p.S; ++s) {
      widen(B, p.dtype, p.B, (nk * p.S + s) * p.L + start, count);
      widen(C, p.dtype, p.C, (nk * p.S + s) * p.L + start, count);
      store(p.states + ((n * p.segments() + segment) * p.S + s) * KD + channel, h[s], active);
      h[s] = scan_forward({count, u, delta, B, C, 1}, load(p.A + s * KD + channel, active), h[s], y);
    }
    store_columns(Dtype::float32, p.y, row + start, y, p.L, active, count, p.segment);
  }
}

// All channels of one image and group: dB and dC are sums over them.
CLEVER_FAST_KERNEL void backward(const Scan& p, int64_t nk, float* scratch) {
  const int64_t n = nk / p.K, KD = p.K * p.D, first = nk % p.K * p.D, padded = tiles(p.D) * LANES;
  float *const g = scratch, *const dA = g + p.S * padded;                            // (S, padded)
  float *const dskip = dA + p.S * padded, *const dbias = dskip + padded;             // (padded)
  V* const dBC = reinterpret_cast<V*>(dbias + padded);                               // (2, S, segment)
  std::fill(scratch, dbias + padded, 0.f);
  V u[SEGMENT], delta[SEGMENT], slope[SEGMENT], dy[SEGMENT], du[SEGMENT], ddelta[SEGMENT];
  float B[SEGMENT], C[SEGMENT];
  for (int64_t segment = p.segments() - 1; segment >= 0; --segment) {
    const int64_t start = segment * p.segment;
    const int count = int(std::min(p.segment, p.L - start));
    std::fill(dBC, dBC + 2 * p.S * p.segment, V{});
    for (int64_t c = 0; c < p.D; c += LANES) {
      const int64_t channel = first + c, row = (n * KD + channel) * p.L + start;
      const int active = int(std::min<int64_t>(LANES, p.D - c));
      const V skip = load(p.skip + channel, active), bias = load(p.bias + channel, active);
      load_columns(u, p.dtype, p.u, row, p.L, active, count, LANES * p.L);
      load_columns(delta, p.dtype, p.delta, row, p.L, active, count, LANES * p.L);
      load_columns(dy, Dtype::float32, p.dy, row, p.L, active, count, LANES * p.L);
      V sum{};  // of this segment: long sums are added up in two steps
      for (int l = 0; l < count; ++l) {
        delta[l] += bias;
        slope[l] = splat(1.f);
        if (p.softplus) delta[l] = softplus(delta[l], slope[l]);
        du[l] = skip * dy[l], ddelta[l] = V{};
        sum += u[l] * dy[l];
      }
      store(dskip + c, load(dskip + c) + sum);
      for (int64_t s = 0; s < p.S; ++s) {
        widen(B, p.dtype, p.B, (nk * p.S + s) * p.L + start, count);
        widen(C, p.dtype, p.C, (nk * p.S + s) * p.L + start, count);
        const V h = load(p.states + ((n * p.segments() + segment) * p.S + s) * KD + channel, active);
        V sum_A{};
        V *const dB = dBC + s * p.segment, *const dC = dB + p.S * p.segment;
        const V left = scan_backward({count, u, delta, B, C, 1}, load(p.A + s * KD + channel, active), h,
                                     load(g + s * padded + c), dy, du, ddelta, dB, dC, 1, sum_A);
        store(g + s * padded + c, left), store(dA + s * padded + c, load(dA + s * padded + c) + sum_A);
      }
      sum = V{};
      for (int l = 0; l < count; ++l) sum += ddelta[l] *= slope[l];
      store(dbias + c, load(dbias + c) + sum);
      store_columns(p.dtype, p.du, row, du, p.L, active, count, LANES * p.L);
      store_columns(p.dtype, p.ddelta, row, ddelta, p.L, active, count, LANES * p.L);
    }
    for (int64_t which = 0; which < 2 * p.S; ++which) {
      float* const to = (which < p.S ? p.dB : p.dC) + (nk * p.S + which % p.S) * p.L + start;
      for (int l = 0; l < count; l += LANES) {
        V rows[LANES];
        for (int i = 0; i < LANES; ++i) rows[i] = l + i < count ? dBC[which * p.segment + l + i] : V{};
        store(to + l, sum_each(rows), count - l);
      }
    }
  }
  for (int64_t s = 0; s < p.S; ++s)
    std::copy_n(dA + s * padded, p.D, p.dA + (n * p.S + s) * KD + first);
  std::copy_n(dskip, p.D, p.dskip + n * KD + first);
  std::copy_n(dbias, p.D, p.dbias + n * KD + first);
}

}  // namespace clever_fast::cpu::CLEVER_FAST_CPU
