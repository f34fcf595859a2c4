// The CUDA runtime, driver and NVML as far as DALI's graphs call them. Functions that need to answer are here;
// patch.py points all others at `done`.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned x, y, z; } dim3;

long launches = 0;
int done(void) { return 0; }

// Sizes and counts of a device: large enough for every kernel, and no division by zero.
static int number(int attribute) { return attribute == 1 ? 1024 : attribute < 8 ? 65535 : attribute < 100 ? 64 : 49152; }
int rt_cudaDeviceGetAttribute(int *value, int attribute, int device) { *value = number(attribute); return 0; }
int rt_cudaGetDeviceProperties(int *words, int device) { for (int i = 0; i < 180; i++) words[i] = 64; return 0; }
int rt_cudaGetDeviceProperties_v2(int *words, int device) { return rt_cudaGetDeviceProperties(words, device); }
int rt_cudaGetDevice(int *device) { *device = 0; return 0; }
int rt_cudaSetDevice(int device) { return device ? 101 : 0; }
int rt_cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int rt_cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int rt_cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int rt_cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return 0; }
int rt_cudaMemGetInfo(size_t *left, size_t *total) { *left = *total = 1ul << 36; return 0; }
int rt_cudaDeviceGetPCIBusId(char *id, int length, int device) { strncpy(id, "0000:01:00.0", length); return 0; }

static int allocate(void **p, size_t bytes) { return posix_memalign(p, 4096, bytes + 4096) ? 2 : 0; }
int rt_cudaMalloc(void **p, size_t bytes) { return allocate(p, bytes); }
int rt_cudaMallocAsync(void **p, size_t bytes) { return allocate(p, bytes); }
int rt_cudaMallocHost(void **p, size_t bytes) { return allocate(p, bytes); }
int rt_cudaHostAlloc(void **p, size_t bytes) { return allocate(p, bytes); }
int rt_cudaFree(void *p) { free(p); return 0; }
int rt_cudaFreeAsync(void *p) { free(p); return 0; }
int rt_cudaFreeHost(void *p) { free(p); return 0; }
int rt_cudaMemcpy(void *to, const void *from, size_t bytes) { memmove(to, from, bytes); return 0; }
int rt_cudaMemcpyAsync(void *to, const void *from, size_t bytes) { memmove(to, from, bytes); return 0; }
int rt_cudaMemset(void *p, int value, size_t bytes) { memset(p, value, bytes); return 0; }
int rt_cudaMemsetAsync(void *p, int value, size_t bytes) { memset(p, value, bytes); return 0; }
int rt_cudaPointerGetAttributes(char *found, void *p) { // memory of device 0
  memset(found, 0, 24);
  *(int *)found = 2;
  memcpy(found + 8, &p, sizeof p);
  return 0;
}

static int name(void **handle) { *handle = malloc(64); return 0; }
int rt_cudaStreamCreateWithFlags(void **stream) { return name(stream); }
int rt_cudaStreamCreateWithPriority(void **stream) { return name(stream); }
int rt_cudaEventCreateWithFlags(void **event) { return name(event); }
int rt_cudaEventCreate(void **event) { return name(event); }
int rt_cudaStreamGetFlags(void *stream, unsigned *flags) { *flags = 1; return 0; }
int rt_cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }
int rt_cudaLaunchHostFunc(void *stream, void (*call)(void *), void *data) { call(data); return 0; }

static __thread struct { dim3 grid, block; size_t shared; void *stream; } next;
int rt___cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
  next.grid = grid, next.block = block, next.shared = shared, next.stream = stream;
  return 0;
}
int rt___cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void **stream) {
  *grid = next.grid, *block = next.block, *shared = next.shared, *stream = next.stream;
  return 0;
}
int rt_cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block) { // 9: an invalid configuration
  __atomic_add_fetch(&launches, 1, __ATOMIC_RELAXED);
  uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z, threads = (uint64_t)block.x * block.y * block.z;
  return blocks && threads && threads <= 1024 && grid.y <= 65535 && grid.z <= 65535 ? 0 : 9;
}
int rt___cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block) { return rt_cudaLaunchKernel(kernel, grid, block); }
int rt_cudaFuncGetAttributes(int *words) { for (int i = 0; i < 12; i++) words[i] = 1024; return 0; }
int rt_cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks) { *blocks = 2; return 0; }
int rt_cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks) { *blocks = 2; return 0; }
int rt_cudaGetSymbolAddress(void **p) { static char memory[1 << 20]; *p = memory; return 0; }

// The driver
static __thread void *context;
static int primary;
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 102 ? 0 : number(attribute); return 0; }
int cuDevicePrimaryCtxRetain(void **found, int device) { *found = &primary; return 0; }
int cuDevicePrimaryCtxRelease(int device) { return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
int cuCtxGetCurrent(void **found) { *found = context; return 0; }
int cuCtxSetCurrent(void *wanted) { context = wanted; return 0; }
int cuCtxPushCurrent_v2(void *wanted) { return 0; }
int cuCtxPopCurrent_v2(void **found) { *found = &primary; return 0; }
int cuCtxGetDevice(int *device) { *device = 0; return 0; }
int cuStreamGetCtx(void *stream, void **found) { *found = &primary; return 0; }
int cuPointerGetAttribute(void *value, int attribute, void *p) { memset(value, 0, 4); return 0; }
int cuGetErrorName(int error, const char **text) { *text = "an error"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "an error"; return 0; }
int cuGetProcAddress(const char *symbol, void **p) { *p = 0; return 500; }
int cuGetProcAddress_v2(const char *symbol, void **p) { *p = 0; return 500; }

// NVML
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = &primary; return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **device) { *device = &primary; return 0; }
int nvmlDeviceGetHandleByUUID(const char *id, void **device) { *device = &primary; return 0; }
int nvmlDeviceGetIndex(void *device, unsigned *index) { *index = 0; return 0; }
int nvmlDeviceGetBrand(void *device, int *brand) { *brand = 2; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) { *major = 9, *minor = 0; return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "580.00", length); return 0; }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 13000; return 0; }
int nvmlDeviceGetCpuAffinity(void *device, unsigned n, unsigned long *set) { memset(set, 255, n * sizeof *set); return 0; }
int nvmlDeviceGetCpuAffinityWithinScope(void *device, unsigned n, unsigned long *set, unsigned scope) {
  return nvmlDeviceGetCpuAffinity(device, n, set);
}
int nvmlDeviceSetCpuAffinity(void *device) { return 0; }
int nvmlDeviceClearCpuAffinity(void *device) { return 0; }
const char *nvmlErrorString(int error) { return "an error"; }
