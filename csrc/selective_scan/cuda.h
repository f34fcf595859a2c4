// The launchers, which cuda_*.cu implement and register.cpp calls: neither needs to see the other's headers.
#pragma once
#include "params.h"

namespace clever_fast::cuda {

// Each returns nullptr, or what CUDA said.
const char* forward(const Scan& p, void* stream);
const char* backward(const Scan& p, void* stream);
const char* forward(const CrossScan& p, void* stream);
const char* backward(const CrossScan& p, void* stream);

}  // namespace clever_fast::cuda
