// The scans on a CPU: a vector's lanes are 16 channels, so that the recurrence runs along the loop and needs no
// prefix sum. Each function does one task, an independent share of the work; which thread does it changes nothing.
// Scratch is aligned to 64 bytes.
#pragma once
#include "params.h"

namespace clever_fast::cpu {

int64_t forward_tasks(const Scan& p);
void forward(const Scan& p, int64_t task);

int64_t backward_tasks(const Scan& p);
int64_t backward_scratch(const Scan& p);  // floats
void backward(const Scan& p, int64_t task, float* scratch);

int64_t forward_tasks(const CrossScan& p);
int64_t forward_scratch(const CrossScan& p);
void forward(const CrossScan& p, int64_t task, float* scratch);

int64_t backward_tasks(const CrossScan& p);
int64_t backward_scratch(const CrossScan& p);
void backward(const CrossScan& p, int64_t task, float* scratch);

}  // namespace clever_fast::cpu
