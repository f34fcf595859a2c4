// The GPU's instructions for which C++ has no word. The emulator in tests/ has its own of each name.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace clever_fast::cuda {

// 2^x to 2 ulp; less than 2^-126 is 0.
__device__ inline float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x to 1 ulp, for x of ordinary size.
__device__ inline float reciprocal_approximate(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Adds where the memory is, without reading back; without a jump where it does nothing. The order of sums is fixed as
// long as one thread adds to an address between two barriers.
__device__ inline void add_in_memory(bool here, float* to, float x) {
  asm volatile(
      "{ .reg .pred here; setp.ne.s32 here, %2, 0; @here red.global.add.f32 [%0], %1; }" ::"l"(to), "f"(x), "r"(int(here))
      : "memory");
}
__device__ inline void store_in_memory(bool here, float* to, float x) {
  asm volatile(
      "{ .reg .pred here; setp.ne.s32 here, %2, 0; @here st.global.f32 [%0], %1; }" ::"l"(to), "f"(x), "r"(int(here))
      : "memory");
}

// The same pointer, in a register from now on: the compiler would compute it anew, in four instructions, at each use.
template <class T>
__device__ inline T* kept(T* pointer) {
  asm("" : "+l"(pointer));
  return pointer;
}

// Two floats as bfloat16, rounded to nearest, the first in the lower half.
__device__ inline uint32_t pack_bfloat16(float low, float high) {
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

// Four matrices of 8 x 8 16-bit elements from shared memory: lane 8 j + i names row i of matrix j, 16 aligned bytes.
// Lane 4 g + q then holds elements 2 q and 2 q + 1 of row g; TRANSPOSED: of column g.
template <bool TRANSPOSED>
__device__ inline void load_matrices(uint32_t (&to)[4], const void* row) {
  const unsigned at = unsigned(__cvta_generic_to_shared(row));
  if constexpr (TRANSPOSED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}

// sum (16 x 8) += a (16 x 16) b (16 x 8) in bfloat16 with sums in float32. Lane 4 g + q holds of a rows g and g + 8, and
// of these columns 2 q, 2 q + 1 (a[0], a[1]) and 8 more (a[2], a[3]); of b the same rows of column g; of the sum columns
// 2 q, 2 q + 1 of rows g and g + 8.
__device__ inline void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same with 8 columns of a and rows of b.
__device__ inline void multiply_add(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(b));
}

}  // namespace clever_fast::cuda
