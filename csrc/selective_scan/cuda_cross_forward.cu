#include "launch.cuh"
#include "cross.cuh"

namespace clever_fast::cuda {

const char* forward(const CrossScan& p, void* stream) {
  return p.dtype == Dtype::float32   ? launch_forward<float>(p, stream)
         : p.dtype == Dtype::float16 ? launch_forward<__half>(p, stream)
                                     : launch_forward<__nv_bfloat16>(p, stream);
}

}  // namespace clever_fast::cuda
