// Vectors of LANES floats in the compilers' own vector types, as wide as a register of the instruction set: compilers
// take wider ones apart element by element where they are compared or shuffled.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "params.h"

#define CLEVER_FAST_INLINE inline __attribute__((always_inline))

namespace clever_fast::cpu::CLEVER_FAST_CPU {

constexpr int LANES = CLEVER_FAST_LANES;

template <class T, int COUNT>
struct VectorOf {
  typedef T type __attribute__((vector_size(COUNT * sizeof(T))));  // gcc ignores the attribute in a `using`
};
template <class T, int COUNT = LANES>
using Vector = typename VectorOf<T, COUNT>::type;
using V = Vector<float>;
using I = Vector<int32_t>;
using U = Vector<uint32_t>;
using Short = Vector<uint16_t>;

template <class To, class From>
CLEVER_FAST_INLINE To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// Vectors anywhere in memory. gcc copies one by way of other registers if memcpy asks for it.
template <class T, class Element>
struct Unaligned {
  typedef T type __attribute__((aligned(alignof(Element)), may_alias));
};

template <class T, class Element>
CLEVER_FAST_INLINE T read(const Element* from) {
  return *reinterpret_cast<const typename Unaligned<T, Element>::type*>(from);
}

template <class T, class Element>
CLEVER_FAST_INLINE void write(Element* to, T x) {
  *reinterpret_cast<typename Unaligned<T, Element>::type*>(to) = x;
}

CLEVER_FAST_INLINE V splat(float x) { return V{} + x; }

CLEVER_FAST_INLINE V load(const float* from) { return read<V>(from); }

CLEVER_FAST_INLINE void store(float* to, V x) { write(to, x); }

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

// Between floats and elements of `dtype`; those of float32 are floats already.
CLEVER_FAST_INLINE V widen(V x, Dtype) { return x; }

CLEVER_FAST_INLINE V widen(Short x, Dtype dtype) {
  const U wide = __builtin_convertvector(x, U);
  return dtype == Dtype::float16 ? from_half(wide) : from_bfloat16(wide);
}

CLEVER_FAST_INLINE Short narrow(V x, Dtype dtype) {
  return __builtin_convertvector(dtype == Dtype::float16 ? to_half(x) : to_bfloat16(x), Short);
}

// x, but no more or no less than a bound. NaN stays NaN. gcc finds the one instruction for it only where it does not
// know the bound.
CLEVER_FAST_INLINE V hidden(float x) {
  asm("" : "+r"(x));
  return splat(x);
}

CLEVER_FAST_INLINE V at_most(V x, float bound) {
  const V most = hidden(bound);
  return x > most ? most : x;
}

CLEVER_FAST_INLINE V at_least(V x, float bound) {
  const V least = hidden(bound);
  return x < least ? least : x;
}

// 2^x to 2 ulp, at least 2^-126. Coefficients: Cephes, exp2f.
CLEVER_FAST_INLINE V exp2(V x) {
  constexpr float ROUND = 12582912.f;  // 1.5 * 2^23: adding it leaves the nearest integer in the last bits
  x = at_most(at_least(x, -126.f), 127.f);
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

// softplus(x) and its slope: with e = exp(-|x|), max(x, 0) + 2 atanh(s) for s = e / (2 + e), and max(e, ...) / (1 + e).
// Above 20 it is x in float32, as torch has it. atanh(s) / s - 1 over s^2: fitted on [0, 1/9] to 2e-8 of the whole.
CLEVER_FAST_INLINE V softplus(V x, V& slope) {
  const V e = exp2(bits<V>(bits<U>(x) | 0x80000000) * LOG2_E);
  const V both = 1.f / ((1.f + e) * (2.f + e));  // one division for two
  const V s = e * (1.f + e) * both, z = s * s;
  V p = z * 0.13433774f + 0.14116979f;
  p = p * z + 0.20003836f;
  p = p * z + 0.33333319f;
  slope = (x < 0.f ? e : splat(1.f)) * (2.f + e) * both;
  return at_least(x, 0.f) + 2.f * (p * z * s + s);
}

CLEVER_FAST_INLINE V softplus(V x) {
  V slope;
  return softplus(x, slope);
}

#if !defined(__has_builtin)
#define CLEVER_FAST_SHUFFLES 0
#else
#define CLEVER_FAST_SHUFFLES __has_builtin(__builtin_shufflevector)  // clang, and gcc from 12 on
#endif

// Two vectors side by side, and one cut in halves.
template <class Wide, class Half, size_t... J>
CLEVER_FAST_INLINE Wide join(Half a, Half b, std::index_sequence<J...>) {
#if CLEVER_FAST_SHUFFLES
  return __builtin_shufflevector(a, b, J...);
#else
  const Half both[2] = {a, b};
  return read<Wide>(reinterpret_cast<const char*>(both));
#endif
}

template <int FIRST, class Half, class Wide, size_t... J>
CLEVER_FAST_INLINE Half cut(Wide x, std::index_sequence<J...>) {
#if CLEVER_FAST_SHUFFLES
  return __builtin_shufflevector(x, x, (FIRST + J)...);
#else
  return read<Half>(reinterpret_cast<const char*>(&x) + FIRST * sizeof(Half) / sizeof...(J));
#endif
}

// Swap the two off-diagonal blocks of width B of rows a and b, lanes J.
template <int B, size_t... J>
CLEVER_FAST_INLINE void swap_blocks(V& a, V& b, std::index_sequence<J...>) {
#if CLEVER_FAST_SHUFFLES
  const V top = __builtin_shufflevector(a, b, (J & B ? LANES + J - B : J)...);
  const V bottom = __builtin_shufflevector(a, b, (J & B ? LANES + J : J + B)...);
#else
  const V top = __builtin_shuffle(a, b, I{int32_t(J & B ? LANES + J - B : J)...});
  const V bottom = __builtin_shuffle(a, b, I{int32_t(J & B ? LANES + J : J + B)...});
#endif
  a = top, b = bottom;
}

template <int B, int COUNT>
CLEVER_FAST_INLINE void swap_all(V (&rows)[COUNT]) {
#pragma GCC unroll 16  // keeps the rows in registers
  for (int i = 0; i < COUNT; ++i)
    if (!(i & B)) swap_blocks<B>(rows[i], rows[i + B], std::make_index_sequence<LANES>());
}

// Transposes each 4 x 4 block of four rows.
CLEVER_FAST_INLINE void transpose_blocks(V (&rows)[4]) { swap_all<2>(rows), swap_all<1>(rows); }

// The sum of each of LANES vectors, in one vector.
CLEVER_FAST_INLINE V sum_each(V (&rows)[LANES]) {
  if constexpr (LANES > 8) swap_all<8>(rows);
  if constexpr (LANES > 4) swap_all<4>(rows);
  swap_all<2>(rows), swap_all<1>(rows);
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) rows[i] += rows[i + half];
  return rows[0];
}

// Fewer than 16 elements in pieces of 8, 4, 2 and 1: memcpy of a length known only at run time is a call.
template <class T>
CLEVER_FAST_INLINE void copy_some(T* to, const T* from, int64_t count) {
  if (LANES > 8 && count & 8) __builtin_memcpy(to, from, 8 * sizeof(T)), to += 8, from += 8;
  if (LANES > 4 && count & 4) __builtin_memcpy(to, from, 4 * sizeof(T)), to += 4, from += 4;
  if (count & 2) __builtin_memcpy(to, from, 2 * sizeof(T)), to += 2, from += 2;
  if (count & 1) *to = *from;
}

// Of fewer than LANES lanes only the first `count` are touched; the others load as 0.
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
  return widen(read<Short>(count < LANES ? some : from), dtype);
}

CLEVER_FAST_INLINE void store(Dtype dtype, void* base, int64_t offset, V x, int64_t count) {
  if (dtype == Dtype::float32) return store(static_cast<float*>(base) + offset, x, count);
  const Short half = narrow(x, dtype);
  uint16_t* const to = static_cast<uint16_t*>(base) + offset;
  if (count >= LANES) return write(to, half);
  uint16_t some[LANES];
  write(some, half);
  copy_some(to, some, count);
}

}  // namespace clever_fast::cpu::CLEVER_FAST_CPU
