// selective_scan on a CPU.
#include "cpu_steps.h"

namespace clever_fast::cpu {
namespace {

// Rows of positions <-> vectors of channels: element (c, l) lies `c * stride + l` after `offset`. Lanes that are no
// channel load as 0; what is past the positions is anything. What lies `next` elements further is fetched meanwhile: no
// hardware foresees 16 short rows.
CLEVER_FAST_INLINE void fetch(Dtype dtype, const void* base, int64_t offset) {
  __builtin_prefetch(static_cast<const char*>(base) + offset * (dtype == Dtype::float32 ? 4 : 2));
}

FOR_EACH_CPU void load_columns(V* out, Dtype dtype, const void* from, int64_t size, int64_t offset, int64_t stride,
                               int channels, int positions, int64_t next) {
  for (int l = 0; l < positions; l += LANES) {
    V rows[LANES] = {};
    for (int c = 0; c < channels; ++c) {
      const int64_t at = offset + c * stride + l;
      rows[c] = load(dtype, from, at, at + LANES <= size ? LANES : positions - l);  // a whole vector is quicker
      fetch(dtype, from, at + next);
    }
    transpose(rows);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) out[l + i] = rows[i];
  }
}

FOR_EACH_CPU void store_columns(Dtype dtype, void* to, int64_t offset, const V* from, int64_t stride, int channels,
                                int positions, int64_t next) {
  for (int l = 0; l < positions; l += LANES) {
    V rows[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) rows[i] = from[l + i];
    transpose(rows);
    for (int c = 0; c < channels; ++c) {
      store(dtype, to, offset + c * stride + l, rows[c], positions - l);
      fetch(dtype, to, offset + c * stride + l + next);
    }
  }
}

}  // namespace

int64_t forward_tasks(const Scan& p) { return p.N * p.K * tiles(p.D); }

int64_t backward_tasks(const Scan& p) { return p.N * p.K; }

int64_t backward_scratch(const Scan& p) { return ((2 * p.S + 2) * tiles(p.D) + 2 * p.S * p.segment) * LANES; }

FOR_EACH_CPU void forward(const Scan& p, int64_t task) {
  const int64_t tile = task % tiles(p.D), nk = task / tiles(p.D), n = nk / p.K, KD = p.K * p.D;
  const int64_t channel = nk % p.K * p.D + tile * LANES;
  const int active = int(std::min<int64_t>(LANES, p.D - tile * LANES));
  const int64_t row = (n * KD + channel) * p.L, size = p.N * KD * p.L;
  const V skip = load(p.skip + channel, active), bias = load(p.bias + channel, active);
  V h[MAX_STATES] = {};
  V u[SEGMENT], delta[SEGMENT], y[SEGMENT];
  float B[SEGMENT], C[SEGMENT];
  for (int64_t segment = 0, start = 0; start < p.L; ++segment, start += p.segment) {
    const int count = int(std::min(p.segment, p.L - start));
    load_columns(u, p.dtype, p.u, size, row + start, p.L, active, count, p.segment);
    load_columns(delta, p.dtype, p.delta, size, row + start, p.L, active, count, p.segment);
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
FOR_EACH_CPU void backward(const Scan& p, int64_t nk, float* scratch) {
  const int64_t n = nk / p.K, KD = p.K * p.D, first = nk % p.K * p.D, padded = tiles(p.D) * LANES;
  const int64_t size = p.N * KD * p.L;
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
      load_columns(u, p.dtype, p.u, size, row, p.L, active, count, LANES * p.L);
      load_columns(delta, p.dtype, p.delta, size, row, p.L, active, count, LANES * p.L);
      load_columns(dy, Dtype::float32, p.dy, size, row, p.L, active, count, LANES * p.L);
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

}  // namespace clever_fast::cpu
