// cross_scan's CUDA kernels. x lies channels innermost, so in every direction the 32 channels of a position are one
// contiguous read, and the order of positions is arithmetic on an index.
#pragma once
#include "device.cuh"

namespace clever_fast::cuda {

// Offsets into a block's shared memory, in floats; those that are known when compiling take no register. A row of `low`
// is one position: the rank padded to a multiple of 4 with zeros, so that it is read as float4, then B and C.
struct CrossShared {
  static constexpr int stretches = 0, places = stretches + 2 * 2 * MAX_WARPS * LANES, low = places + MAX_CUDA_SEGMENT;
  static constexpr int PITCH = LANES + 1;  // of ddelta: odd, so that 32 positions hit 32 banks
  int rank, stride, carry, ddelta, weight, dweight, sums, total;
  CLEVER_FAST_BOTH CrossShared(int warps, int S, int R, bool backward) {
    rank = (R + 3) / 4 * 4;
    stride = (rank + 2 * S + 3) / 4 * 4;
    carry = low + warps * ITEMS * stride;
    weight = carry + 2 * S * LANES;
    dweight = weight + LANES * rank;
    ddelta = dweight + LANES * rank;
    sums = ddelta + warps * ITEMS * PITCH;
    total = backward ? sums + (S + 2) * ROW_OF_SUMS : weight;
  }
};

// Where this thread is: its channel, and the image's place of position `lane % 8` of its warp, or -1 past the end.
struct Spot {
  int64_t channel;
  bool active;
  int place;
  __device__ int of(int i) const { return __shfl_sync(ALL, place, i); }
};

// This warp's rows of `low`. As many rows at once as fit into 32 lanes.
template <class T>
__device__ inline void load_low(
    Thread t, const CrossScan& p, const CrossShared& at, int64_t n, int k, int place, float* low, int* places) {
  const int width = int(p.width()), rows = max(1, LANES / width), padding = at.rank - int(p.R);
  const int row = t.lane / width, column = rows > 1 ? t.lane % width : t.lane;
  if (t.lane < ITEMS) places[t.lane] = place;
#pragma unroll 1
  for (int first = 0; first < ITEMS; first += rows) {
    CLEVER_FAST_VISIT(ROWS);
    const int i = first + (rows > 1 ? row : 0), from = __shfl_sync(ALL, place, i % ITEMS);
    if (i >= ITEMS || (rows > 1 && row >= rows)) continue;
    const T* const source = static_cast<const T*>(p.low) + ((n * p.L() + from) * 4 + k) * width;
#pragma unroll 1
    for (int c = column; c < width; c += LANES) {
      CLEVER_FAST_VISIT(COLUMNS);
      low[i * at.stride + (c < p.R ? c : c + padding)] = from < 0 ? 0.f : load(source + c);
    }
  }
  __syncwarp();
}

// delta before its softplus, from the low-rank rows.
__device__ inline void expand(
    const CrossScan& p, const CrossShared& at, int k, int64_t channel, float bias, const float* low,
    float (&delta)[ITEMS]) {
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
      const float4 row = *reinterpret_cast<const float4*>(low + i * at.stride + r);
      delta[i] += w[0] * row.x + w[1] * row.y + w[2] * row.z + w[3] * row.w;
    }
  }
}

template <class T>
__global__ void __launch_bounds__(MAX_WARPS* LANES, 2) cross_forward_kernel(const __grid_constant__ CrossScan p) {
  extern __shared__ float4 shared[];
  float* const memory = reinterpret_cast<float*>(shared);
  const Thread t;
  const int S = int(p.S), blocks = int((p.D + LANES - 1) / LANES), first = t.warp * ITEMS;
  const CrossShared at(t.warps, S, int(p.R), false);
  const int64_t n = blockIdx.x / blocks, lane_channel = blockIdx.x % blocks * LANES + t.lane;
  Spot spot{min(lane_channel, p.D - 1), lane_channel < p.D, 0};
  Stretch* const stretches = reinterpret_cast<Stretch*>(memory + at.stretches);
  float *const carry = memory + at.carry + t.lane, *const low = memory + at.low + first * at.stride;
  int* const places = reinterpret_cast<int*>(memory + at.places) + first;
#pragma unroll 1
  for (int j = t.lane; j < ITEMS * at.stride; j += LANES) {
    CLEVER_FAST_VISIT(PADDING);
    low[j] = 0.f;  // the padding of the rank stays 0
  }
  __syncwarp();
  int turn = 0;
  for (int k = 0; k < 4; ++k) {
    CLEVER_FAST_VISIT(DIRECTION);
    const float skip = p.skip[k * p.D + spot.channel], bias = p.bias[k * p.D + spot.channel];
#pragma unroll 1
    for (int s = t.warp; s < S; s += t.warps) {
      CLEVER_FAST_VISIT(CARRY);
      carry[s * LANES] = 0.f;
    }
    for (int64_t start = 0, segment = 0; start < p.L(); start += p.segment, ++segment) {
      CLEVER_FAST_VISIT(SEGMENT);
      const int l = int(start) + first + t.lane % ITEMS, even = int(segment % 2) * S * LANES, odd = S * LANES - even;
      spot.place = l < p.L() ? int(position(k, l, int(p.H), int(p.W))) : -1;
      load_low<T>(t, p, at, n, k, spot.place, low, places);
      Inputs in;
      float y[ITEMS];
      expand(p, at, k, spot.channel, bias, low, in.delta);
#pragma unroll
      for (int i = 0; i < ITEMS; ++i) {
        const int place = spot.of(i);
        in.delta[i] = place < 0 ? 0.f : softplus(in.delta[i]);
        in.u[i] = place < 0 ? 0.f : load(static_cast<const T*>(p.x) + (n * p.L() + place) * p.D + spot.channel);
        y[i] = skip * in.u[i];
      }
#pragma unroll 1
      for (int s = 0; s < S; ++s, turn ^= 1) {
        CLEVER_FAST_VISIT(STATES);
        const float *const B = low + at.rank + s, *const before = carry + even + s * LANES;
        scan_forward(t, in, {B, B + S, at.stride}, p.A[(k * S + s) * p.D + spot.channel],
                     stretches + turn * MAX_WARPS * LANES, before, carry + odd + s * LANES, y);
        if (t.warp == 0 && spot.active)
          p.states[(((n * 4 + k) * p.segments() + segment) * S + s) * p.D + spot.channel] = *before;
      }
#pragma unroll
      for (int i = 0; i < ITEMS; ++i) {
        const int place = spot.of(i);
        if (place >= 0 && spot.active) add_or_set(k > 0, p.y + (n * p.L() + place) * p.D + spot.channel, y[i]);
      }
      __syncwarp();  // before the next segment overwrites `low`
    }
    __syncthreads();  // the next direction adds to what other warps wrote, and starts its carry anew
  }
}

// dlow of a segment: each thread takes one position and four ranks, and sums over 32 channels.
__device__ inline void low_gradient(
    const CrossScan& p, const CrossShared& at, const float* memory, int64_t image, int k, bool add) {
  const int positions = int(blockDim.x) / LANES * ITEMS;
  const int* const places = reinterpret_cast<const int*>(memory + at.places);
  for (int task = int(threadIdx.x); task < positions * at.rank / 4; task += int(blockDim.x)) {
    CLEVER_FAST_VISIT(TASK);
    const int l = task % positions, r = task / positions * 4;
    if (places[l] < 0) continue;
    float sum[4] = {};
#pragma unroll 4
    for (int d = 0; d < LANES; ++d) {
      CLEVER_FAST_VISIT(TASK_CHANNEL);
      const float ddelta = memory[at.ddelta + l * CrossShared::PITCH + d];
      const float4 w = *reinterpret_cast<const float4*>(memory + at.weight + d * at.rank + r);
      sum[0] += ddelta * w.x, sum[1] += ddelta * w.y, sum[2] += ddelta * w.z, sum[3] += ddelta * w.w;
    }
    float* const to = p.dlow + ((image * p.L() + places[l]) * 4 + k) * p.width() + r;
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (r + j < p.R) add_or_set(add, to + j, sum[j]);
  }
}

// dweight of a segment: each thread takes one channel and four ranks, and sums over the positions.
__device__ inline void weight_gradient(Thread t, const CrossShared& at, float* memory) {
  for (int r = t.warp * 4; r < at.rank; r += t.warps * 4) {
    CLEVER_FAST_VISIT(FOUR_RANKS);
    float sum[4] = {};
#pragma unroll 4
    for (int l = 0; l < t.warps * ITEMS; ++l) {
      CLEVER_FAST_VISIT(POSITION);
      const float ddelta = memory[at.ddelta + l * CrossShared::PITCH + t.lane];
      const float4 row = *reinterpret_cast<const float4*>(memory + at.low + l * at.stride + r);
      sum[0] += ddelta * row.x, sum[1] += ddelta * row.y, sum[2] += ddelta * row.z, sum[3] += ddelta * row.w;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) memory[at.dweight + (r + j) * LANES + t.lane] += sum[j];
  }
}

// A block has a share of the images and a share of the channels, 32 after 32.
template <class T>
__global__ void __launch_bounds__(MAX_WARPS* LANES, 2) cross_backward_kernel(const __grid_constant__ CrossScan p) {
  extern __shared__ float4 shared[];
  float* const memory = reinterpret_cast<float*>(shared);
  const Thread t;
  const int S = int(p.S), R = int(p.R), blocks = int((p.D + LANES - 1) / LANES), first = t.warp * ITEMS;
  const CrossShared at(t.warps, S, R, true);
  const int group = int(blockIdx.x / p.splits), split = int(blockIdx.x % p.splits);
  Stretch* const stretches = reinterpret_cast<Stretch*>(memory + at.stretches);
  float *const carry = memory + at.carry + t.lane, *const low = memory + at.low + first * at.stride;
  float *const sums = memory + at.sums + t.warp * LANES + t.lane, *const weight = memory + at.weight;
  int* const places = reinterpret_cast<int*>(memory + at.places) + first;
  const int begin = int(share(split, p.splits, blocks)), end = int(share(split + 1, p.splits, blocks));
  const int first_image = int(share(group, p.groups, p.N)), last_image = int(share(group + 1, p.groups, p.N));
#pragma unroll 1
  for (int j = t.lane; j < ITEMS * at.stride; j += LANES) {
    CLEVER_FAST_VISIT(PADDING);
    low[j] = 0.f;
  }
  __syncwarp();
  for (int n = first_image; n < last_image; ++n) {
    CLEVER_FAST_VISIT(IMAGES);
    for (int block = begin; block < end; ++block) {
      CLEVER_FAST_VISIT(IMAGE);
      const int64_t lane_channel = int64_t(block) * LANES + t.lane;
      Spot spot{min(lane_channel, p.D - 1), lane_channel < p.D, 0};
      for (int k = 0; k < 4; ++k) {
        CLEVER_FAST_VISIT(DIRECTION);
        const int64_t channel = k * p.D + spot.channel;
        const float skip = p.skip[channel], bias = p.bias[channel];
#pragma unroll 1
        for (int s = 0; s < S + 2; ++s) {
          CLEVER_FAST_VISIT(SUMS);
          sums[s * ROW_OF_SUMS] = 0.f;
        }
#pragma unroll 1
        for (int s = t.warp; s < S; s += t.warps) {
          CLEVER_FAST_VISIT(CARRY);
          carry[s * LANES] = 0.f;
        }
#pragma unroll 1
        for (int r = t.warp; r < at.rank; r += t.warps) {
          CLEVER_FAST_VISIT(STAGED);
          memory[at.dweight + r * LANES + t.lane] = 0.f;
          weight[t.lane * at.rank + r] = r < R && spot.active ? p.weight[(k * p.R + r) * p.D + spot.channel] : 0.f;
        }
        for (int segment = int(p.segments()) - 1, done = 0; segment >= 0; --segment, ++done) {
          CLEVER_FAST_VISIT(SEGMENT);
          const int l = segment * int(p.segment) + first + t.lane % ITEMS;
          const int even = done % 2 * S * LANES, odd = S * LANES - even;
          spot.place = l < p.L() ? int(position(k, l, int(p.H), int(p.W))) : -1;
          load_low<T>(t, p, at, n, k, spot.place, low, places);
          Inputs in;
          Gradients out;
          float* const own = memory + at.ddelta + first * CrossShared::PITCH + t.lane;  // dy, and then ddelta
          float dskip = 0.f, dbias = 0.f;
          expand(p, at, k, spot.channel, bias, low, in.delta);
#pragma unroll
          for (int i = 0; i < ITEMS; ++i) {
            const int place = spot.of(i);
            const bool here = place >= 0 && spot.active;
            const int64_t from = (n * p.L() + place) * p.D + spot.channel;
            in.delta[i] = place < 0 ? 0.f : softplus(in.delta[i]);
            in.u[i] = here ? load(static_cast<const T*>(p.x) + from) : 0.f;
            const float dy = here ? p.dy[from] : 0.f;
            own[i * CrossShared::PITCH] = dy;
            out.du[i] = skip * dy, out.ddelta[i] = 0.f;
            dskip += in.u[i] * dy;
          }
          sums[S * ROW_OF_SUMS] += dskip;
#pragma unroll 1
          for (int s = 0; s < S; ++s) {
            CLEVER_FAST_VISIT(STATES);
            const float* const B = low + at.rank + s;
            const float* const state =
                p.states + (((n * 4 + k) * p.segments() + segment) * S + s) * p.D + spot.channel;
            sums[s * ROW_OF_SUMS] += scan_backward(
                t, in, own, CrossShared::PITCH, {B, B + S, at.stride}, p.A[(k * S + s) * p.D + spot.channel],
                stretches, state, carry + even + s * LANES, carry + odd + s * LANES, out);
            const int place = spot.of(t.lane / 4);
            if (t.lane % 4 == 0 && place >= 0) {
              float* const to = p.dlow + (((split * p.N + n) * p.L() + place) * 4 + k) * p.width() + R + s;
              add_or_set(block > begin, to, out.dB);
              add_or_set(block > begin, to + S, out.dC);
            }
          }
#pragma unroll
          for (int i = 0; i < ITEMS; ++i) {
            const int place = spot.of(i);
            out.ddelta[i] *= softplus_slope(in.delta[i]);
            dbias += out.ddelta[i];
            own[i * CrossShared::PITCH] = out.ddelta[i];
            if (place >= 0 && spot.active)
              add_or_set(k > 0, p.dx + (n * p.L() + place) * p.D + spot.channel, out.du[i]);
          }
          sums[(S + 1) * ROW_OF_SUMS] += dbias;
          __syncthreads();
          low_gradient(p, at, memory, split * p.N + n, k, block > begin);
          weight_gradient(t, at, memory);
          __syncthreads();  // before the next segment overwrites `low`, `places` and `ddelta`
        }
        if (spot.active) {
          const int64_t of_group = (group * 4 + k) * p.D + spot.channel;
          sum_over_warps(t, memory + at.sums, S + 2, [&](int which, float sum) {
            float* const to = which < S ? p.dA + ((group * 4 + k) * S + which) * p.D + spot.channel
                                        : (which == S ? p.dskip : p.dbias) + of_group;
            add_or_set(n > first_image, to, sum);
          });
#pragma unroll 1
          for (int r = t.warp; r < R; r += t.warps) {
            CLEVER_FAST_VISIT(WRITTEN);
            add_or_set(n > first_image, p.dweight + ((group * 4 + k) * p.R + r) * p.D + spot.channel,
                       memory[at.dweight + r * LANES + t.lane]);
          }
        }
        __syncthreads();
      }
    }
  }
}

template <class T>
const char* launch_forward(const CrossScan& p, void* stream) {
  const int warps = int(p.segment) / ITEMS;
  const CrossShared shared(warps, int(p.S), int(p.R), false);
  return CLEVER_FAST_LAUNCH(cross_forward_kernel<T>, p.N * blocks_of_channels(p.D), warps * LANES,
                            shared.total * sizeof(float), stream, p);
}

template <class T>
const char* launch_backward(const CrossScan& p, void* stream) {
  const int warps = int(p.segment) / ITEMS;
  const CrossShared shared(warps, int(p.S), int(p.R), true);
  return CLEVER_FAST_LAUNCH(cross_backward_kernel<T>, p.groups * p.splits, warps * LANES,
                            shared.total * sizeof(float), stream, p);
}

}  // namespace clever_fast::cuda
