// Runs the emulated CUDA kernels and the CPU kernels on the same random inputs, each array alone on the heap, and
// compares all results. Built with AddressSanitizer. Leaves with 0, 1 (they differ), 3 (divergent barrier) or as
// AddressSanitizer does.
#include "emulated.cpp"

#include "cpu.h"

namespace {

using namespace clever_fast;

std::mt19937 generator(0);

// Uniform random elements of any dtype.
struct Array {
  std::vector<char> bytes;
  Array(int64_t count, Dtype dtype, float low, float high) : bytes(count * (dtype == Dtype::float32 ? 4 : 2)) {
    std::uniform_real_distribution<float> uniform(low, high);
    for (int64_t i = 0; i < count; ++i) {
      const float x = uniform(generator);
      if (dtype == Dtype::float32) {
        memcpy(&bytes[4 * i], &x, 4);
      } else if (dtype == Dtype::bfloat16) {
        const __nv_bfloat16 half = __float2bfloat16_rn(x);
        memcpy(&bytes[2 * i], &half, 2);
      } else {
        const __half half = __float2half_rn(x);
        memcpy(&bytes[2 * i], &half, 2);
      }
    }
  }
};

struct Results {
  std::vector<std::vector<float>> floats;
  std::vector<std::vector<char>> halves;
  float* add(int64_t count) {
    return floats.emplace_back(std::vector<float>(count, std::numeric_limits<float>::quiet_NaN())).data();
  }
  char* add(int64_t count, Dtype dtype) {
    return halves.emplace_back(std::vector<char>(count * (dtype == Dtype::float32 ? 4 : 2), char(0xff))).data();
  }
};

bool near(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance * (1 + std::abs(b)); }

// `parts` of the left are to be added up before the comparison: the CUDA kernels split some sums.
bool equal(const char* what, const std::vector<float>& left, const std::vector<float>& right) {
  const size_t parts = left.size() / right.size();
  for (size_t i = 0; i < right.size(); ++i) {
    double sum = 0;
    for (size_t part = 0; part < parts; ++part) sum += left[part * right.size() + i];
    if (!near(sum, right[i], 1e-4)) {
      fprintf(stderr, "%s: element %zu is %g, on the CPU %g\n", what, i, sum, right[i]);
      return false;
    }
  }
  return true;
}

float as_float(const char* at, Dtype dtype) {
  uint16_t bits;
  float f;
  if (dtype == Dtype::float32) return memcpy(&f, at, 4), f;
  memcpy(&bits, at, 2);
  if (dtype == Dtype::bfloat16) return __bfloat162float({bits});
  __half half;
  memcpy(&half, &bits, 2);
  return __half2float(half);
}

bool equal(const char* what, const std::vector<char>& left, const std::vector<char>& right, Dtype dtype) {
  const size_t width = dtype == Dtype::float32 ? 4 : 2;
  for (size_t i = 0; i < right.size(); i += width)
    if (!near(as_float(&left[i], dtype), as_float(&right[i], dtype), dtype == Dtype::float32 ? 1e-4 : 2e-2)) {
      fprintf(stderr, "%s: element %zu differs from the CPU's\n", what, i / width);
      return false;
    }
  return true;
}

template <class P>
bool equal(const P& p, const Results& left, const Results& right) {
  bool same = true;
  for (size_t i = 0; i < left.floats.size(); ++i) same = same && equal("floats", left.floats[i], right.floats[i]);
  for (size_t i = 0; i < left.halves.size(); ++i)
    same = same && equal("inputs' gradients", left.halves[i], right.halves[i], p.dtype);
  return same;
}

std::vector<float> scratch_of(int64_t floats, float*& aligned) {
  std::vector<float> scratch(floats + 16);
  aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64 / 4;
  return scratch;
}

template <class P>
void on_cpu(const P& p, const cpu::Kernels<P>& kernels) {
  float *forward, *backward;
  const auto keep = scratch_of(kernels.forward_scratch(p), forward);
  const auto keep_too = scratch_of(kernels.backward_scratch(p), backward);
  for (int64_t task = 0; task < kernels.forward_tasks(p); ++task) kernels.forward(p, task, forward);
  for (int64_t task = 0; task < kernels.backward_tasks(p); ++task) kernels.backward(p, task, backward);
}

// As built for each instruction set that this machine has; the widest one may be the same as another.
template <class P>
std::vector<const cpu::Kernels<P>*> every_cpu() {
  std::vector<const cpu::Kernels<P>*> found = {&cpu::kernels<P>()};
  const auto add = [&](const cpu::Kernels<Scan>& scan, const cpu::Kernels<CrossScan>& cross) {
    if constexpr (std::is_same_v<P, Scan>)
      found.push_back(&scan);
    else
      found.push_back(&cross);
  };
  add(cpu::baseline::scan, cpu::baseline::cross);
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) add(cpu::avx2::scan, cpu::avx2::cross);
#endif
  return found;
}

template <class P>
void emulated(const P& p, unsigned seed) {
  if (const char* error = forward(p, seed)) fprintf(stderr, "%s\n", error), exit(1);
  if (const char* error = backward(p, seed)) fprintf(stderr, "%s\n", error), exit(1);
}

void outputs(Scan& p, Results& r) {
  const int64_t all = p.N * p.K * p.D * p.L, matrices = p.splits * p.N * p.K * p.S * p.L;
  r.floats.reserve(8), r.halves.reserve(2);
  p.y = r.add(all), p.states = r.add(p.N * p.segments() * p.S * p.K * p.D);
  p.dA = r.add(p.N * p.S * p.K * p.D), p.dskip = r.add(p.N * p.K * p.D), p.dbias = r.add(p.N * p.K * p.D);
  p.dB = r.add(matrices), p.dC = r.add(matrices), p.du = r.add(all, p.dtype), p.ddelta = r.add(all, p.dtype);
}

void outputs(CrossScan& p, Results& r) {
  const int64_t all = p.N * p.L() * p.D;
  r.floats.reserve(8);
  p.y = r.add(all), p.states = r.add(p.N * 4 * p.segments() * p.S * p.D), p.dx = r.add(all);
  p.dlow = r.add(p.splits * p.N * p.L() * 4 * p.width()), p.dweight = r.add(p.groups * 4 * p.R * p.D);
  p.dA = r.add(p.groups * 4 * p.S * p.D), p.dskip = r.add(p.groups * 4 * p.D), p.dbias = r.add(p.groups * 4 * p.D);
}

template <class P>
bool same_everywhere(P p) {
  Results found;
  outputs(p, found);
  for (unsigned seed = 0; seed < 2; ++seed) {
    emulated(p, seed);
    for (const auto* kernels : every_cpu<P>()) {
      P reference = p;
      Results expected;
      reference.splits = 1;
      outputs(reference, expected);
      on_cpu(reference, *kernels);
      if (!equal(p, found, expected)) return false;
    }
  }
  return true;
}

bool scan(Dtype dtype, int64_t N, int64_t K, int64_t D, int64_t S, int64_t L, int64_t segment) {
  const Dtype f = Dtype::float32;
  const Array u(N * K * D * L, dtype, -1, 1), delta(N * K * D * L, dtype, -3, 1), A(S * K * D, f, -2, 0),
      B(N * K * S * L, dtype, -1, 1), C(N * K * S * L, dtype, -1, 1), skip(K * D, f, -1, 1), bias(K * D, f, -1, 0),
      dy(N * K * D * L, f, -1, 1);
  Scan p{};
  p.N = N, p.K = K, p.D = D, p.S = S, p.L = L, p.segment = segment, p.splits = std::min<int64_t>(2, (D + 31) / 32);
  p.softplus = true, p.dtype = dtype, p.u = u.bytes.data(), p.delta = delta.bytes.data();
  p.B = B.bytes.data(), p.C = C.bytes.data(), p.A = reinterpret_cast<const float*>(A.bytes.data());
  p.skip = reinterpret_cast<const float*>(skip.bytes.data());
  p.bias = reinterpret_cast<const float*>(bias.bytes.data());
  p.dy = reinterpret_cast<const float*>(dy.bytes.data());
  return same_everywhere(p);
}

bool cross(Dtype dtype, int64_t N, int64_t H, int64_t W, int64_t D, int64_t S, int64_t R, int64_t segment) {
  const Dtype f = Dtype::float32;
  const Array x(N * H * W * D, dtype, -1, 1), low(N * H * W * 4 * (R + 2 * S), dtype, -1, 1),
      weight(4 * R * D, f, -.5, .5), A(4 * S * D, f, -2, 0), skip(4 * D, f, -1, 1), bias(4 * D, f, -1, 0), dy(N * H * W * D, f, -1, 1);
  CrossScan p{};
  p.N = N, p.H = H, p.W = W, p.D = D, p.S = S, p.R = R, p.segment = segment, p.groups = std::min<int64_t>(2, N);
  p.splits = std::min<int64_t>(2, (D + 31) / 32), p.dtype = dtype, p.x = x.bytes.data(), p.low = low.bytes.data();
  p.weight = reinterpret_cast<const float*>(weight.bytes.data()), p.A = reinterpret_cast<const float*>(A.bytes.data());
  p.skip = reinterpret_cast<const float*>(skip.bytes.data());
  p.bias = reinterpret_cast<const float*>(bias.bytes.data());
  p.dy = reinterpret_cast<const float*>(dy.bytes.data());
  return same_everywhere(p);
}

}  // namespace

int main() {
  bool same = true;
  for (const Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::bfloat16}) {
    same = same && scan(dtype, 1, 1, 3, 1, 1, 8) && scan(dtype, 1, 2, 35, 2, 70, 40);
    same = same && cross(dtype, 1, 1, 1, 3, 1, 1, 8) && cross(dtype, 3, 5, 7, 35, 2, 5, 24);
    same = same && cross(dtype, 1, 3, 2, 5, 1, 33, 8) && cross(dtype, 3, 5, 7, 35, 1, 12, 24);
#ifdef ONLY_FLOAT32
    break;
#endif
  }
  return same ? 0 : 1;
}
