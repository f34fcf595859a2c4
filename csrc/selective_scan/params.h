// What the kernels are given. Letters as in clever_fast/ops: N images, K groups of D channels, S states, L positions,
// R the rank of delta. Plain pointers and sizes: this header and all that includes it know nothing of torch.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define CLEVER_FAST_BOTH __host__ __device__
#else
#define CLEVER_FAST_BOTH
#endif

namespace clever_fast {

// Positions between two saved states: at most four vectors of 16 on a CPU, and on a GPU 7 warps of 8, of which two
// blocks fit on a multiprocessor with 128 registers a thread.
constexpr int MAX_CUDA_SEGMENT = 56, MAX_CPU_SEGMENT = 64;
constexpr int MAX_STATES = 16;
constexpr int MAX_RANK = 128;

enum class Dtype { float32, float16, bfloat16 };

// y of selective_scan, and its gradients. Float tensors whose comment starts with a plus are partial sums over that
// first axis; torch adds them up, so that no kernel needs an atomic.
struct Scan {
  int64_t N, K, D, S, L, segment, splits;  // `splits` shares of the D channels
  bool softplus;
  Dtype dtype;                 // of u, delta, B, C, du and ddelta
  const void *u, *delta;       // (N, K*D, L)
  const void *B, *C;           // (N, K, S, L)
  const float *A;              // (S, K*D)
  const float *skip, *bias;    // (K*D)
  float *y;                    // (N, K*D, L)
  float *states;               // (N, segments, S, K*D): the state before each segment
  const float *dy;             // (N, K*D, L)
  void *du, *ddelta;           // (N, K*D, L)
  float *dA;                   // +(N, S, K*D)
  float *dskip, *dbias;        // +(N, K*D)
  float *dB, *dC;              // +(splits, N, K, S, L)

  CLEVER_FAST_BOTH int64_t segments() const { return (L + segment - 1) / segment; }
};

// y of cross_scan: four scans over an image, each position's step, input and output matrices in `low`.
struct CrossScan {
  int64_t N, H, W, D, S, R, segment, splits, groups;  // `groups` shares of the N images
  Dtype dtype;                 // of x and low
  const void *x;               // (N, H*W, D)
  const void *low;             // (N, H*W, 4, R + 2S): delta before its expansion, B, C
  const float *weight;         // (4, R, D)
  const float *A;              // (4, S, D)
  const float *skip, *bias;    // (4, D)
  float *y;                    // (N, H*W, D)
  float *states;               // (N, 4, segments, S, D)
  const float *dy;             // (N, H*W, D)
  float *dx;                   // (N, H*W, D)
  float *dlow;                 // +(splits, N, H*W, 4, R + 2S)
  float *dweight;              // +(groups, 4, R, D)
  float *dA;                   // +(groups, 4, S, D)
  float *dskip, *dbias;        // +(groups, 4, D)

  CLEVER_FAST_BOTH int64_t L() const { return H * W; }
  CLEVER_FAST_BOTH int64_t segments() const { return (L() + segment - 1) / segment; }
  CLEVER_FAST_BOTH int64_t width() const { return R + 2 * S; }
};

// Where step `l` of direction `k` is in the image: row by row, column by column, and both backwards.
CLEVER_FAST_BOTH inline int64_t position(int k, int l, int H, int W) {
  const unsigned step = unsigned(k < 2 ? l : H * W - 1 - l), height = unsigned(H);
  return k % 2 == 0 ? step : (step % height) * unsigned(W) + step / height;
}

// The first element of the `part`-th of `parts` nearly equal shares of `count`.
CLEVER_FAST_BOTH inline int64_t share(int64_t part, int64_t parts, int64_t count) { return part * count / parts; }

}  // namespace clever_fast
