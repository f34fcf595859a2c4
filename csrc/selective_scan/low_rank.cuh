// How cross_scan's kernels expand delta from its low rank, and what flows back through that. Two forms of the same
// members: for every rank, count of states and dtype, a thread after the other's products; for VMamba's ranks, one state
// and bfloat16, on tensor cores.
#pragma once
#include <type_traits>

#include "device.cuh"

namespace clever_fast::cuda {

// The gradient of the low-rank rows: where it goes, and whether other channels have been there already.
struct LowGradient {
  float* of_image;  // (positions, 4, R + 2S), from one direction on
  bool add;
};

// Both forms are told where the positions of a block are in the image (`places`), and how many `left` there are from
// this warp's first one on.

// Rows of `low` as float32 in shared memory: the rank padded to a multiple of 4 with zeros, so that it is read as
// float4, then B and C of all states.
template <class T>
struct AnyRank {
  using Element = T;
  static constexpr int STATES = 0, FORWARD_BLOCKS = 2;  // known at run time only
  static constexpr int PITCH = LANES + 1;  // of ddelta: odd, so that 32 positions hit 32 banks
  struct Rows {};

  const CrossScan& p;
  const Thread t;
  int rank, stride;
  float *rows, *mine, *ddelta, *weight, *dweight;

  CLEVER_FAST_BOTH static int floats(int warps, int S, int R, bool backward) {
    const int rank = (R + 3) / 4 * 4, stride = (rank + 2 * S + 3) / 4 * 4, positions = warps * ITEMS;
    return positions * stride + (backward ? 2 * LANES * rank + positions * PITCH : 0);
  }

  __device__ AnyRank(const CrossScan& p, Thread t, float* memory) : p(p), t(t) {
    rank = (int(p.R) + 3) / 4 * 4, stride = (rank + 2 * int(p.S) + 3) / 4 * 4;
    rows = memory, mine = rows + t.warp * ITEMS * stride;
    weight = rows + t.warps * ITEMS * stride, dweight = weight + LANES * rank, ddelta = dweight + LANES * rank;
#pragma unroll 1
    for (int j = t.lane; j < ITEMS * stride; j += LANES) {
      CLEVER_FAST_VISIT(PADDING);
      mine[j] = 0.f;  // the padding of the rank stays 0
    }
    __syncwarp();
  }

  __device__ Matrices matrices(int s) const { return {mine + rank + s, mine + rank + p.S + s, stride}; }

  // The weights of a direction for 32 channels, by all warps; the caller has a barrier before and after.
  template <bool BACKWARD>
  __device__ void stage(int k, int64_t channel, bool active) {
    if constexpr (BACKWARD)
#pragma unroll 1
      for (int r = t.warp; r < rank; r += t.warps) {
        CLEVER_FAST_VISIT(STAGED);
        dweight[r * LANES + t.lane] = 0.f;
        weight[t.lane * rank + r] = r < p.R && active ? p.weight[(k * p.R + r) * p.D + channel] : 0.f;
      }
  }

  // This warp's rows, as many at once as fit into 32 lanes. `of_image`: (positions, 4, R + 2S) of one direction.
  __device__ void fetch(Rows&, const T* of_image, int place) {
    const int width = int(p.width()), at_once = max(1, LANES / width), padding = rank - int(p.R);
    const int row = t.lane / width, column = at_once > 1 ? t.lane % width : t.lane;
#pragma unroll 1
    for (int first = 0; first < ITEMS; first += at_once) {
      CLEVER_FAST_VISIT(ROWS);
      const int i = first + (at_once > 1 ? row : 0), from = __shfl_sync(ALL, place, i % ITEMS);
      if (i >= ITEMS || (at_once > 1 && row >= at_once)) continue;
#pragma unroll 1
      for (int c = column; c < width; c += LANES) {
        CLEVER_FAST_VISIT(COLUMN);
        mine[i * stride + (c < p.R ? c : c + padding)] = load(of_image + from * 4 * width + c);
      }
    }
  }
  __device__ void keep(const Rows&) { __syncwarp(); }

  // delta before its softplus.
  __device__ void expand(int k, int64_t channel, float bias, float (&delta)[ITEMS]) {
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) delta[i] = bias;
#pragma unroll 1
    for (int r = 0; r < p.R; r += 4) {
      CLEVER_FAST_VISIT(RANKS);
      float w[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) w[j] = r + j < p.R ? p.weight[(k * p.R + r + j) * p.D + channel] : 0.f;
#pragma unroll
      for (int i = 0; i < ITEMS; ++i) {
        const float4 row = *reinterpret_cast<const float4*>(mine + i * stride + r);
        delta[i] += w[0] * row.x + w[1] * row.y + w[2] * row.z + w[3] * row.w;
      }
    }
  }

  // Keeps numbers of this thread in shared memory until `gradients`: with states in a loop, registers are short.
  __device__ void park(const float (&x)[ITEMS]) {
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) ddelta[(t.warp * ITEMS + i) * PITCH + t.lane] = x[i];
  }
  __device__ void fetch_parked(float (&x)[ITEMS]) {
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) x[i] = ddelta[(t.warp * ITEMS + i) * PITCH + t.lane];
  }

  // From ddelta of all warps: dlow of the segment, a thread with one position and four ranks, summed over 32 channels;
  // dweight, a thread with one channel and four ranks, summed over the positions.
  __device__ void gradients(const float (&of_delta)[ITEMS], const int* places, int left, LowGradient to) {
    const int positions = t.warps * ITEMS, first = t.warp * ITEMS;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) ddelta[(first + i) * PITCH + t.lane] = of_delta[i];
    __syncthreads();
#pragma unroll 1
    for (int task = int(threadIdx.x); task < positions * rank / 4; task += t.warps * LANES) {
      CLEVER_FAST_VISIT(TASK);
      const int l = task % positions, r = task / positions * 4;
      if (l >= first + left) continue;
      float sum[4] = {};
#pragma unroll
      for (int d = 0; d < LANES; ++d) {
        const float4 w = *reinterpret_cast<const float4*>(weight + d * rank + r);
        const float x = ddelta[l * PITCH + d];
        sum[0] += x * w.x, sum[1] += x * w.y, sum[2] += x * w.z, sum[3] += x * w.w;
      }
      float* const row = to.of_image + places[l] * 4 * int(p.width()) + r;
#pragma unroll
      for (int j = 0; j < 4; ++j)
        add_or_set(to.add, r + j < p.R, row + j, sum[j]);
    }
#pragma unroll 1
    for (int r = t.warp * 4; r < rank; r += t.warps * 4) {
      CLEVER_FAST_VISIT(FOUR_RANKS);
      float sum[4] = {};
#pragma unroll
      for (int l = 0; l < MAX_CUDA_SEGMENT; ++l) {
        if (l % ITEMS == 0 && l >= positions) break;
        const float4 row = *reinterpret_cast<const float4*>(rows + l * stride + r);
        const float x = ddelta[l * PITCH + t.lane];
        sum[0] += x * row.x, sum[1] += x * row.y, sum[2] += x * row.z, sum[3] += x * row.w;
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) dweight[(r + j) * LANES + t.lane] += sum[j];
    }
    __syncthreads();  // before the next segment overwrites the rows and ddelta
  }

  // After a barrier: what all segments since `stage` sum up to.
  __device__ void write(float* to, bool active) {
#pragma unroll 1
    for (int r = t.warp; r < p.R; r += t.warps) {
      CLEVER_FAST_VISIT(WRITTEN);
      if (active) to[r * p.D] = dweight[r * LANES + t.lane];
    }
  }
};

// A float as the sum of two bfloat16, to 2^-17 of it: two of them at once.
struct Halves {
  uint32_t high, low;
  __device__ Halves(float a, float b) {
    high = pack_bfloat16(a, b);
    low = pack_bfloat16(a - __uint_as_float(high << 16), b - __uint_as_float(high & 0xffff0000u));
  }
};

// Rows of `low` stay bfloat16, as they came. Weights and ddelta, which are float32, are split into two bfloat16 each;
// products of their lower halves are left out. So a product is right to 2^-16 of its terms, sums are float32.
template <int R>
struct RankOnTensorCores {
  using Element = __nv_bfloat16;
  static constexpr int STATES = 1, FORWARD_BLOCKS = R < 48 ? 4 : 3;
  static constexpr int EIGHTS = (R + 7) / 8, STEPS = (R + 15) / 16;  // of the rank
  static constexpr int PITCH = 16 * STEPS + 8;  // elements of a row: 8 rows of 16 bytes hit 32 banks
  static constexpr int WORDS = R / 2 + 1;       // of two elements in a row of `low`: the rank's, then B and C
  static constexpr int PER_ROW = WORDS > 16 ? 32 : WORDS > 8 ? 16 : WORDS > 4 ? 8 : 4;  // lanes
  static constexpr int AT_ONCE = LANES / PER_ROW, ROUNDS = ITEMS / AT_ONCE, COLUMNS = (WORDS + PER_ROW - 1) / PER_ROW;
  static constexpr int HALF = LANES * PITCH / 2;  // floats of the weights' upper or lower halves
  static constexpr int ROWS_OF_WARP = ITEMS * PITCH / 2, OF_WARP = ROWS_OF_WARP + 2 * ITEMS + LANES * ITEMS;
  static constexpr int DWEIGHT = 2 * EIGHTS * LANES * 4;
  static_assert(R % 2 == 0 && R <= 64);
  struct Rows {
    uint32_t words[ROUNDS][COLUMNS];
  };

  const CrossScan& p;
  const Thread t;
  float *weight, *rows, *tile, *dweight;
  float2* of_state;

  CLEVER_FAST_BOTH static int floats(int warps, int, int, bool backward) {
    return 2 * HALF + warps * (OF_WARP + (backward ? DWEIGHT : 0));
  }

  __device__ RankOnTensorCores(const CrossScan& p, Thread t, float* memory) : p(p), t(t) {
    weight = memory, rows = memory + 2 * HALF + t.warp * OF_WARP;
    of_state = reinterpret_cast<float2*>(rows + ROWS_OF_WARP), tile = rows + ROWS_OF_WARP + 2 * ITEMS;
    dweight = memory + 2 * HALF + t.warps * OF_WARP + t.warp * DWEIGHT;
#pragma unroll
    for (int j = 0; j < ROWS_OF_WARP; j += LANES)
      if (ROWS_OF_WARP % LANES == 0 || j + t.lane < ROWS_OF_WARP) rows[j + t.lane] = 0.f;  // behind R it stays 0
    __syncwarp();
  }

  struct MatricesInShared {
    const float2* at;
    __device__ float2 operator()(int i) const { return at[i]; }
  };
  __device__ MatricesInShared matrices(int) const { return {of_state}; }

  // Where lane `lane` reads for load_matrices: a row of the weights' halves or of `rows`.
  __device__ const void* row(const float* matrix, int row, int column) const {
    return reinterpret_cast<const __nv_bfloat16*>(matrix) + row * PITCH + column;
  }

  template <bool BACKWARD>
  __device__ void stage(int k, int64_t channel, bool active) {
    const float* const from = p.weight + k * R * p.D + channel;
#pragma unroll 1
    for (int r = t.warp * 2; r < 16 * STEPS; r += t.warps * 2) {
      CLEVER_FAST_VISIT(STAGED);
      const bool here = active && r < R;
      const Halves both(here ? from[r * p.D] : 0.f, here ? from[(r + 1) * p.D] : 0.f);
      uint32_t* const to = reinterpret_cast<uint32_t*>(weight) + (t.lane * PITCH + r) / 2;
      to[0] = both.high, to[HALF] = both.low;
    }
    if constexpr (BACKWARD)
#pragma unroll
      for (int j = 0; j < DWEIGHT; j += 4 * LANES)
        *reinterpret_cast<float4*>(dweight + j + 4 * t.lane) = float4{0.f, 0.f, 0.f, 0.f};
  }

  __device__ void fetch(Rows& got, const __nv_bfloat16* of_image, int place) {
    const uint32_t* const words = reinterpret_cast<const uint32_t*>(of_image);
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
      const int from = __shfl_sync(ALL, place, round * AT_ONCE + t.lane / PER_ROW) * 4 * WORDS;
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        const int word = c * PER_ROW + t.lane % PER_ROW;
        got.words[round][c] = word < WORDS ? words[from + word] : 0;
      }
    }
  }

  __device__ void keep(const Rows& got) {
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round)
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        const int word = c * PER_ROW + t.lane % PER_ROW, i = round * AT_ONCE + t.lane / PER_ROW;
        const uint32_t both = got.words[round][c];
        if (word < R / 2) reinterpret_cast<uint32_t*>(rows)[i * PITCH / 2 + word] = both;
        if (word == R / 2) of_state[i] = float2{__uint_as_float(both << 16), __uint_as_float(both & 0xffff0000u)};
      }
    __syncwarp();
  }

  // delta (32 channels x 8 positions) = weight (32 x R) low (R x 8). A thread gets its channel's by way of `tile`, in
  // which the upper and lower four positions of every other four channels are swapped: no two lanes hit one bank.
  __device__ void expand(int, int64_t, float bias, float (&delta)[ITEMS]) {
    float sum[2][4] = {};
#pragma unroll
    for (int pair = 0; pair < STEPS; pair += 2) {
      uint32_t b[4];
      load_matrices<false>(b, row(rows, t.lane % 8, 16 * pair + (pair + 1 < STEPS ? t.lane / 8 : t.lane / 8 % 2) * 8));
#pragma unroll
      for (int step = pair; step < pair + 2 && step < STEPS; ++step)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          uint32_t a[4];
          load_matrices<false>(a, row(weight, 16 * half + t.lane % 16, 16 * step + t.lane / 16 * 8));
          multiply_add(sum[half], a, b[step % 2 * 2], b[step % 2 * 2 + 1]);
          load_matrices<false>(a, row(weight + HALF, 16 * half + t.lane % 16, 16 * step + t.lane / 16 * 8));
          multiply_add(sum[half], a, b[step % 2 * 2], b[step % 2 * 2 + 1]);
        }
    }
    const int g = t.lane / 4, q = t.lane % 4;
#pragma unroll
    for (int half = 0; half < 4; ++half) {
      const int channel = 8 * half + g;
      float2* const to = reinterpret_cast<float2*>(tile + channel * ITEMS + ((q / 2) ^ (channel / 4 % 2)) * 4 + q % 2 * 2);
      *to = float2{sum[half / 2][half % 2 * 2], sum[half / 2][half % 2 * 2 + 1]};
    }
    __syncwarp();
    fetch_parked(delta);
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) delta[i] += bias;
  }

  // Keeps numbers of this thread in its channel's place of `tile` until `gradients`: registers are short.
  __device__ void park(const float (&x)[ITEMS]) {
    *half_of_channel(0) = float4{x[0], x[1], x[2], x[3]}, *half_of_channel(1) = float4{x[4], x[5], x[6], x[7]};
  }
  __device__ void fetch_parked(float (&x)[ITEMS]) {
    const float4 left = *half_of_channel(0), right = *half_of_channel(1);
    x[0] = left.x, x[1] = left.y, x[2] = left.z, x[3] = left.w;
    x[4] = right.x, x[5] = right.y, x[6] = right.z, x[7] = right.w;
  }
  __device__ float4* half_of_channel(int half) {
    return reinterpret_cast<float4*>(tile + t.lane * ITEMS) + (half ^ (t.lane / 4 % 2));
  }

  // Of this warp's own positions: dlow (R x 8 positions) = weight' (R x 32 channels) ddelta (32 x 8), and
  // dweight (32 x R) += ddelta (32 x 8) low (8 x R), which stays in shared memory as the tensor cores hold it.
  __device__ void gradients(const float (&of_delta)[ITEMS], const int* places, int left, LowGradient to) {
    const Halves pairs[4] = {{of_delta[0], of_delta[1]}, {of_delta[2], of_delta[3]}, {of_delta[4], of_delta[5]}, {of_delta[6], of_delta[7]}};
    __syncwarp();  // all have fetched what they parked
    uint4* const ddelta = reinterpret_cast<uint4*>(tile);  // [upper, lower halves][32 channels], 8 positions in each
    ddelta[t.lane] = uint4{pairs[0].high, pairs[1].high, pairs[2].high, pairs[3].high};
    ddelta[LANES + t.lane] = uint4{pairs[0].low, pairs[1].low, pairs[2].low, pairs[3].low};
    __syncwarp();
    uint32_t high[4], low[4];
    load_matrices<false>(high, ddelta + t.lane);
    load_matrices<false>(low, ddelta + LANES + t.lane);
#pragma unroll
    for (int e = 0; e < EIGHTS; e += 4) {
      uint32_t b[4];
      load_matrices<true>(b, row(rows, t.lane % 8, min(e + t.lane / 8, EIGHTS - 1) * 8));
#pragma unroll
      for (int j = 0; j < 4 && e + j < EIGHTS; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float4* const kept = reinterpret_cast<float4*>(dweight) + (2 * (e + j) + half) * LANES + t.lane;
          float sum[4] = {kept->x, kept->y, kept->z, kept->w};
          multiply_add(sum, high[2 * half], high[2 * half + 1], b[j]);
          multiply_add(sum, low[2 * half], low[2 * half + 1], b[j]);
          *kept = float4{sum[0], sum[1], sum[2], sum[3]};
        }
    }
    load_matrices<true>(high, ddelta + t.lane);
    load_matrices<true>(low, ddelta + LANES + t.lane);
    const int g = t.lane / 4, q = t.lane % 4;
    const int2 two = *reinterpret_cast<const int2*>(places + t.warp * ITEMS + 2 * q);
    float* const even = to.of_image + two.x * 8 * WORDS + g;
    float* const odd = to.of_image + two.y * 8 * WORDS + g;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
      float sum[4] = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t a[4];
        const int channel = 16 * half + t.lane % 8 + t.lane / 16 * 8, rank = 16 * step + t.lane / 8 % 2 * 8;
        load_matrices<true>(a, row(weight, channel, rank));
        multiply_add(sum, a, high[2 * half], high[2 * half + 1]);
        multiply_add(sum, a, low[2 * half], low[2 * half + 1]);
        load_matrices<true>(a, row(weight + HALF, channel, rank));
        multiply_add(sum, a, high[2 * half], high[2 * half + 1]);
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int r = 16 * step + j / 2 * 8;
        if (r < R) add_or_set(to.add, (r + 8 <= R || r + g < R) && 2 * q + j % 2 < left, (j % 2 ? odd : even) + r, sum[j]);
      }
    }
    __syncwarp();  // before the next segment overwrites the rows and `tile`
  }

  __device__ void write(float* to, bool active) {
    const float* const first = dweight - t.warp * DWEIGHT;
#pragma unroll 1
    for (int r = t.warp; r < R; r += t.warps) {
      CLEVER_FAST_VISIT(WRITTEN);
      const int piece = (2 * (r / 8) + t.lane / 16) * LANES + t.lane % 8 * 4 + r % 8 / 2;
      const float* const of_warp = first + piece * 4 + t.lane / 8 % 2 * 2 + r % 2;
      float sum = 0.f;
#pragma unroll
      for (int warp = 0; warp < MAX_WARPS; ++warp)
        if (warp < t.warps) sum += of_warp[warp * DWEIGHT];
      if (active) to[r * p.D] = sum;
    }
  }
};

}  // namespace clever_fast::cuda
