// Stands for libcudart without a GPU, for tools/rehearse_cuda.py: device memory is host memory, copies are done at once,
// ONNX Runtime's kernels are named in the log FAKE_CUDA_LOG and not run; what driver.cpp and cublaslt.cpp submit is run. What
// is captured is kept and done again at each launch of the graph. FAKE_CUDA_MEMORY limits device memory in bytes.
#define __CUDA_API_VERSION_INTERNAL
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#undef cudaGetDeviceProperties
static FILE *log_(void) {
  static FILE *f;
  if (!f) { const char *p = getenv("FAKE_CUDA_LOG"); f = fopen(p ? p : "/dev/null", "a"); setvbuf(f, 0, _IOLBF, 0); }
  return f;
}
#define LOG(...) do { fprintf(log_(), __VA_ARGS__); fputc('\n', log_()); } while (0)
struct work { void (*run)(void *); void *data; struct work *next; };
static struct work *captured, **last_captured = &captured;
static int capturing;
int fake_cuda_capturing(void) { return capturing; }
void fake_cuda_submit(void (*run)(void *), void *data) {
  LOG("submitted%s", capturing ? " to a capture" : "");
  if (!capturing) { run(data); return; }
  *last_captured = malloc(sizeof **last_captured); **last_captured = (struct work){run, data, 0}; last_captured = &(*last_captured)->next;
}
struct copy { void *to; const void *from; size_t size; };
static void do_copy(void *p) { struct copy *c = p; memcpy(c->to, c->from, c->size); }
static void submit_copy(void *to, const void *from, size_t size) {
  if (!capturing) { memcpy(to, from, size); return; }
  struct copy *c = malloc(sizeof *c); *c = (struct copy){to, from, size}; fake_cuda_submit(do_copy, c);
}
#define OK(name, args) cudaError_t name args { LOG(#name); return 0; }
#define QUIET(name, args) cudaError_t name args { return 0; }
static struct { const void *fn; char *name; } kernels[400000];
static int n_kernels;
void **__cudaRegisterFatBinary(void *b) { static void *h[8]; (void)b; return h; }
void __cudaRegisterFatBinaryEnd(void **h) { (void)h; }
void __cudaUnregisterFatBinary(void **h) { (void)h; }
void __cudaRegisterVar(void **h, char *a, char *b, const char *c, int d, size_t e, int f, int g) {}
void __cudaRegisterFunction(void **h, const char *host, char *dev, const char *name, int l, void *a, void *b, void *c, void *d, int *e) {
  kernels[n_kernels].fn = host; kernels[n_kernels++].name = strdup(name);
}
static const char *find(const void *fn) { for (int i = 0; i < n_kernels; i++) if (kernels[i].fn == fn) return kernels[i].name; return "?"; }
static struct { dim3 g, b; size_t s; void *st; } conf[64]; static int depth;
unsigned __cudaPushCallConfiguration(dim3 g, dim3 b, size_t s, void *st) { conf[depth].g = g; conf[depth].b = b; conf[depth].s = s; conf[depth++].st = st; return 0; }
cudaError_t __cudaPopCallConfiguration(dim3 *g, dim3 *b, size_t *s, void *st) { depth--; *g = conf[depth].g; *b = conf[depth].b; *s = conf[depth].s; *(void **)st = conf[depth].st; return 0; }
cudaError_t __cudaGetKernel(cudaKernel_t *k, const void *f) { *k = (cudaKernel_t)f; return 0; }
static cudaError_t launched(const void *f, dim3 g, dim3 b, size_t s, void *st) { LOG("kernel %s grid %u,%u,%u block %u,%u,%u shared %zu stream %p", find(f), g.x, g.y, g.z, b.x, b.y, b.z, s, st); return 0; }
cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 g, dim3 b, void **a, size_t s, cudaStream_t st) { return launched((void *)k, g, b, s, st); }
cudaError_t cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **a, size_t s, cudaStream_t st) { return launched(f, g, b, s, st); }
cudaError_t cudaLaunchCooperativeKernel(const void *f, dim3 g, dim3 b, void **a, size_t s, cudaStream_t st) { return launched(f, g, b, s, st); }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *c, const void *f, void **a) { return launched(f, c->gridDim, c->blockDim, c->dynamicSmemBytes, c->stream); }
cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr a, int d) {
  switch (a) {
    case cudaDevAttrMultiProcessorCount: *v = 132; break;
    case cudaDevAttrComputeCapabilityMajor: *v = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *v = 0; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *v = 49152; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = 232448; break;
    case cudaDevAttrMaxThreadsPerBlock: *v = 1024; break;
    case cudaDevAttrWarpSize: *v = 32; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *v = 233472; break;
    default: *v = 1;
  }
  LOG("cudaDeviceGetAttribute %d -> %d", (int)a, *v);
  return 0;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) {
  memset(p, 0, sizeof *p); strcpy(p->name, "fake H100"); p->totalGlobalMem = 80ull << 30; p->sharedMemPerBlock = 49152;
  p->regsPerBlock = 65536; p->warpSize = 32; p->maxThreadsPerBlock = 1024; p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024; p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647; p->maxGridSize[1] = p->maxGridSize[2] = 65535; p->major = FAKE_SM / 10; p->minor = FAKE_SM % 10;
  p->multiProcessorCount = 132; p->l2CacheSize = 50 << 20; p->maxThreadsPerMultiProcessor = 2048; p->sharedMemPerMultiprocessor = 233472;
  p->sharedMemPerBlockOptin = 232448; p->regsPerMultiprocessor = 65536; p->concurrentKernels = 1; p->memoryPoolsSupported = 0;
  return 0;
}
QUIET(cudaDeviceSynchronize, (void))
cudaError_t cudaDriverGetVersion(int *v) { *v = 13000; return 0; }
cudaError_t cudaRuntimeGetVersion(int *v) { *v = 13000; return 0; }
static cudaError_t event(cudaEvent_t *e) { *e = malloc(8); return 0; }
cudaError_t cudaEventCreate(cudaEvent_t *e) { return event(e); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned f) { return event(e); }
cudaError_t cudaEventDestroy(cudaEvent_t e) { free(e); return 0; }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) { *ms = 1; return 0; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) { LOG("cudaEventRecord stream %p", (void *)s); return 0; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned f) { LOG("cudaEventRecord stream %p", (void *)s); return 0; }
OK(cudaEventSynchronize, (cudaEvent_t e))
cudaError_t cudaFree(void *p) { LOG("cudaFree %p", p); free(p); return 0; }
cudaError_t cudaFreeAsync(void *p, cudaStream_t s) { free(p); return 0; }
cudaError_t cudaFreeHost(void *p) { free(p); return 0; }
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) { memset(a, 0, sizeof *a); a->maxThreadsPerBlock = 1024; a->binaryVersion = 90; a->ptxVersion = 90; return 0; }
QUIET(cudaFuncSetAttribute, (const void *f, enum cudaFuncAttribute a, int v))
static int device;
cudaError_t cudaGetDevice(int *d) { *d = device; return 0; }
cudaError_t cudaSetDevice(int d) { device = d; return 0; }
cudaError_t cudaGetDeviceCount(int *n) { *n = 2; return 0; }
cudaError_t cudaGetDriverEntryPointByVersion(const char *n, void **f, unsigned v, unsigned long long fl, enum cudaDriverEntryPointQueryResult *r) { *f = 0; if (r) *r = cudaDriverEntryPointSymbolNotFound; LOG("entry point %s", n); return 0; }
const char *cudaGetErrorName(cudaError_t e) { return e == 2 ? "cudaErrorMemoryAllocation" : "fake"; }
const char *cudaGetErrorString(cudaError_t e) { return e == 2 ? "out of memory" : "fake error"; }
QUIET(cudaGetLastError, (void))
QUIET(cudaPeekAtLastError, (void))
OK(cudaGraphDestroy, (cudaGraph_t g))
OK(cudaGraphExecDestroy, (cudaGraphExec_t g))
QUIET(cudaGraphUpload, (cudaGraphExec_t g, cudaStream_t s))
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long f) { LOG("cudaGraphInstantiate"); *e = (cudaGraphExec_t)g; return 0; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s) { LOG("cudaGraphLaunch %p stream %p", (void *)e, (void *)s); for (struct work *w = *(struct work **)e; w; w = w->next) w->run(w->data); return 0; }
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned f) { return posix_memalign(p, 4096, n ? n : 1); }
cudaError_t cudaMallocHost(void **p, size_t n) { return posix_memalign(p, 4096, n ? n : 1); }
static size_t used;
cudaError_t cudaMalloc(void **p, size_t n) { const char *l = getenv("FAKE_CUDA_MEMORY"); if (l && used + n > strtoull(l, 0, 10)) { LOG("cudaMalloc %zu REFUSED", n); return 2; } used += n; int r = posix_memalign(p, 4096, n ? n : 1); LOG("cudaMalloc %zu -> %p", n, *p); return r; }
cudaError_t cudaMallocFromPoolAsync(void **p, size_t n, cudaMemPool_t q, cudaStream_t s) { return cudaMalloc(p, n); }
QUIET(cudaKernelSetAttributeForDevice, (cudaKernel_t k, enum cudaFuncAttribute a, int v, int d))
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void *u) { LOG("cudaLaunchHostFunc"); f(u); return 0; }
cudaError_t cudaLibraryGetKernel(cudaKernel_t *k, cudaLibrary_t l, const char *n) { *k = 0; return 0; }
cudaError_t cudaLibraryLoadData(cudaLibrary_t *l, const void *c, enum cudaJitOption *a, void **b, unsigned n, enum cudaLibraryOption *d, void **e, unsigned m) { *l = 0; return 0; }
QUIET(cudaLibraryUnload, (cudaLibrary_t l))
cudaError_t cudaMemGetInfo(size_t *f, size_t *t) { *f = 79ull << 30; *t = 80ull << 30; return 0; }
cudaError_t cudaMemPoolCreate(cudaMemPool_t *p, const struct cudaMemPoolProps *q) { *p = 0; return 0; }
QUIET(cudaMemPoolDestroy, (cudaMemPool_t p))
QUIET(cudaMemPoolGetAttribute, (cudaMemPool_t p, enum cudaMemPoolAttr a, void *v))
QUIET(cudaMemPoolSetAttribute, (cudaMemPool_t p, enum cudaMemPoolAttr a, void *v))
QUIET(cudaMemPoolTrimTo, (cudaMemPool_t p, size_t n))
cudaError_t cudaMemcpy(void *d, const void *s, size_t n, enum cudaMemcpyKind k) { LOG("cudaMemcpy %zu kind %d", n, k); memcpy(d, s, n); return 0; }
cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, enum cudaMemcpyKind k, cudaStream_t st) { LOG("cudaMemcpyAsync %zu kind %d stream %p", n, k, (void *)st); submit_copy(d, s, n); return 0; }
cudaError_t cudaMemcpy2DAsync(void *d, size_t dp, const void *s, size_t sp, size_t w, size_t h, enum cudaMemcpyKind k, cudaStream_t st) { LOG("cudaMemcpy2DAsync"); for (size_t i = 0; i < h; i++) memcpy((char *)d + i * dp, (char *)s + i * sp, w); return 0; }
QUIET(cudaMemcpyFromSymbol, (void *d, const void *s, size_t n, size_t o, enum cudaMemcpyKind k))
cudaError_t cudaMemset(void *p, int v, size_t n) { LOG("cudaMemset %zu", n); memset(p, v, n); return 0; }
cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t s) { LOG("cudaMemsetAsync %zu", n); memset(p, v, n); return 0; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int b, size_t s, unsigned fl) { *n = 2; return 0; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) { memset(a, 0, sizeof *a); a->type = cudaMemoryTypeDevice; a->devicePointer = (void *)p; return 0; }
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode m) { LOG("cudaStreamBeginCapture mode %d stream %p", m, (void *)s); capturing = 1; return 0; }
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) { LOG("cudaStreamEndCapture"); capturing = 0; struct work **list = malloc(sizeof *list); *list = captured; *g = (cudaGraph_t)list; captured = 0; last_captured = &captured; return 0; }
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *v) { *v = capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone; return 0; }
static cudaError_t stream(cudaStream_t *s) { *s = malloc(8); LOG("cudaStreamCreate -> %p", (void *)*s); return 0; }
cudaError_t cudaStreamCreate(cudaStream_t *s) { return stream(s); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned f) { return stream(s); }
cudaError_t cudaStreamDestroy(cudaStream_t s) { free(s); return 0; }
cudaError_t cudaStreamSynchronize(cudaStream_t s) { LOG("cudaStreamSynchronize %p", (void *)s); return 0; }
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned f) { LOG("cudaStreamWaitEvent stream %p", (void *)s); return 0; }
