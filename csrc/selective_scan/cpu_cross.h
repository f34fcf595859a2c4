// cross_scan on a CPU.
#pragma once
#include "cpu_steps.h"

namespace clever_fast::cpu::CLEVER_FAST_CPU {

inline int64_t forward_tasks(const CrossScan& p) { return p.N * tiles(p.D); }

inline int64_t forward_scratch(const CrossScan& p) { return SEGMENT * p.width(); }

inline int64_t backward_tasks(const CrossScan& p) { return p.groups; }

inline int64_t backward_scratch(const CrossScan& p) {
  return ((tiles(p.D) + 2 * p.S) * SEGMENT + p.S * tiles(p.D)) * LANES + 2 * SEGMENT * p.width();
}

// One segment of one direction: where its positions are, and what `low` holds there.
CLEVER_FAST_INLINE int gather(const CrossScan& p, int64_t n, int k, int64_t start, int64_t* at, float* low) {
  const int count = int(std::min(p.segment, p.L() - start));
  for (int l = 0; l < count; ++l) {
    at[l] = n * p.L() + position(k, int(start) + l, int(p.H), int(p.W));
    widen(low + l * p.width(), p.dtype, p.low, (at[l] * 4 + k) * p.width(), p.width());
  }
  return count;
}

// delta before its softplus: four positions at a time share each row of the weight.
CLEVER_FAST_INLINE void expand(
    const CrossScan& p, const float* weight, V bias, const float* low, int active, int count, V* delta) {
  const int64_t width = p.width();
  for (int l = 0; l < count; l += 4) {
    const float* row[4];
    V sum[4] = {bias, bias, bias, bias};
    for (int i = 0; i < 4; ++i) row[i] = low + std::min(l + i, count - 1) * width;
    for (int64_t r = 0; r < p.R; ++r) {
      const V w = load(weight + r * p.D, active);
      for (int i = 0; i < 4; ++i) sum[i] += w * row[i][r];
    }
    for (int i = 0; i < 4 && l + i < count; ++i) delta[l + i] = sum[i];
  }
}

CLEVER_FAST_KERNEL void forward(const CrossScan& p, int64_t task, float* low) {
  const int64_t n = task / tiles(p.D), c = task % tiles(p.D) * LANES;
  const int active = int(std::min<int64_t>(LANES, p.D - c));
  int64_t at[SEGMENT];
  V u[SEGMENT], delta[SEGMENT], y[SEGMENT];
  for (int k = 0; k < 4; ++k) {
    const V skip = load(p.skip + k * p.D + c, active), bias = load(p.bias + k * p.D + c, active);
    V h[MAX_STATES];
    for (int64_t s = 0; s < p.S; ++s) h[s] = V{};
    for (int64_t segment = 0, start = 0; start < p.L(); ++segment, start += p.segment) {
      const int count = gather(p, n, k, start, at, low);
      expand(p, p.weight + k * p.R * p.D + c, bias, low, active, count, delta);
      for (int l = 0; l < count; ++l) {
        u[l] = load(p.dtype, p.x, at[l] * p.D + c, active);
        delta[l] = softplus(delta[l]);
        y[l] = skip * u[l];
      }
      for (int64_t s = 0; s < p.S; ++s) {
        const float* const B = low + p.R + s;
        store(p.states + (((n * 4 + k) * p.segments() + segment) * p.S + s) * p.D + c, h[s], active);
        const V A = load(p.A + (k * p.S + s) * p.D + c, active);
        h[s] = scan_forward({count, u, delta, B, B + p.S, p.width()}, A, h[s], y);
      }
      for (int l = 0; l < count; ++l) {
        float* const to = p.y + at[l] * p.D + c;
        store(to, k == 0 ? y[l] : load(to, active) + y[l], active);
      }
    }
  }
}

// dweight[r] += sum over positions of ddelta times low[r], eight rows at a time.
CLEVER_FAST_INLINE void weight_gradient(
    const CrossScan& p, const V* ddelta, const float* low, int count, int active, float* dweight) {
  constexpr int ROWS = 8;
  for (int64_t r = 0; r < p.R; r += ROWS) {
    V sum[ROWS] = {};
    for (int l = 0; l < count; ++l)
      for (int i = 0; i < ROWS; ++i) sum[i] += ddelta[l] * low[l * p.width() + std::min(r + i, p.R - 1)];
    for (int i = 0; i < ROWS && r + i < p.R; ++i) {
      float* const to = dweight + (r + i) * p.D;
      store(to, load(to, active) + sum[i], active);
    }
  }
}

// dlow[l][r] = sum over channels of ddelta[channel][l] * weight[r][channel], for four positions and four ranks at once.
CLEVER_FAST_INLINE void low_gradient(const CrossScan& p, const V* ddelta, const float* weight, int count, float* dlow) {
  const int last = int(tiles(p.D)) - 1;
  for (int l = 0; l < count; l += 4)
    for (int64_t r = 0; r < p.R; r += 4) {
      V sums[16] = {};
      for (int tile = 0; tile <= last; ++tile) {
        const int active = tile < last ? LANES : int(p.D - last * LANES);
        V w[4];
        for (int j = 0; j < 4; ++j) w[j] = load(weight + std::min(r + j, p.R - 1) * p.D + tile * LANES, active);
        for (int i = 0; i < 4; ++i)
          for (int j = 0; j < 4; ++j) sums[4 * i + j] += ddelta[tile * SEGMENT + std::min(l + i, count - 1)] * w[j];
      }
      float block[16];
      for (int i = 0; i < 16; i += LANES) store(block + i, sum_each(reinterpret_cast<V(&)[LANES]>(sums[i])));
      for (int i = 0; i < 4 && l + i < count; ++i)
        for (int j = 0; j < 4 && r + j < p.R; ++j) dlow[(l + i) * p.width() + r + j] = block[4 * i + j];
    }
}

// All channels of one share of the images.
CLEVER_FAST_KERNEL void backward(const CrossScan& p, int64_t group, float* scratch) {
  const int64_t padded = tiles(p.D) * LANES, width = p.width();
  V* const ddelta = reinterpret_cast<V*>(scratch);                       // (tiles, segment)
  V* const dBC = ddelta + tiles(p.D) * SEGMENT;                          // (segment, 2 S)
  float* const low = reinterpret_cast<float*>(dBC + SEGMENT * 2 * p.S);  // (segment, width)
  float *const dlow = low + SEGMENT * width, *const g = dlow + SEGMENT * width;
  float *const dweight = p.dweight + group * 4 * p.R * p.D, *const dA = p.dA + group * 4 * p.S * p.D;
  float *const dskip = p.dskip + group * 4 * p.D, *const dbias = p.dbias + group * 4 * p.D;
  std::fill_n(dweight, 4 * p.R * p.D, 0.f), std::fill_n(dA, 4 * p.S * p.D, 0.f);
  std::fill_n(dskip, 4 * p.D, 0.f), std::fill_n(dbias, 4 * p.D, 0.f);
  int64_t at[SEGMENT];
  V u[SEGMENT], delta[SEGMENT], slope[SEGMENT], dy[SEGMENT], du[SEGMENT];
  for (int64_t n = share(group, p.groups, p.N); n < share(group + 1, p.groups, p.N); ++n)
    for (int k = 0; k < 4; ++k) {
      const float* const weight = p.weight + k * p.R * p.D;
      std::fill_n(g, p.S * padded, 0.f);
      for (int64_t segment = p.segments() - 1; segment >= 0; --segment) {
        const int count = gather(p, n, k, segment * p.segment, at, low);
        std::fill_n(dBC, count * 2 * p.S, V{});
        for (int64_t c = 0; c < p.D; c += LANES) {
          const int active = int(std::min<int64_t>(LANES, p.D - c));
          const int64_t channel = k * p.D + c;
          const V skip = load(p.skip + channel, active);
          V* const dd = ddelta + c / LANES * SEGMENT;
          expand(p, weight + c, load(p.bias + channel, active), low, active, count, delta);
          V sum{};  // of this segment: long sums are added up in two steps
          for (int l = 0; l < count; ++l) {
            u[l] = load(p.dtype, p.x, at[l] * p.D + c, active);
            dy[l] = load(p.dy + at[l] * p.D + c, active);
            delta[l] = softplus(delta[l], slope[l]);
            du[l] = skip * dy[l], dd[l] = V{};
            sum += u[l] * dy[l];
          }
          store(dskip + channel, load(dskip + channel, active) + sum, active);
          for (int64_t s = 0; s < p.S; ++s) {
            const float* const B = low + p.R + s;
            const V A = load(p.A + (k * p.S + s) * p.D + c, active);
            const V h = load(p.states + (((n * 4 + k) * p.segments() + segment) * p.S + s) * p.D + c, active);
            float* const sum_A = dA + (k * p.S + s) * p.D + c;
            V through{};
            const V left = scan_backward({count, u, delta, B, B + p.S, width}, A, h, load(g + s * padded + c), dy, du,
                                         dd, dBC + s, dBC + p.S + s, 2 * p.S, through);
            store(g + s * padded + c, left), store(sum_A, load(sum_A, active) + through, active);
          }
          sum = V{};
          for (int l = 0; l < count; ++l) {
            sum += dd[l] *= slope[l];
            float* const to = p.dx + at[l] * p.D + c;
            store(to, k == 0 ? du[l] : load(to, active) + du[l], active);
          }
          store(dbias + channel, load(dbias + channel, active) + sum, active);
          weight_gradient(p, dd, low, count, active, dweight + k * p.R * p.D + c);
        }
        low_gradient(p, ddelta, weight, count, dlow);
        for (int i = 0, all = count * 2 * int(p.S); i < all; i += LANES) {
          V rows[LANES];
          float sums[LANES];
          for (int j = 0; j < LANES; ++j) rows[j] = i + j < all ? dBC[i + j] : V{};
          store(sums, sum_each(rows));
          for (int j = 0; j < LANES && i + j < all; ++j)
            dlow[(i + j) / (2 * p.S) * width + p.R + (i + j) % (2 * p.S)] = sums[j];
        }
        for (int l = 0; l < count; ++l) std::copy_n(dlow + l * width, width, p.dlow + (at[l] * 4 + k) * width);
      }
    }
}

}  // namespace clever_fast::cpu::CLEVER_FAST_CPU
