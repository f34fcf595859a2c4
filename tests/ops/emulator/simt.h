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

inline float __expf(float x) { return std::exp(x); }
using std::exp2f;
using std::expm1f;
using std::log1pf;
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

namespace clever_fast::cuda {

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
