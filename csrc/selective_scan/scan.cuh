// selective_scan's CUDA kernels. Rows of positions go through shared memory, so that global accesses are contiguous
// along positions while a lane keeps one channel.
#pragma once
#include "device.cuh"

namespace clever_fast::cuda {

constexpr int PITCH = MAX_SEGMENT + 1;  // odd: 32 lanes that read one column hit 32 banks

// Offsets into a block's shared memory, in floats.
struct ScanShared {
  int stretches, carry, matrices, tile, sums, total;
  CLEVER_FAST_BOTH ScanShared(int warps, int S, bool backward) {
    stretches = 0;
    carry = stretches + 2 * 2 * MAX_WARPS * LANES;
    matrices = carry + 2 * S * LANES;
    tile = matrices + warps * ITEMS * 2 * S;
    sums = tile + 3 * LANES * PITCH;
    total = sums + (backward ? (S + 2) * ROW_OF_SUMS : 0);
  }
};

// tile[channel][position] = rows, 0 for what is no channel or position.
template <class T>
__device__ inline void load_rows(Thread t, float* tile, const T* from, int64_t L, int channels, int count) {
#pragma unroll 2
  for (int c = t.warp; c < LANES; c += t.warps)
#pragma unroll 1
    for (int l = t.lane; l < t.warps * ITEMS; l += LANES)
      tile[c * PITCH + l] = c < channels && l < count ? load(from + c * L + l) : 0.f;
}

template <class T>
__device__ inline void store_rows(Thread t, T* to, const float* tile, int64_t L, int channels, int count) {
#pragma unroll 2
  for (int c = t.warp; c < channels; c += t.warps)
#pragma unroll 1
    for (int l = t.lane; l < count; l += LANES) store(to + c * L + l, tile[c * PITCH + l]);
}

// This warp's B and C: matrices[position][B of all states, C of all states].
template <class T>
__device__ inline void load_matrices(Thread t, const Scan& p, float* matrices, int64_t nk, int64_t start, int count) {
  const int S = int(p.S), first = t.warp * ITEMS;
  for (int j = t.lane; j < 2 * S * ITEMS; j += LANES) {
    const int i = j % ITEMS, s = j / ITEMS;
    const T* const from = static_cast<const T*>(s < S ? p.B : p.C) + (nk * S + s % S) * p.L + start;
    matrices[i * 2 * S + s] = first + i < count ? load(from + first + i) : 0.f;
  }
}

template <class T>
__global__ void __launch_bounds__(MAX_WARPS* LANES, 2) scan_forward_kernel(const __grid_constant__ Scan p) {
  extern __shared__ float4 shared[];
  float* const memory = reinterpret_cast<float*>(shared);
  const Thread t;
  const int S = int(p.S), blocks = int((p.D + LANES - 1) / LANES);
  const ScanShared at(t.warps, S, false);
  const int64_t nk = blockIdx.x / blocks, n = nk / p.K, KD = p.K * p.D;
  const int first = int(blockIdx.x % blocks) * LANES, channels = min(LANES, int(p.D) - first);
  const int64_t block_channel = nk % p.K * p.D + first, row = (n * KD + block_channel) * p.L;
  const int64_t channel = block_channel + min(t.lane, channels - 1);  // spare lanes repeat one, and are never stored
  Stretch* const stretches = reinterpret_cast<Stretch*>(memory + at.stretches);
  float *const carry = memory + at.carry + t.lane, *const tile = memory + at.tile;
  float* const matrices = memory + at.matrices + t.warp * ITEMS * 2 * S;
  const float skip = p.skip[channel], bias = p.bias[channel];
  const int mine = t.lane * PITCH + t.warp * ITEMS;
  int turn = 0;
  for (int s = t.warp; s < S; s += t.warps) carry[s * LANES] = 0.f;
  for (int64_t start = 0, segment = 0; start < p.L; start += p.segment, ++segment) {
    const int count = int(min(p.segment, p.L - start)), even = int(segment % 2) * S * LANES, odd = S * LANES - even;
    load_rows(t, tile, static_cast<const T*>(p.u) + row + start, p.L, channels, count);
    load_rows(t, tile + LANES * PITCH, static_cast<const T*>(p.delta) + row + start, p.L, channels, count);
    load_matrices<T>(t, p, matrices, nk, start, count);
    __syncthreads();
    Inputs in;
    float y[ITEMS];
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
      in.u[i] = tile[mine + i];
      const float delta = tile[LANES * PITCH + mine + i] + bias;
      // a step of length 0 past the end leaves the state as it is
      in.delta[i] = t.warp * ITEMS + i >= count ? 0.f : p.softplus ? softplus(delta) : delta;
      y[i] = skip * in.u[i];
    }
#pragma unroll 1
    for (int s = 0; s < S; ++s, turn ^= 1) {
      const float* const before = carry + even + s * LANES;
      scan_forward(t, in, {matrices + s, matrices + S + s, 2 * S}, p.A[s * KD + channel],
                   stretches + turn * MAX_WARPS * LANES, before, carry + odd + s * LANES, y);
      if (t.warp == 0 && t.lane < channels) p.states[((n * p.segments() + segment) * S + s) * KD + channel] = *before;
    }
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) tile[2 * LANES * PITCH + mine + i] = y[i];
    __syncthreads();
    store_rows(t, p.y + row + start, tile + 2 * LANES * PITCH, p.L, channels, count);
  }
}

// A block has an image, a group and a share of its channels, 32 after 32: dB and dC are sums over them.
template <class T>
__global__ void __launch_bounds__(MAX_WARPS* LANES, 2) scan_backward_kernel(const __grid_constant__ Scan p) {
  extern __shared__ float4 shared[];
  float* const memory = reinterpret_cast<float*>(shared);
  const Thread t;
  const int S = int(p.S), blocks = int((p.D + LANES - 1) / LANES);
  const ScanShared at(t.warps, S, true);
  const int64_t nk = blockIdx.x / p.splits, split = blockIdx.x % p.splits, n = nk / p.K, KD = p.K * p.D;
  Stretch* const stretches = reinterpret_cast<Stretch*>(memory + at.stretches);
  float *const carry = memory + at.carry + t.lane, *const tile = memory + at.tile;
  float* const matrices = memory + at.matrices + t.warp * ITEMS * 2 * S;
  float* const sums = memory + at.sums + t.warp * LANES + t.lane;
  const int mine = t.lane * PITCH + t.warp * ITEMS;
  const int begin = int(share(split, p.splits, blocks)), end = int(share(split + 1, p.splits, blocks));
  for (int block = begin; block < end; ++block) {
    const int channels = min(LANES, int(p.D) - block * LANES);
    const int64_t block_channel = nk % p.K * p.D + block * LANES, row = (n * KD + block_channel) * p.L;
    const int64_t channel = block_channel + min(t.lane, channels - 1);
    const float skip = p.skip[channel], bias = p.bias[channel];
    for (int s = 0; s < S + 2; ++s) sums[s * ROW_OF_SUMS] = 0.f;
    for (int s = t.warp; s < S; s += t.warps) carry[s * LANES] = 0.f;
    for (int64_t segment = p.segments() - 1, done = 0; segment >= 0; --segment, ++done) {
      const int64_t start = segment * p.segment;
      const int count = int(min(p.segment, p.L - start)), even = int(done % 2) * S * LANES, odd = S * LANES - even;
      load_rows(t, tile, static_cast<const T*>(p.u) + row + start, p.L, channels, count);
      load_rows(t, tile + LANES * PITCH, static_cast<const T*>(p.delta) + row + start, p.L, channels, count);
      load_rows(t, tile + 2 * LANES * PITCH, p.dy + row + start, p.L, channels, count);
      load_matrices<T>(t, p, matrices, nk, start, count);
      __syncthreads();
      Inputs in;
      Gradients out;
      float dskip = 0.f, dbias = 0.f;
      const float* const dy = tile + 2 * LANES * PITCH + mine;
#pragma unroll
      for (int i = 0; i < ITEMS; ++i) {
        in.u[i] = tile[mine + i];
        const float delta = tile[LANES * PITCH + mine + i] + bias;
        in.delta[i] = t.warp * ITEMS + i >= count ? 0.f : p.softplus ? softplus(delta) : delta;
        out.du[i] = skip * dy[i], out.ddelta[i] = 0.f;
        dskip += in.u[i] * dy[i];
      }
      sums[S * ROW_OF_SUMS] += dskip;
#pragma unroll 1
      for (int s = 0; s < S; ++s) {
        const float* const state = p.states + ((n * p.segments() + segment) * S + s) * KD + channel;
        sums[s * ROW_OF_SUMS] += scan_backward(
            t, in, dy, 1, {matrices + s, matrices + S + s, 2 * S}, p.A[s * KD + channel], stretches, state,
            carry + even + s * LANES, carry + odd + s * LANES, out);
        const int l = t.warp * ITEMS + t.lane / 4;
        if (t.lane % 4 == 0 && l < count) {
          const int64_t to = (((split * p.N * p.K) + nk) * S + s) * p.L + start + l;
          add_or_set(block > begin, p.dB + to, out.dB);
          add_or_set(block > begin, p.dC + to, out.dC);
        }
      }
#pragma unroll
      for (int i = 0; i < ITEMS; ++i) {
        if (p.softplus) out.ddelta[i] *= softplus_slope(in.delta[i]);
        dbias += out.ddelta[i];
        tile[mine + i] = out.du[i], tile[LANES * PITCH + mine + i] = out.ddelta[i];
      }
      sums[(S + 1) * ROW_OF_SUMS] += dbias;
      __syncthreads();
      store_rows(t, static_cast<T*>(p.du) + row + start, tile, p.L, channels, count);
      store_rows(t, static_cast<T*>(p.ddelta) + row + start, tile + LANES * PITCH, p.L, channels, count);
      __syncthreads();  // before the next segment overwrites the tiles
    }
    sum_over_warps(t, memory + at.sums, S + 2, [&](int which, float sum) {
      if (t.lane >= channels) return;
      float* const to = which < S ? p.dA + (n * S + which) * KD : (which == S ? p.dskip : p.dbias) + n * KD;
      to[channel] = sum;
    });
    __syncthreads();
  }
}

template <class T>
const char* launch_forward(const Scan& p, void* stream) {
  const int warps = int(p.segment) / ITEMS;
  const ScanShared shared(warps, int(p.S), false);
  return CLEVER_FAST_LAUNCH(scan_forward_kernel<T>, p.N * p.K * blocks_of_channels(p.D), warps * LANES,
                            shared.total * sizeof(float), stream, p);
}

template <class T>
const char* launch_backward(const Scan& p, void* stream) {
  const int warps = int(p.segment) / ITEMS;
  const ScanShared shared(warps, int(p.S), true);
  return CLEVER_FAST_LAUNCH(scan_backward_kernel<T>, p.N * p.K * p.splits, warps * LANES,
                            shared.total * sizeof(float), stream, p);
}

}  // namespace clever_fast::cuda
