// The emulated kernels behind C functions that the tests call. The "stream" is the scheduler's seed.
#include "simt.h"
// after the emulator, which stands in for the CUDA headers
#include "cross.cuh"
#include "scan.cuh"

namespace cuda = clever_fast::cuda;

template <class P>
const char* forward(const P& p, unsigned seed) {
#ifdef ONLY_FLOAT32
  return cuda::launch_forward<float>(p, &seed);
#else
  return p.dtype == clever_fast::Dtype::float32   ? cuda::launch_forward<float>(p, &seed)
         : p.dtype == clever_fast::Dtype::float16 ? cuda::launch_forward<__half>(p, &seed)
                                                  : cuda::launch_forward<__nv_bfloat16>(p, &seed);
#endif
}

template <class P>
const char* backward(const P& p, unsigned seed) {
#ifdef ONLY_FLOAT32
  return cuda::launch_backward<float>(p, &seed);
#else
  return p.dtype == clever_fast::Dtype::float32   ? cuda::launch_backward<float>(p, &seed)
         : p.dtype == clever_fast::Dtype::float16 ? cuda::launch_backward<__half>(p, &seed)
                                                  : cuda::launch_backward<__nv_bfloat16>(p, &seed);
#endif
}

extern "C" {
const char* scan_forward(const clever_fast::Scan* p, unsigned seed) { return forward(*p, seed); }
const char* scan_backward(const clever_fast::Scan* p, unsigned seed) { return backward(*p, seed); }
const char* cross_forward(const clever_fast::CrossScan* p, unsigned seed) { return forward(*p, seed); }
const char* cross_backward(const clever_fast::CrossScan* p, unsigned seed) { return backward(*p, seed); }
}

extern "C" {
int scan_shared_bytes(int warps, int S, bool backward) { return 4 * cuda::ScanShared(warps, S, backward).total; }
int cross_shared_bytes(int warps, int S, int R, bool backward, bool bfloat16) {
  const cuda::SharedBytes use{warps, S, R, backward};
  return int(bfloat16 ? cuda::with_low_rank<__nv_bfloat16>(S, R, use) : cuda::with_low_rank<float>(S, R, use));
}
}

// Since it was asked last.
extern "C" int64_t visits(int place) { return std::exchange(simt::visits_by_warps[place], 0); }

extern "C" void softplus_of(const float* x, float* value, float* slope, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    float e;
    value[i] = cuda::softplus(x[i], e), slope[i] = cuda::softplus_slope(x[i], e);
  }
}
