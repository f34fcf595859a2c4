// Included once by each cpu_*.cpp, which names its instruction set in CLEVER_FAST_CPU and its lanes in LANES: all
// below is compiled for it, in a namespace of its own.
#include "cpu_scan.h"
#include "cpu_cross.h"

namespace clever_fast::cpu::CLEVER_FAST_CPU {

const Kernels<Scan> scan = {forward_tasks, forward_scratch, forward, backward_tasks, backward_scratch, backward};
const Kernels<CrossScan> cross = {forward_tasks, forward_scratch, forward, backward_tasks, backward_scratch, backward};

}  // namespace clever_fast::cpu::CLEVER_FAST_CPU
