// Launching on a GPU; the emulator in tests/ has its own CLEVER_FAST_LAUNCH. Included before scan.cuh and cross.cuh.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda.h"

namespace clever_fast::cuda {

template <class Kernel, class Params>
const char* launch(Kernel kernel, int64_t blocks, int threads, size_t shared, void* stream, const Params& p) {
  if (blocks > INT32_MAX) return "more blocks than a grid holds";
  if (shared > 48 << 10) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared));
    if (error != cudaSuccess) return cudaGetErrorString(error);
  }
  kernel<<<unsigned(blocks), threads, shared, static_cast<cudaStream_t>(stream)>>>(p);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace clever_fast::cuda

#define CLEVER_FAST_LAUNCH launch
