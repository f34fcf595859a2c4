// Runs CUDA kernels on a CPU: the very headers that nvcc compiles, under g++, one fibre for each CUDA thread.
//
// It finds: barriers that not all threads of a block reach (it stops with a message), missing barriers (warps run in a
// random order, each as far ahead of the others as barriers allow), reads of shared memory that nobody wrote (it holds
// NaN), and with AddressSanitizer accesses outside global or shared memory.
// It does not know: PTX, the speed of anything, or the rounding of the GPU's own exp and log.
#pragma once
#include <sanitizer/asan_interface.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __shared__
#define __launch_bounds__(...)
#define __grid_constant__

struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct int2 {
  int x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
inline float __uint_as_float(uint32_t bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
inline __nv_bfloat16 __float2bfloat16_rn(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  if (std::isnan(f)) return {0x7fc0};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
struct __half {
  _Float16 value;
};
inline float __half2float(__half x) { return float(x.value); }
inline __half __float2half_rn(float f) { return {_Float16(f)}; }

inline int min(int a, int b) { return a < b ? a : b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

#define CLEVER_FAST_VISIT(place) simt::visit(place)

namespace simt {

enum class State { ready, at_block_barrier, at_warp_barrier, done };

struct Fibre {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  State state;
  unsigned thread;
  void* fake_stack;
};

struct Block {
  std::vector<Fibre> fibres;
  ucontext_t scheduler;
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_size = 0;
  Fibre* current = nullptr;
  const std::function<void()>* body = nullptr;
  std::vector<uint64_t> exchanged;
  unsigned index = 0, threads = 0;
};

constexpr size_t STACK = 64 << 10;
inline Block block;

// How often each place that the source marks was visited: by each thread of this block, and by the warps of all blocks.
constexpr int PLACES = 64;
inline std::vector<std::vector<int64_t>> visits(PLACES);
inline int64_t visits_by_warps[PLACES];

inline void visit(int place) { ++visits[place][block.current->thread]; }

// A warp visits a place as often as that of its threads which visits it most.
inline void add_visits() {
  for (int place = 0; place < PLACES; ++place)
    for (unsigned first = 0; first < block.threads; first += 32)
      visits_by_warps[place] += *std::max_element(&visits[place][first], &visits[place][first] + 32);
}

// AddressSanitizer follows the switch of stacks when it is told.
inline void to_scheduler() {
  Fibre* const me = block.current;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(me->state == State::done ? nullptr : &me->fake_stack, block.scheduler_stack,
                                 block.scheduler_stack_size);
#endif
  swapcontext(&me->context, &block.scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(me->fake_stack, nullptr, nullptr);
#endif
}

inline void resume(Fibre& fibre) {
  block.current = &fibre;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&block.scheduler_fake_stack, fibre.stack.get(), STACK);
#endif
  swapcontext(&block.scheduler, &fibre.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(block.scheduler_fake_stack, nullptr, nullptr);
#endif
}

inline void wait(State state) {
  block.current->state = state;
  to_scheduler();
}

inline void run_fibre() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &block.scheduler_stack, &block.scheduler_stack_size);
#endif
  (*block.body)();
  block.current->state = State::done;
  to_scheduler();
}

// One warp runs until it can only wait for the block, so that it is as far ahead of the others as it can be.
inline bool run_warp(unsigned first, unsigned last, std::mt19937& random) {
  bool ran = false;
  for (;;) {
    std::vector<unsigned> order;
    for (unsigned t = first; t < last; ++t)
      if (block.fibres[t].state == State::ready) order.push_back(t);
    std::shuffle(order.begin(), order.end(), random);
    for (const unsigned t : order) resume(block.fibres[t]), ran = true;
    unsigned living = 0, waiting = 0;
    for (unsigned t = first; t < last; ++t) {
      living += block.fibres[t].state != State::done;
      waiting += block.fibres[t].state == State::at_warp_barrier;
    }
    if (!living || waiting != living) return ran;
    for (unsigned t = first; t < last; ++t)
      if (block.fibres[t].state == State::at_warp_barrier) block.fibres[t].state = State::ready;
  }
}

inline void run_block(unsigned index, unsigned threads, unsigned seed, const std::function<void()>& body) {
  block.body = &body, block.index = index, block.threads = threads;
  block.exchanged.assign(threads, 0);
  for (auto& of_place : visits) of_place.assign(threads, 0);
  while (block.fibres.size() < threads) block.fibres.push_back({{}, std::make_unique<char[]>(STACK), {}, 0, nullptr});
  for (unsigned t = 0; t < threads; ++t) {
    Fibre& fibre = block.fibres[t];
    fibre.thread = t, fibre.state = State::ready, fibre.fake_stack = nullptr;
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.get(), fibre.context.uc_stack.ss_size = STACK;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, run_fibre, 0);
  }
  std::mt19937 random(seed * 7919 + index);
  std::vector<unsigned> warps(threads / 32);
  for (unsigned w = 0; w < warps.size(); ++w) warps[w] = w;
  for (;;) {
    bool ran = false;
    std::shuffle(warps.begin(), warps.end(), random);
    for (const unsigned w : warps) ran |= run_warp(w * 32, w * 32 + 32, random);
    unsigned done = 0, waiting = 0;
    for (unsigned t = 0; t < threads; ++t) {
      done += block.fibres[t].state == State::done;
      waiting += block.fibres[t].state == State::at_block_barrier;
    }
    if (done == threads) return add_visits();
    if (waiting == threads)
      for (unsigned t = 0; t < threads; ++t) block.fibres[t].state = State::ready;
    else if (!ran) {
      fprintf(stderr, "divergent barrier: block %u, %u of %u threads wait at one, %u are done\n", index, waiting,
              threads, done);
      _exit(3);
    }
  }
}

template <class T>
T exchange(T value, unsigned from) {
  static_assert(sizeof(T) <= 8);
  const unsigned thread = block.current->thread, first = thread / 32 * 32;
  memcpy(&block.exchanged[thread], &value, sizeof value);
  wait(State::at_warp_barrier);
  memcpy(&value, &block.exchanged[first + from % 32], sizeof value);
  wait(State::at_warp_barrier);
  return value;
}

// What each lane of the warp has.
template <class T>
std::array<T, 32> exchange_all(T value) {
  static_assert(sizeof(T) <= 8);
  const unsigned thread = block.current->thread;
  memcpy(&block.exchanged[thread], &value, sizeof value);
  wait(State::at_warp_barrier);
  std::array<T, 32> all;
  for (unsigned lane = 0; lane < 32; ++lane) memcpy(&all[lane], &block.exchanged[thread / 32 * 32 + lane], sizeof value);
  wait(State::at_warp_barrier);
  return all;
}

struct ThreadIndex {
  struct {
    operator unsigned() const { return block.current->thread; }
  } x;
};
struct BlockIndex {
  struct {
    operator unsigned() const { return block.index; }
  } x;
};
struct BlockSize {
  struct {
    operator unsigned() const { return block.threads; }
  } x;
};

}  // namespace simt

inline simt::ThreadIndex threadIdx;
inline simt::BlockIndex blockIdx;
inline simt::BlockSize blockDim;

inline void __syncthreads() { simt::wait(simt::State::at_block_barrier); }
inline void __syncwarp() { simt::wait(simt::State::at_warp_barrier); }
template <class T>
T __shfl_sync(unsigned, T value, int from) {
  return simt::exchange(value, unsigned(from));
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return simt::exchange(value, simt::block.current->thread % 32 ^ unsigned(mask));
}

// ---- csrc/selective_scan/instructions.cuh
namespace clever_fast::cuda {

inline float exp2_approximate(float x) { return x < -126.f ? 0.f : std::exp2(x); }
inline float reciprocal_approximate(float x) { return 1.f / x; }
inline void add_in_memory(bool here, float* to, float x) {
  if (here) *to += x;
}
inline void store_in_memory(bool here, float* to, float x) {
  if (here) *to = x;
}
template <class T>
T* kept(T* pointer) {
  return pointer;
}
inline uint32_t pack_bfloat16(float low, float high) {
  return __float2bfloat16_rn(low).bits | uint32_t(__float2bfloat16_rn(high).bits) << 16;
}

template <bool TRANSPOSED>
void load_matrices(uint32_t (&to)[4], const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16) fprintf(stderr, "a row of a matrix is not aligned\n"), _exit(4);
  const unsigned lane = simt::block.current->thread % 32, g = lane / 4, q = lane % 4;
  const auto rows = simt::exchange_all(static_cast<const uint16_t*>(row));
  for (unsigned j = 0; j < 4; ++j) {
    const uint16_t* const matrix[2] = {rows[8 * j + (TRANSPOSED ? 2 * q : g)], rows[8 * j + (TRANSPOSED ? 2 * q + 1 : g)]};
    to[j] = matrix[0][TRANSPOSED ? g : 2 * q] | uint32_t(matrix[1][TRANSPOSED ? g : 2 * q + 1]) << 16;
  }
  __syncwarp();  // all have read before one goes on to write
}

struct Fragments {
  uint32_t a[4], b[2];
};

inline void multiply_add(float (&sum)[4], const Fragments& own, unsigned columns) {
  const unsigned lane = simt::block.current->thread % 32, g = lane / 4, q = lane % 4;
  const auto of_lanes = simt::exchange_all(&own);
  const auto number = [](uint32_t both, unsigned which) { return __bfloat162float({uint16_t(both >> 16 * which)}); };
  for (unsigned k = 0; k < columns; ++k)
    for (unsigned i = 0; i < 4; ++i) {  // row g or g + 8 of a, column 2 q or 2 q + 1 of b
      const float a = number(of_lanes[4 * g + k % 8 / 2]->a[k / 8 * 2 + i / 2], k % 2);
      const float b = number(of_lanes[4 * (2 * q + i % 2) + k % 8 / 2]->b[k / 8], k % 2);
      sum[i] += a * b;
    }
  __syncwarp();
}
inline void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  multiply_add(sum, {{a[0], a[1], a[2], a[3]}, {b0, b1}}, 16);
}
inline void multiply_add(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  multiply_add(sum, {{a0, a1}, {b}}, 8);
}

inline float4 shared[64 << 10 >> 2];  // what `extern __shared__ float4 shared[]` in a kernel names

template <class Kernel, class Params>
const char* launch(Kernel kernel, int64_t blocks, int threads, size_t bytes, void* seed, const Params& p) {
  if (bytes > sizeof shared || threads % 32) return "more shared memory than the emulator has, or part of a warp";
  const std::function<void()> body = [&] { kernel(p); };
  for (int64_t i = 0; i < blocks; ++i) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::fill(std::begin(shared), std::end(shared), float4{nan, nan, nan, nan});
    ASAN_POISON_MEMORY_REGION(reinterpret_cast<char*>(shared) + bytes, sizeof shared - bytes);
    simt::run_block(unsigned(i), unsigned(threads), *static_cast<unsigned*>(seed), body);
    ASAN_UNPOISON_MEMORY_REGION(shared, sizeof shared);
  }
  return nullptr;
}

}  // namespace clever_fast::cuda

#define CLEVER_FAST_LAUNCH launch
