#include "launch.cuh"
#include "cross.cuh"

namespace clever_fast::cuda {

const char* backward(const CrossScan& p, void* stream) {
  return p.dtype == Dtype::float32   ? launch_backward<float>(p, stream)
         : p.dtype == Dtype::float16 ? launch_backward<__half>(p, stream)
                                     : launch_backward<__nv_bfloat16>(p, stream);
}

}  // namespace clever_fast::cuda
