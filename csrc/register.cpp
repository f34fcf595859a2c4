// Every operator's schema and its kernels, on torch's stable ABI: one binary serves torch 2.11 and newer.
// Shapes, dtypes and devices are checked in Python (clever_fast/ops), where errors can name the argument; what is
// checked here only keeps a direct call of torch.ops.clever_fast from reading out of bounds.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <tuple>

#include "selective_scan/cpu.h"
#ifdef CLEVER_FAST_CUDA
#include "selective_scan/cuda.h"

// Null where torch is a CPU build, so that the same library loads there too.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);
#endif

namespace {

using namespace clever_fast;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Shape = std::initializer_list<int64_t>;

Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return Dtype::float32;
    case ScalarType::Half: return Dtype::float16;
    case ScalarType::BFloat16: return Dtype::bfloat16;
    default: STD_TORCH_CHECK(false, "expected float32, float16 or bfloat16");
  }
}

const void* check(const Tensor& tensor, ScalarType dtype, Shape shape, const char* name) {
  bool fits = tensor.scalar_type() == dtype && tensor.is_contiguous() && tensor.dim() == int64_t(shape.size());
  int64_t axis = 0;
  for (const int64_t size : shape) fits = fits && tensor.size(axis++) == size;
  STD_TORCH_CHECK(fits, "clever_fast: ", name, " has another shape, dtype or layout than expected");
  return tensor.const_data_ptr();
}

const float* floats(const Tensor& tensor, Shape shape, const char* name) {
  return static_cast<const float*>(check(tensor, ScalarType::Float, shape, name));
}

Tensor empty(const Tensor& like, Shape shape, ScalarType dtype = ScalarType::Float) {
  return torch::stable::new_empty(like, shape, dtype);
}

float* data(const Tensor& tensor) { return static_cast<float*>(tensor.mutable_data_ptr()); }

void check_sizes(bool cuda, int64_t segment, int64_t splits, int64_t groups, int64_t S, int64_t R) {
  const int64_t most = cuda ? MAX_CUDA_SEGMENT : MAX_CPU_SEGMENT;
  STD_TORCH_CHECK(segment > 0 && segment <= most && segment % 8 == 0, "clever_fast: segment ", segment);
  STD_TORCH_CHECK(splits > 0 && groups > 0 && S > 0 && S <= MAX_STATES && R >= 0 && R <= MAX_RANK,
                  "clever_fast: splits ", splits, ", groups ", groups, ", states ", S, ", rank ", R);
}

Scan scan_of(const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& B, const Tensor& C, const Tensor& D,
             const Tensor& bias, bool softplus, int64_t segment, int64_t splits) {
  const ScalarType dtype = u.scalar_type();
  Scan p{};
  p.N = u.size(0), p.K = B.size(1), p.D = u.size(1) / p.K, p.S = A.size(0), p.L = u.size(2);
  p.segment = segment, p.splits = splits, p.softplus = softplus, p.dtype = dtype_of(u);
  check_sizes(u.is_cuda(), segment, splits, 1, p.S, 0);
  p.u = check(u, dtype, {p.N, p.K * p.D, p.L}, "u"), p.delta = check(delta, dtype, {p.N, p.K * p.D, p.L}, "delta");
  p.B = check(B, dtype, {p.N, p.K, p.S, p.L}, "B"), p.C = check(C, dtype, {p.N, p.K, p.S, p.L}, "C");
  p.A = floats(A, {p.S, p.K * p.D}, "A");
  p.skip = floats(D, {p.K * p.D}, "D"), p.bias = floats(bias, {p.K * p.D}, "delta_bias");
  return p;
}

CrossScan cross_scan_of(const Tensor& x, const Tensor& low, const Tensor& weight, const Tensor& A, const Tensor& D,
                        const Tensor& bias, int64_t segment, int64_t splits, int64_t groups) {
  const ScalarType dtype = x.scalar_type();
  CrossScan p{};
  p.N = x.size(0), p.H = x.size(1), p.W = x.size(2), p.D = x.size(3), p.S = A.size(1), p.R = weight.size(1);
  p.segment = segment, p.splits = splits, p.groups = groups, p.dtype = dtype_of(x);
  check_sizes(x.is_cuda(), segment, splits, groups, p.S, p.R);
  STD_TORCH_CHECK(p.L() * std::max(p.D, 4 * p.width()) <= INT32_MAX, "clever_fast: an image of ", p.L(),
                  " positions is larger than the kernels' 32-bit offsets within it");
  p.x = check(x, dtype, {p.N, p.H, p.W, p.D}, "x"), p.low = check(low, dtype, {p.N, p.H, p.W, 4, p.width()}, "low");
  p.weight = floats(weight, {4, p.R, p.D}, "weight"), p.A = floats(A, {4, p.S, p.D}, "A");
  p.skip = floats(D, {4, p.D}, "D"), p.bias = floats(bias, {4, p.D}, "delta_bias");
  return p;
}

struct alignas(64) Line {
  float lanes[16];
};

std::unique_ptr<Line[]> scratch_of(int64_t floats) { return std::unique_ptr<Line[]>(new Line[(floats + 15) / 16]); }

// Where the kernels run. Each has the same two functions.
struct OnCpu {
  template <class Params>
  static void forward(const Params& p, const Tensor&) {
    const auto& kernels = cpu::kernels<Params>();
    share(p, kernels.forward_tasks(p), kernels.forward_scratch(p), kernels.forward);
  }
  template <class Params>
  static void backward(const Params& p, const Tensor&) {
    STD_TORCH_CHECK(p.splits == 1, "clever_fast: the CPU kernels add up all channels themselves: splits ", p.splits);
    const auto& kernels = cpu::kernels<Params>();
    share(p, kernels.backward_tasks(p), kernels.backward_scratch(p), kernels.backward);
  }
  template <class Params>
  static void share(const Params& p, int64_t tasks, int64_t floats, void (*run)(const Params&, int64_t, float*)) {
    torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
      const auto scratch = scratch_of(floats);
      for (int64_t task = begin; task < end; ++task) run(p, task, scratch[0].lanes);
    });
  }
};

#ifdef CLEVER_FAST_CUDA
struct OnCuda {
  template <class Params>
  static void forward(const Params& p, const Tensor& on) {
    launch(on, [&](void* stream) { return cuda::forward(p, stream); });
  }
  template <class Params>
  static void backward(const Params& p, const Tensor& on) {
    STD_TORCH_CHECK(p.splits <= (p.D + 31) / 32, "clever_fast: splits ", p.splits, " of ", p.D, " channels");
    launch(on, [&](void* stream) { return cuda::backward(p, stream); });
  }
  template <class Launch>
  static void launch(const Tensor& on, Launch go) {
    STD_TORCH_CHECK(&aoti_torch_get_current_cuda_stream != nullptr, "clever_fast: this torch is a CPU build");
    const torch::stable::accelerator::DeviceGuard guard(on.get_device_index());
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(on.get_device_index(), &stream));
    const char* const error = go(stream);
    STD_TORCH_CHECK(error == nullptr, "clever_fast: ", error);
  }
};
#endif

template <class Device>
std::tuple<Tensor, Tensor> selective_scan(
    Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D, Tensor bias, bool softplus, int64_t segment) {
  Scan p = scan_of(u, delta, A, B, C, D, bias, softplus, segment, 1);
  Tensor y = empty(u, {p.N, p.K * p.D, p.L}), states = empty(u, {p.N, p.segments(), p.S, p.K * p.D});
  p.y = data(y), p.states = data(states);
  if (p.N > 0) Device::forward(p, u);
  return {y, states};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> selective_scan_backward(
    Tensor dy, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D, Tensor bias, Tensor states,
    bool softplus, int64_t segment, int64_t splits) {
  Scan p = scan_of(u, delta, A, B, C, D, bias, softplus, segment, splits);
  p.dy = floats(dy, {p.N, p.K * p.D, p.L}, "dy");
  p.states = const_cast<float*>(floats(states, {p.N, p.segments(), p.S, p.K * p.D}, "states"));
  Tensor du = empty(u, {p.N, p.K * p.D, p.L}, u.scalar_type());
  Tensor ddelta = empty(u, {p.N, p.K * p.D, p.L}, u.scalar_type());
  Tensor dA = empty(u, {p.N, p.S, p.K * p.D}), dD = empty(u, {p.N, p.K * p.D}), dbias = empty(u, {p.N, p.K * p.D});
  Tensor dB = empty(u, {splits, p.N, p.K, p.S, p.L}), dC = empty(u, {splits, p.N, p.K, p.S, p.L});
  p.du = du.mutable_data_ptr(), p.ddelta = ddelta.mutable_data_ptr();
  p.dA = data(dA), p.dskip = data(dD), p.dbias = data(dbias), p.dB = data(dB), p.dC = data(dC);
  if (p.N > 0) Device::backward(p, u);
  return {du, ddelta, dA, dB, dC, dD, dbias};
}

template <class Device>
std::tuple<Tensor, Tensor> cross_scan(
    Tensor x, Tensor low, Tensor weight, Tensor A, Tensor D, Tensor bias, int64_t segment) {
  CrossScan p = cross_scan_of(x, low, weight, A, D, bias, segment, 1, 1);
  Tensor y = empty(x, {p.N, p.H, p.W, p.D}), states = empty(x, {p.N, 4, p.segments(), p.S, p.D});
  p.y = data(y), p.states = data(states);
  if (p.N > 0) Device::forward(p, x);
  return {y, states};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> cross_scan_backward(
    Tensor dy, Tensor x, Tensor low, Tensor weight, Tensor A, Tensor D, Tensor bias, Tensor states, int64_t segment,
    int64_t splits, int64_t groups) {
  CrossScan p = cross_scan_of(x, low, weight, A, D, bias, segment, splits, groups);
  p.dy = floats(dy, {p.N, p.H, p.W, p.D}, "dy");
  p.states = const_cast<float*>(floats(states, {p.N, 4, p.segments(), p.S, p.D}, "states"));
  Tensor dx = empty(x, {p.N, p.H, p.W, p.D}), dlow = empty(x, {splits, p.N, p.H, p.W, 4, p.width()});
  Tensor dweight = empty(x, {groups, 4, p.R, p.D}), dA = empty(x, {groups, 4, p.S, p.D});
  Tensor dD = empty(x, {groups, 4, p.D}), dbias = empty(x, {groups, 4, p.D});
  p.dx = data(dx), p.dlow = data(dlow), p.dweight = data(dweight), p.dA = data(dA);
  p.dskip = data(dD), p.dbias = data(dbias);
  STD_TORCH_CHECK(groups <= p.N, "clever_fast: groups ", groups, " of ", p.N, " images");
  Device::backward(p, x);
  return {dx, dlow, dweight, dA, dD, dbias};
}

template <class Device>
void implement(torch::stable::detail::StableLibrary& library) {
  library.impl("selective_scan", TORCH_BOX(&selective_scan<Device>));
  library.impl("selective_scan_backward", TORCH_BOX(&selective_scan_backward<Device>));
  library.impl("cross_scan", TORCH_BOX(&cross_scan<Device>));
  library.impl("cross_scan_backward", TORCH_BOX(&cross_scan_backward<Device>));
}

}  // namespace

STABLE_TORCH_LIBRARY(clever_fast, library) {
  library.def(
      "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D, Tensor delta_bias, "
      "bool delta_softplus, int segment) -> (Tensor y, Tensor states)");
  library.def(
      "selective_scan_backward(Tensor dy, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D, "
      "Tensor delta_bias, Tensor states, bool delta_softplus, int segment, int splits) "
      "-> (Tensor du, Tensor ddelta, Tensor dA, Tensor dB, Tensor dC, Tensor dD, Tensor ddelta_bias)");
  library.def(
      "cross_scan(Tensor x, Tensor low, Tensor weight, Tensor A, Tensor D, Tensor delta_bias, int segment) "
      "-> (Tensor y, Tensor states)");
  library.def(
      "cross_scan_backward(Tensor dy, Tensor x, Tensor low, Tensor weight, Tensor A, Tensor D, Tensor delta_bias, "
      "Tensor states, int segment, int splits, int groups) "
      "-> (Tensor dx, Tensor dlow, Tensor dweight, Tensor dA, Tensor dD, Tensor ddelta_bias)");
}

STABLE_TORCH_LIBRARY_IMPL(clever_fast, CPU, library) { implement<OnCpu>(library); }

#ifdef CLEVER_FAST_CUDA
STABLE_TORCH_LIBRARY_IMPL(clever_fast, CUDA, library) { implement<OnCuda>(library); }
#endif
