// Vectors of 16 floats in the compilers' own vector types: one AVX-512 register, two of AVX2, four of SSE or NEON.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

#include "params.h"

#define CLEVER_FAST_INLINE inline __attribute__((always_inline))

namespace clever_fast::cpu {

constexpr int LANES = 16;
using V = float __attribute__((vector_size(64)));
using I = int32_t __attribute__((vector_size(64)));
using U = uint32_t __attribute__((vector_size(64)));
using Short = uint16_t __attribute__((vector_size(32)));

template <class To, class From>
CLEVER_FAST_INLINE To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

template <class T>
CLEVER_FAST_INLINE T read(const void* from) {
  T to;
  __builtin_memcpy(&to, from, sizeof to);
  return to;
}

CLEVER_FAST_INLINE V splat(float x) { return V{} + x; }

CLEVER_FAST_INLINE V load(const float* from) { return read<V>(from); }

CLEVER_FAST_INLINE void store(float* to, V x) { __builtin_memcpy(to, &x, sizeof x); }

CLEVER_FAST_INLINE V from_bfloat16(U x) { return bits<V>(x << 16); }

CLEVER_FAST_INLINE V from_half(U x) {
  const U magnitude = (x & 0x7fff) << 13;
  const U finite = bits<U>(bits<V>(magnitude) * 0x1p112f);  // moves the exponent; exact for subnormal halves too
  return bits<V>((magnitude >= 0x7c00u << 13 ? finite | 0x7f800000 : finite) | (x & 0x8000) << 16);
}

CLEVER_FAST_INLINE U to_bfloat16(V x) {  // to nearest, ties to even
  const U u = bits<U>(x), rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
  return (u & 0x7fffffff) > 0x7f800000 ? U{} + 0x7fc0 : rounded;
}

CLEVER_FAST_INLINE U to_half(V x) {  // to nearest, ties to even
  const U u = bits<U>(x), magnitude = u & 0x7fffffff;
  const U normal = (magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23)) >> 13;
  const U tiny = bits<U>(bits<V>(magnitude) + 0.5f) - 0x3f000000;  // 0.5's last bit is the smallest half
  const U finite = magnitude < 113u << 23 ? tiny : normal;
  const U special = magnitude > 0x7f800000 ? U{} + 0x7e00 : U{} + 0x7c00;
  return (magnitude >= 0x477ff000 ? special : finite) | (u >> 16 & 0x8000);
}

CLEVER_FAST_INLINE V smaller(V a, V b) { return a < b ? a : b; }
CLEVER_FAST_INLINE V larger(V a, V b) { return a > b ? a : b; }

// 2^x to 2 ulp, at least 2^-126. Coefficients: Cephes, exp2f.
CLEVER_FAST_INLINE V exp2(V x) {
  constexpr float ROUND = 12582912.f;  // 1.5 * 2^23: adding it leaves the nearest integer in the last bits
  x = smaller(larger(x, splat(-126.f)), splat(127.f));
  const V shifted = x + ROUND, f = x - (shifted - ROUND);
  V p = f * 1.535336188319500e-4f + 1.339887440266574e-3f;
  p = p * f + 9.618437357674640e-3f;
  p = p * f + 5.550332471162809e-2f;
  p = p * f + 2.402264791363012e-1f;
  p = p * f + 6.931472028550421e-1f;
  p = p * f + 1.f;
  return bits<V>(bits<I>(p) + (bits<I>(shifted) << 23));
}

constexpr float LOG2_E = 1.4426950408889634f;

// log(1 + e) for e >= 0. Coefficients: Cephes, logf.
CLEVER_FAST_INLINE V log1p(V e) {
  const V one_plus = e + 1.f;
  const V lost = (e - (one_plus - 1.f)) * larger(2.f - one_plus, V{});  // what the sum rounded away, over 1 + e
  const I shifted = bits<I>(one_plus) - 0x3f3504f3;                     // the bits of sqrt(1/2)
  const V exponent = __builtin_convertvector(shifted >> 23, V);
  const V x = bits<V>(bits<I>(one_plus) - (shifted >> 23 << 23)) - 1.f, z = x * x;
  V p = x * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * x + 1.1676998740e-1f;
  p = p * x - 1.2420140846e-1f;
  p = p * x + 1.4249322787e-1f;
  p = p * x - 1.6668057665e-1f;
  p = p * x + 2.0000714765e-1f;
  p = p * x - 2.4999993993e-1f;
  p = p * x + 3.3333331174e-1f;
  p = p * x * z - exponent * 2.12194440e-4f - 0.5f * z;
  return x + (p + lost) + exponent * 0.693359375f;
}

// softplus(x), linear above 20, and its slope.
CLEVER_FAST_INLINE V softplus(V x, V& slope) {
  const V e = exp2(smaller(x, splat(20.f)) * LOG2_E);
  slope = x > 20.f ? splat(1.f) : e / (1.f + e);
  return x > 20.f ? x : log1p(e);
}

CLEVER_FAST_INLINE V softplus(V x) { return x > 20.f ? x : log1p(exp2(smaller(x, splat(20.f)) * LOG2_E)); }

// Swap the two off-diagonal blocks of width B of rows a and b, lanes J.
template <int B, size_t... J>
CLEVER_FAST_INLINE void swap_blocks(V& a, V& b, std::index_sequence<J...>) {
#ifdef __clang__
  const V top = __builtin_shufflevector(a, b, (J & B ? LANES + J - B : J)...);
  const V bottom = __builtin_shufflevector(a, b, (J & B ? LANES + J : J + B)...);
#else
  const V top = __builtin_shuffle(a, b, I{int32_t(J & B ? LANES + J - B : J)...});
  const V bottom = __builtin_shuffle(a, b, I{int32_t(J & B ? LANES + J : J + B)...});
#endif
  a = top, b = bottom;
}

template <int B>
CLEVER_FAST_INLINE void swap_all(V (&rows)[LANES]) {
#pragma GCC unroll 16  // keeps the rows in registers
  for (int i = 0; i < LANES; ++i)
    if (!(i & B)) swap_blocks<B>(rows[i], rows[i + B], std::make_index_sequence<LANES>());
}

CLEVER_FAST_INLINE void transpose(V (&rows)[LANES]) {
  swap_all<8>(rows), swap_all<4>(rows), swap_all<2>(rows), swap_all<1>(rows);
}

// The sum of each of 16 vectors, in one vector.
CLEVER_FAST_INLINE V sum_each(V (&rows)[LANES]) {
  transpose(rows);
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) rows[i] += rows[i + half];
  return rows[0];
}

// Fewer than 16 elements in pieces of 8, 4, 2 and 1: memcpy of a length known only at run time is a call.
template <class T>
CLEVER_FAST_INLINE void copy_some(T* to, const T* from, int64_t count) {
  if (count & 8) __builtin_memcpy(to, from, 8 * sizeof(T)), to += 8, from += 8;
  if (count & 4) __builtin_memcpy(to, from, 4 * sizeof(T)), to += 4, from += 4;
  if (count & 2) __builtin_memcpy(to, from, 2 * sizeof(T)), to += 2, from += 2;
  if (count & 1) *to = *from;
}

// Of fewer than 16 lanes only the first `count` are touched; the others load as 0.
CLEVER_FAST_INLINE V load(const float* from, int64_t count) {
  if (count >= LANES) return load(from);
  float some[LANES] = {};
  copy_some(some, from, count);
  return load(some);
}

CLEVER_FAST_INLINE void store(float* to, V x, int64_t count) {
  if (count >= LANES) return store(to, x);
  float some[LANES];
  store(some, x);
  copy_some(to, some, count);
}

// The same of elements of any dtype, `offset` elements after `base`.
CLEVER_FAST_INLINE V load(Dtype dtype, const void* base, int64_t offset, int64_t count) {
  if (dtype == Dtype::float32) return load(static_cast<const float*>(base) + offset, count);
  const uint16_t* const from = static_cast<const uint16_t*>(base) + offset;
  uint16_t some[LANES] = {};
  if (count < LANES) copy_some(some, from, count);
  const U wide = __builtin_convertvector(read<Short>(count < LANES ? some : from), U);
  return dtype == Dtype::float16 ? from_half(wide) : from_bfloat16(wide);
}

CLEVER_FAST_INLINE void store(Dtype dtype, void* base, int64_t offset, V x, int64_t count) {
  if (dtype == Dtype::float32) return store(static_cast<float*>(base) + offset, x, count);
  const Short half = __builtin_convertvector(dtype == Dtype::float16 ? to_half(x) : to_bfloat16(x), Short);
  uint16_t* const to = static_cast<uint16_t*>(base) + offset;
  if (count >= LANES) {
    __builtin_memcpy(to, &half, sizeof half);
    return;
  }
  uint16_t some[LANES];
  __builtin_memcpy(some, &half, sizeof half);
  copy_some(to, some, count);
}

}  // namespace clever_fast::cpu
