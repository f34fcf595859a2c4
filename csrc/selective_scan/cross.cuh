// cross_scan's CUDA kernels. x lies channels innermost, so in every direction the 32 channels of a position are one
// contiguous read, and the order of positions is arithmetic on an index.
#pragma once
#include "low_rank.cuh"

namespace clever_fast::cuda {

// Offsets into a block's shared memory, in floats.
struct CrossShared {
  static constexpr int stretches = 0, places = stretches + 2 * 2 * MAX_WARPS * LANES, carry = places + MAX_CUDA_SEGMENT;
  int sums, low, total;
  CLEVER_FAST_BOTH CrossShared(int S, bool backward, int floats_of_low_rank) {
    sums = carry + 2 * S * LANES;
    low = sums + (backward ? (S + 2) * ROW_OF_SUMS : 0);
    total = low + floats_of_low_rank;
  }
};

// Where the positions of a warp are in an image. Those past the end are at the last one: what is read there is not used.
struct Positions {
  int left;       // from this warp's first one to the end
  int mine;       // of position `lane % 8`
  int* of_block;  // all of the block in shared memory
  int* of_warp;

  __device__ Positions(Thread t, const CrossScan& p, int k, int start, int* places) {
    const int L = int(p.H) * int(p.W), first = start + t.warp * ITEMS;
    left = L - first, mine = int(position(k, min(first + t.lane % ITEMS, L - 1), int(p.H), int(p.W)));
    of_block = places, of_warp = places + t.warp * ITEMS;
    if (t.lane < ITEMS) of_warp[t.lane] = mine;
    __syncwarp();
  }
};

// This thread's channel at 8 positions of an image, all loads under way together.
template <class T>
__device__ inline void load_items(T (&to)[ITEMS], const T* channel, const Positions& at, int D) {
#pragma unroll
  for (int i = 0; i < ITEMS; ++i) to[i] = channel[at.of_warp[i] * D];
}

__device__ inline void store_items(
    bool add, float* channel, const Positions& at, int D, int left, const float (&x)[ITEMS]) {
  if (add) {
    CLEVER_FAST_VISIT(ADDED);
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) add_in_memory(i < left, channel + at.of_warp[i] * D, x[i]);
  } else {
    CLEVER_FAST_VISIT(SET);
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) store_in_memory(i < left, channel + at.of_warp[i] * D, x[i]);
  }
}

template <class Low>
__global__ void __launch_bounds__(MAX_WARPS* LANES, Low::FORWARD_BLOCKS)
    cross_forward_kernel(const __grid_constant__ CrossScan p) {
  extern __shared__ float4 shared[];
  using T = typename Low::Element;
  float* const memory = reinterpret_cast<float*>(shared);
  const Thread t;
  const int S = Low::STATES ? Low::STATES : int(p.S), D = int(p.D), tiles = (D + LANES - 1) / LANES;
  const CrossShared at(S, false, 0);
  const int n = int(blockIdx.x) / tiles, lane_channel = int(blockIdx.x) % tiles * LANES + t.lane;
  const int channel = min(lane_channel, D - 1);
  const bool active = lane_channel < D;
  Low low(p, t, memory + at.low);
  Stretch* const stretches = reinterpret_cast<Stretch*>(memory + at.stretches);
  float* const carry = memory + at.carry + t.lane;
  const int64_t image = n * p.L();
  const T* const x = kept(static_cast<const T*>(p.x) + image * D + channel);
  float* const y = kept(p.y + image * D + channel);
  int turn = 0, half = 0;  // of `carry`, and of `stretches`
#pragma unroll 1
  for (int k = 0; k < 4; ++k) {
    CLEVER_FAST_VISIT(DIRECTION);
    const float skip = p.skip[k * D + channel], bias = p.bias[k * D + channel];
    const T* const rows = kept(static_cast<const T*>(p.low) + (image * 4 + k) * p.width());
    // Other warps are past the barrier of the last segment, so they have expanded with the weights of the last direction;
    // what they still add to y is there before this warp adds to it, after the barrier of the next segment.
    low.template stage<false>(k, channel, active);
    __syncthreads();  // before the weights are used
    int64_t of_states = (n * 4 + k) * p.segments() * S * D + channel;
#pragma unroll 1
    for (int start = 0, L = int(p.L()); start < L; start += int(p.segment)) {
      CLEVER_FAST_VISIT(SEGMENT);
      const Positions positions(t, p, k, start, reinterpret_cast<int*>(memory + at.places));
      typename Low::Rows fetched;
      T raw[ITEMS];
      low.fetch(fetched, rows, positions.mine);
      load_items(raw, x, positions, D);
      low.keep(fetched);
      Inputs in;
      float y_own[ITEMS];
      low.expand(k, channel, bias, in.delta);
#pragma unroll
      for (int i = 0; i < ITEMS; ++i) {
        float e;
        in.delta[i] = softplus(in.delta[i], e);
        in.u[i] = load(&raw[i]);
        y_own[i] = skip * in.u[i];
      }
      if (positions.left < ITEMS) {
        CLEVER_FAST_VISIT(PARTIAL);
#pragma unroll
        for (int i = 0; i < ITEMS; ++i)  // a step of length 0 past the end leaves the state as it is
          if (i >= positions.left) in.delta[i] = 0.f;
      }
#pragma unroll 1
      for (int s = 0; s < S; ++s, half ^= 1) {
        CLEVER_FAST_VISIT(STATE);
        const float* const before = carry + (turn * S + s) * LANES;
        const auto state = [=] { return start == 0 ? 0.f : *before; };
        scan_forward(t, in, low.matrices(s), p.A[(k * S + s) * D + channel], stretches + half * MAX_WARPS * LANES,
                     state, [=](float h) { carry[((turn ^ 1) * S + s) * LANES] = h; }, y_own);
        if (t.warp == 0 && active) p.states[of_states] = state();
        of_states += D;
      }
      turn ^= 1;
      store_items(k > 0, y, positions, D, active ? positions.left : 0, y_own);
      __syncwarp();  // before the next segment overwrites the positions and rows
    }
  }
}

// A block has a share of the images and a share of the channels, 32 after 32. The weights of a direction are staged, and
// their gradients' sums written, once for all its images.
template <class Low>
__global__ void __launch_bounds__(MAX_WARPS* LANES, 2) cross_backward_kernel(const __grid_constant__ CrossScan p) {
  extern __shared__ float4 shared[];
  using T = typename Low::Element;
  float* const memory = reinterpret_cast<float*>(shared);
  const Thread t;
  const int S = Low::STATES ? Low::STATES : int(p.S), D = int(p.D), tiles = (D + LANES - 1) / LANES;
  const CrossShared at(S, true, 0);
  const int group = int(blockIdx.x) / int(p.splits), split = int(blockIdx.x) % int(p.splits);
  Low low(p, t, memory + at.low);
  Stretch* const stretches = reinterpret_cast<Stretch*>(memory + at.stretches);
  float* const carry = memory + at.carry + t.lane;
  float* const sums = memory + at.sums + t.warp * LANES + t.lane;
  int* const places = reinterpret_cast<int*>(memory + at.places);
  const int begin = int(share(split, p.splits, tiles)), end = int(share(split + 1, p.splits, tiles));
  const int first_image = int(share(group, p.groups, p.N)), last_image = int(share(group + 1, p.groups, p.N));
  const int segments = int(p.segments());
  int turn = 0;
#pragma unroll 1
  for (int tile = begin; tile < end; ++tile) {
    CLEVER_FAST_VISIT(TILE);
    const int channel = min(tile * LANES + t.lane, D - 1);
    const bool active = tile * LANES + t.lane < D;
#pragma unroll 1
    for (int k = 0; k < 4; ++k) {
      CLEVER_FAST_VISIT(DIRECTION);
      const float skip = p.skip[k * D + channel], bias = p.bias[k * D + channel];
#pragma unroll 1
      for (int s = 0; s < S + 2; ++s) {
        CLEVER_FAST_VISIT(SUMS);
        sums[s * ROW_OF_SUMS] = 0.f;
      }
      low.template stage<true>(k, channel, active);
      __syncthreads();
#pragma unroll 1
      for (int n = first_image; n < last_image; ++n) {
        CLEVER_FAST_VISIT(IMAGE);
        const int64_t image = n * p.L();
        const T* const x = kept(static_cast<const T*>(p.x) + image * D + channel);
        const float* const dy_image = kept(p.dy + image * D + channel);
        float* const dx = kept(p.dx + image * D + channel);
        const T* const rows = static_cast<const T*>(p.low) + (image * 4 + k) * p.width();
        float* const dlow = p.dlow + ((split * p.N * p.L() + image) * 4 + k) * p.width();
#pragma unroll 1
        for (int segment = segments - 1; segment >= 0; --segment) {
          CLEVER_FAST_VISIT(SEGMENT);
          const Positions positions(t, p, k, segment * int(p.segment), places);
          typename Low::Rows fetched;
          T raw[ITEMS];
          float dy[ITEMS];
          low.fetch(fetched, rows, positions.mine);
          load_items(raw, x, positions, D);
          load_items(dy, dy_image, positions, D);
          low.keep(fetched);
          Inputs in;
          Gradients out;
          float slope[ITEMS];
          low.expand(k, channel, bias, in.delta);
#pragma unroll
          for (int i = 0; i < ITEMS; ++i) {
            const float before = in.delta[i];
            in.delta[i] = softplus(before, slope[i]);
            slope[i] = softplus_slope(before, slope[i]);
            in.u[i] = load(&raw[i]);
          }
          low.park(slope);
          if (!active || positions.left < ITEMS) {
            CLEVER_FAST_VISIT(PARTIAL);
#pragma unroll
            for (int i = 0; i < ITEMS; ++i) {
              if (!active) dy[i] = 0.f;
              if (i >= positions.left) in.delta[i] = in.u[i] = dy[i] = 0.f;
            }
          }
          float dskip = 0.f, dbias = 0.f;
#pragma unroll
          for (int i = 0; i < ITEMS; ++i) {
            out.du[i] = skip * dy[i], out.ddelta[i] = 0.f;
            dskip += in.u[i] * dy[i];
          }
          sums[S * ROW_OF_SUMS] += dskip;
#pragma unroll 1
          for (int s = 0; s < S; ++s) {
            CLEVER_FAST_VISIT(STATE);
            const float* const state = p.states + (((n * 4 + k) * int64_t(segments) + segment) * S + s) * D + channel;
            const float* const before = carry + (turn * S + s) * LANES;
            const float of_A = p.A[(k * S + s) * D + channel], entering = *state;
            sums[s * ROW_OF_SUMS] += scan_backward(
                t, in, [&](int i) { return dy[i]; }, low.matrices(s), of_A, stretches, [=] { return entering; },
                [=] { return segment == segments - 1 ? 0.f : *before; },
                [=](float g) { carry[((turn ^ 1) * S + s) * LANES] = g; }, out);
            // of the four lanes that hold a position's sums, two write them
            add_or_set(tile > begin, t.lane % 4 < 2 && t.lane / 4 < positions.left,
                       dlow + positions.of_warp[t.lane / 4] * 4 * int(p.width()) + p.R + s + t.lane % 4 * S,
                       t.lane % 4 ? out.dC : out.dB);
          }
          turn ^= 1;
          low.fetch_parked(slope);
#pragma unroll
          for (int i = 0; i < ITEMS; ++i) dbias += out.ddelta[i] *= slope[i];
          sums[(S + 1) * ROW_OF_SUMS] += dbias;
          store_items(k > 0, dx, positions, D, active ? positions.left : 0, out.du);
          low.gradients(out.ddelta, positions.of_block, positions.left, {dlow, tile > begin});
        }
      }
      __syncthreads();
      sum_over_warps(t, memory + at.sums, S + 2, [&](int which, float sum) {
        const int64_t of_group = int64_t(group) * 4 + k;
        float* const to = which < S ? p.dA + (of_group * S + which) * D : (which == S ? p.dskip : p.dbias) + of_group * D;
        if (active) to[channel] = sum;
      });
      low.write(p.dweight + (int64_t(group) * 4 + k) * p.R * D + channel, active);
      __syncthreads();  // the next direction adds to what other warps wrote, and stages other weights
    }
  }
}

// `use` of the form for operands of type T: on tensor cores for bfloat16, one state and a rank of VMamba's networks.
template <class T, class Use>
auto with_low_rank(int64_t S, int64_t R, Use use) {
#ifndef ONLY_FLOAT32
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    if (S == 1) switch (R) {
        case 6: return use.template operator()<RankOnTensorCores<6>>();
        case 8: return use.template operator()<RankOnTensorCores<8>>();
        case 12: return use.template operator()<RankOnTensorCores<12>>();
        case 16: return use.template operator()<RankOnTensorCores<16>>();
        case 24: return use.template operator()<RankOnTensorCores<24>>();
        case 32: return use.template operator()<RankOnTensorCores<32>>();
        case 48: return use.template operator()<RankOnTensorCores<48>>();
        case 64: return use.template operator()<RankOnTensorCores<64>>();
      }
#endif
  return use.template operator()<AnyRank<T>>();
}

struct SharedBytes {
  int warps, S, R;
  bool backward;
  template <class Low>
  size_t operator()() const {
    return CrossShared(S, backward, Low::floats(warps, S, R, backward)).total * sizeof(float);
  }
};

template <bool BACKWARD>
struct Launch {
  const CrossScan& p;
  void* stream;
  template <class Low>
  const char* operator()() const {
    const int warps = int(p.segment) / ITEMS;
    const size_t bytes = SharedBytes{warps, int(p.S), int(p.R), BACKWARD}.template operator()<Low>();
    if constexpr (BACKWARD)
      return CLEVER_FAST_LAUNCH(cross_backward_kernel<Low>, p.groups * p.splits, warps * LANES, bytes, stream, p);
    else
      return CLEVER_FAST_LAUNCH(cross_forward_kernel<Low>, p.N * blocks_of_channels(p.D), warps * LANES, bytes, stream, p);
  }
};

template <class T>
const char* launch_forward(const CrossScan& p, void* stream) {
  return with_low_rank<T>(p.S, p.R, Launch<false>{p, stream});
}

template <class T>
const char* launch_backward(const CrossScan& p, void* stream) {
  return with_low_rank<T>(p.S, p.R, Launch<true>{p, stream});
}

}  // namespace clever_fast::cuda
