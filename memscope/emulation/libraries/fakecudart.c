// The emulated CUDA runtime and driver but for memory: devices, streams, events, captures, launches that do nothing.
#include "fakecuda.h"

machine_t machine;
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
__thread int current_device;
stream_t streams[MAX_STREAMS];
u64 now, all_done, n_launches, n_reads;
static __thread int last_error;
static int n_streams = 1;
static enum { READY, QUERIES, LAG, MANUAL } latency;
static u64 latency_count;

int fail(int error) { last_error = error; return error; }

// ---------------------------------------------------------------- the machine
static u64 variable(const char *name, u64 otherwise) {
  const char *text = getenv(name);
  return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static void read_latency(const char *text) {
  const char *colon = text ? strchr(text, ':') : NULL;
  latency_count = colon ? strtoull(colon + 1, NULL, 10) : 0;
  latency = !text ? READY : !strncmp(text, "queries", 7) ? QUERIES : !strncmp(text, "lag", 3) ? LAG : !strcmp(text, "manual") ? MANUAL : READY;
}

static void read_visible(void) {
  const char *text = getenv("CUDA_VISIBLE_DEVICES");
  machine.n_devices = 0;
  for (int i = 0; !text && i < machine.n_physical; i++) machine.device[machine.n_devices++].physical = i;
  while (text && *text && machine.n_devices < machine.n_physical) {
    char *end;
    long number = strtol(text, &end, 10);
    if (end == text || number < 0 || number >= machine.n_physical) break;
    machine.device[machine.n_devices++].physical = (int)number;
    text = *end == ',' ? end + 1 : "";
  }
}

static void read_machine(void) {
  machine.n_physical = (int)variable("FAKE_CUDA_DEVICES", 1);
  if (machine.n_physical > MAX_DEVICES) machine.n_physical = MAX_DEVICES;
  machine.total = variable("FAKE_CUDA_TOTAL_BYTES", 80ull << 30);
  machine.overhead = variable("FAKE_CUDA_OVERHEAD_BYTES", 0);
  machine.other = variable("FAKE_CUDA_OTHER_BYTES", 0);
  machine.capability = (int)variable("FAKE_CUDA_CC", 80);
  machine.n_multiprocessors = (int)variable("FAKE_CUDA_SMS", 108);
  const char *name = getenv("FAKE_CUDA_NAME");
  snprintf(machine.name, sizeof machine.name, "%s", name && *name ? name : "Emulated device");
  read_latency(getenv("FAKE_CUDA_EVENTS"));
  read_visible();
  if (machine.n_devices && !reserve_addresses()) machine.n_devices = 0;
}

int ensure_machine(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, read_machine);
  return machine.n_devices > 0;
}

API int fakecuda_is_emulated(void) { return 1; }
API void fakecuda_set_events(const char *text) { pthread_mutex_lock(&lock); read_latency(text); pthread_mutex_unlock(&lock); }
API void fakecuda_complete_all(void) { all_done = now; }

// ---------------------------------------------------------------- devices
static int is_device(int device) { return ensure_machine() && device >= 0 && device < machine.n_devices; }
API int cudaGetDeviceCount(int *n) { int is_any = ensure_machine(); *n = machine.n_devices; return is_any ? OK : fail(NO_DEVICE); }
API int cudaGetDevice(int *device) { if (!ensure_machine()) return fail(NO_DEVICE); *device = current_device; return OK; }
API int cudaSetDevice(int device) { if (!is_device(device)) return fail(INVALID_DEVICE); current_device = device; return OK; }
API int cudaDriverGetVersion(int *version) { *version = FAKE_CUDART_VERSION; return OK; }
API int cudaRuntimeGetVersion(int *version) { *version = FAKE_CUDART_VERSION; return OK; }

// Where CUDA 12 and CUDA 13 keep the fields of struct cudaDeviceProp, in bytes. 12.1 to 12.9 agree, and so do 13.0 to 13.5.
#define PROPERTIES_SIZE (FAKE_CUDART_VERSION >= 13000 ? 1008 : 1032)
#define AT(offset_12, offset_13) ((char *)properties + (FAKE_CUDART_VERSION >= 13000 ? (offset_13) : (offset_12)))
#define PUT_INT(offset_12, offset_13, value) (*(int *)AT(offset_12, offset_13) = (value))
#define PUT_SIZE(offset_12, offset_13, value) (*(size_t *)AT(offset_12, offset_13) = (value))

API int cudaGetDeviceProperties(void *properties, int device) {
  if (!is_device(device)) return fail(INVALID_DEVICE);
  int number = machine.device[device].physical;
  memset(properties, 0, PROPERTIES_SIZE);
  snprintf((char *)properties, 256, "%s", machine.name);
  for (int i = 0; i < 16; i++) *(unsigned char *)AT(256 + i, 256 + i) = (unsigned char)(number * 17 + i);  // uuid
  PUT_SIZE(288, 288, machine.total);                    // totalGlobalMem
  PUT_SIZE(296, 296, 49152);                            // sharedMemPerBlock
  PUT_INT(304, 304, 65536);                             // regsPerBlock
  PUT_INT(308, 308, 32);                                // warpSize
  PUT_SIZE(312, 312, 2147483647);                       // memPitch
  PUT_INT(320, 320, 1024);                              // maxThreadsPerBlock
  PUT_INT(324, 324, 1024); PUT_INT(328, 328, 1024); PUT_INT(332, 332, 64);           // maxThreadsDim
  PUT_INT(336, 336, 2147483647); PUT_INT(340, 340, 65535); PUT_INT(344, 344, 65535);  // maxGridSize
  PUT_SIZE(352, 352, 65536);                            // totalConstMem
  PUT_INT(360, 360, machine.capability / 10);           // major
  PUT_INT(364, 364, machine.capability % 10);           // minor
  PUT_SIZE(368, 368, 512);                              // textureAlignment
  PUT_INT(388, 384, machine.n_multiprocessors);         // multiProcessorCount
  PUT_INT(400, 392, 1);                                 // canMapHostMemory
  PUT_INT(576, 560, 1);                                 // concurrentKernels
  PUT_INT(580, 564, 1);                                 // ECCEnabled
  PUT_INT(584, 568, 1 + number);                        // pciBusID
  PUT_INT(600, 584, 3);                                 // asyncEngineCount
  PUT_INT(604, 588, 1);                                 // unifiedAddressing
  PUT_INT(612, 592, 5120);                              // memoryBusWidth
  PUT_INT(616, 596, 40 << 20);                          // l2CacheSize
  PUT_INT(624, 604, 2048);                              // maxThreadsPerMultiProcessor
  PUT_INT(628, 608, 1);                                 // streamPrioritiesSupported
  PUT_INT(632, 612, 1); PUT_INT(636, 616, 1);           // globalL1CacheSupported, localL1CacheSupported
  PUT_SIZE(640, 624, 167936);                           // sharedMemPerMultiprocessor
  PUT_INT(648, 632, 65536);                             // regsPerMultiprocessor
  PUT_INT(652, 636, 1);                                 // managedMemory
  PUT_INT(676, 656, 1);                                 // concurrentManagedAccess
  PUT_INT(688, 668, 1);                                 // cooperativeLaunch
  PUT_SIZE(696, 672, 166912);                           // sharedMemPerBlockOptin
  PUT_INT(712, 688, 32);                                // maxBlocksPerMultiProcessor
  PUT_SIZE(720, 696, 1024);                             // reservedSharedMemPerBlock
  PUT_INT(728, 704, 1);                                 // hostRegisterSupported
  PUT_INT(744, 720, 1);                                 // memoryPoolsSupported
  return OK;
}
API int cudaGetDeviceProperties_v2(void *properties, int device) { return cudaGetDeviceProperties(properties, device); }

int attribute_of(int attribute) {
  switch (attribute) {
    case 1: case 2: case 3: return 1024; case 4: return 64; case 5: return 2147483647; case 6: case 7: return 65535;
    case 8: return 49152; case 9: return 65536; case 10: return 32; case 11: return 2147483647; case 12: return 65536;
    case 13: return 1410000; case 14: return 512; case 15: return 1; case 16: return machine.n_multiprocessors; case 19: return 1;
    case 31: case 32: case 33: return 1; case 36: return 1215000; case 37: return 5120; case 38: return 40 << 20; case 39: return 2048;
    case 40: return 3; case 41: return 1; case 75: return machine.capability / 10; case 76: return machine.capability % 10;
    case 78: case 79: case 80: return 1; case 81: return 167936; case 82: return 65536; case 83: return 1; case 95: return 1;
    case 97: return 166912; case 102: case 103: return 1; /* virtual memory, file handles */
    case 106: return 32; case 111: return 1024; case 115: case 119: return 1;
    default: return 0; /* fabric handles (128), multicast (132) and all else: no */
  }
}
API int cudaDeviceGetAttribute(int *value, int attribute, int device) { if (!is_device(device)) return fail(INVALID_DEVICE); *value = attribute_of(attribute); return OK; }
API int cudaDeviceGetPCIBusId(char *text, int n, int device) { if (!is_device(device)) return fail(INVALID_DEVICE); snprintf(text, n, "0000:%02x:00.0", machine.device[device].physical + 1); return OK; }
API int cudaDeviceCanAccessPeer(int *can, int a, int b) { *can = a != b; return OK; }
API int cudaDeviceEnablePeerAccess(int device, unsigned flags) { (void)device; (void)flags; return OK; }
API int cudaDeviceGetStreamPriorityRange(int *lowest, int *highest) { if (lowest) *lowest = 0; if (highest) *highest = -5; return OK; }
API int cudaDeviceGetDefaultMemPool(void **pool, int device) { *pool = (void *)(0x20000000ull + 16 * device); return OK; }

// ---------------------------------------------------------------- errors
API int cudaGetLastError(void) { int error = last_error; last_error = OK; return error; }
API int cudaPeekAtLastError(void) { return last_error; }
API const char *cudaGetErrorString(int error) {
  switch (error) {
    case OK: return "no error"; case INVALID_VALUE: return "invalid argument"; case OUT_OF_MEMORY: return "out of memory";
    case NO_DEVICE: return "no CUDA-capable device is detected"; case INVALID_DEVICE: return "invalid device ordinal";
    case NOT_READY: return "device not ready"; case NOT_SUPPORTED: return "operation not supported"; default: return "emulated CUDA error";
  }
}
API const char *cudaGetErrorName(int error) {
  switch (error) {
    case OK: return "cudaSuccess"; case INVALID_VALUE: return "cudaErrorInvalidValue"; case OUT_OF_MEMORY: return "cudaErrorMemoryAllocation";
    case NO_DEVICE: return "cudaErrorNoDevice"; case INVALID_DEVICE: return "cudaErrorInvalidDevice"; case NOT_READY: return "cudaErrorNotReady";
    case NOT_SUPPORTED: return "cudaErrorNotSupported"; default: return "cudaErrorUnknown";
  }
}

// ---------------------------------------------------------------- streams and events
int stream_index(const void *stream) {
  u64 offset = (u64)stream - STREAM_BASE;
  return offset < 0x100ull * MAX_STREAMS ? (int)(offset / 0x100) : 0;
}

API int cudaStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
  (void)flags;
  if (!ensure_machine()) return fail(NO_DEVICE);
  pthread_mutex_lock(&lock);
  int i = n_streams < MAX_STREAMS ? n_streams++ : 0;
  streams[i].priority = priority;
  streams[i].device = current_device;
  pthread_mutex_unlock(&lock);
  *stream = (void *)(STREAM_BASE + 0x100ull * i);
  return i ? OK : fail(OUT_OF_MEMORY);
}
API int cudaStreamCreateWithFlags(void **stream, unsigned flags) { return cudaStreamCreateWithPriority(stream, flags, 0); }
API int cudaStreamCreate(void **stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
API int cudaStreamDestroy(void *stream) { (void)stream; return OK; }
API int cudaStreamGetPriority(void *stream, int *priority) { *priority = streams[stream_index(stream)].priority; return OK; }
API int cudaStreamGetDevice(void *stream, int *device) { int i = stream_index(stream); *device = i ? streams[i].device : current_device; return OK; }
API int cudaStreamQuery(void *stream) { (void)stream; return OK; }
API int cudaStreamSynchronize(void *stream) { streams[stream_index(stream)].done = ++now; return OK; }
API int cudaDeviceSynchronize(void) {
  if (!ensure_machine()) return fail(NO_DEVICE);
  machine.device[current_device].has_context = 1;
  all_done = ++now;
  return OK;
}

typedef struct {
  u64 recorded, left, capture_id;
  int stream, is_timed;
  struct timespec time;
} event_t;

API int cudaEventCreateWithFlags(void **event, unsigned flags) { event_t *e = calloc(1, sizeof *e); if (!e) return fail(OUT_OF_MEMORY); e->is_timed = !(flags & 2); *event = e; return OK; }
API int cudaEventCreate(void **event) { return cudaEventCreateWithFlags(event, 0); }
API int cudaEventDestroy(void *event) { free(event); return OK; }
API int cudaEventRecord(void *event, void *stream) {
  event_t *e = event;
  e->recorded = ++now;
  e->stream = stream_index(stream);
  e->left = latency_count;
  e->capture_id = streams[e->stream].capture_id;
  if (e->is_timed) clock_gettime(CLOCK_MONOTONIC, &e->time);
  return OK;
}
API int cudaEventRecordWithFlags(void *event, void *stream, unsigned flags) { (void)flags; return cudaEventRecord(event, stream); }
API int cudaEventQuery(void *event) {
  event_t *e = event;
  int is_done = 0;
  if (!e->recorded || latency == READY || e->recorded <= all_done || e->recorded <= streams[e->stream].done) is_done = 1;
  else if (latency == QUERIES) { is_done = e->left == 0; if (e->left) e->left--; }
  else if (latency == LAG) is_done = now++ - e->recorded >= latency_count;
  return is_done ? OK : fail(NOT_READY);
}
API int cudaEventSynchronize(void *event) { event_t *e = event; stream_t *s = &streams[e->stream]; if (s->done < e->recorded) s->done = e->recorded; return OK; }
API int cudaEventElapsedTime(float *ms, void *start, void *end) {
  event_t *a = start, *b = end;
  *ms = (float)((b->time.tv_sec - a->time.tv_sec) * 1e3 + (b->time.tv_nsec - a->time.tv_nsec) / 1e6);
  return OK;
}
API int cudaEventElapsedTime_v2(float *ms, void *start, void *end) { return cudaEventElapsedTime(ms, start, end); }
API int cudaStreamWaitEvent(void *stream, void *event, unsigned flags) {
  (void)flags;
  stream_t *s = &streams[stream_index(stream)];
  if (!s->capture_id) s->capture_id = ((event_t *)event)->capture_id;  // a fork into the capture
  return OK;
}

// ---------------------------------------------------------------- graph capture: remembered, never replayed
static u64 next_capture = 1;
static __thread int capture_mode;
static void *graph_of(u64 capture) { return capture ? (void *)(0x30000000ull + 0x40 * capture) : NULL; }

API int cudaStreamBeginCapture(void *stream, int mode) { (void)mode; pthread_mutex_lock(&lock); streams[stream_index(stream)].capture_id = next_capture++; pthread_mutex_unlock(&lock); return OK; }
API int cudaStreamEndCapture(void *stream, void **graph) {
  pthread_mutex_lock(&lock);
  u64 capture = streams[stream_index(stream)].capture_id;
  for (int i = 0; i < n_streams; i++) if (streams[i].capture_id == capture) streams[i].capture_id = 0;
  pthread_mutex_unlock(&lock);
  *graph = graph_of(capture);
  return OK;
}
API int cudaStreamIsCapturing(void *stream, int *status) { *status = streams[stream_index(stream)].capture_id ? 1 : 0; return OK; }
static int capture_info(void *stream, int *status, u64 *id, void **graph, const void ***dependencies, size_t *n) {
  u64 capture = streams[stream_index(stream)].capture_id;
  if (status) *status = capture ? 1 : 0;
  if (id) *id = capture;
  if (graph) *graph = graph_of(capture);
  if (dependencies) *dependencies = NULL;
  if (n) *n = 0;
  return OK;
}
API int cudaStreamGetCaptureInfo_v2(void *stream, int *status, u64 *id, void **graph, const void ***dependencies, size_t *n) { return capture_info(stream, status, id, graph, dependencies, n); }
#if FAKE_CUDART_VERSION >= 13000
API int cudaStreamGetCaptureInfo(void *stream, int *status, u64 *id, void **graph, const void ***dependencies, const void **edges, size_t *n) { if (edges) *edges = NULL; return capture_info(stream, status, id, graph, dependencies, n); }
API int cudaGraphNodeGetDependencies(void *node, void **dependencies, void *edges, size_t *n) { (void)node; (void)dependencies; (void)edges; if (n) *n = 0; return OK; }
#else
API int cudaStreamGetCaptureInfo(void *stream, int *status, u64 *id) { return capture_info(stream, status, id, NULL, NULL, NULL); }
API int cudaGraphNodeGetDependencies(void *node, void **dependencies, size_t *n) { (void)node; (void)dependencies; if (n) *n = 0; return OK; }
#endif
API int cudaThreadExchangeStreamCaptureMode(int *mode) { int before = capture_mode; capture_mode = *mode; *mode = before; return OK; }
API int cudaGraphInstantiate(void **executable, void *graph, u64 flags) { (void)flags; *executable = (char *)graph + 8; return OK; }
API int cudaGraphInstantiateWithFlags(void **executable, void *graph, u64 flags) { return cudaGraphInstantiate(executable, graph, flags); }
API int cudaGraphGetNodes(void *graph, void **nodes, size_t *n) { (void)graph; (void)nodes; *n = 1; return OK; }
API int cudaGraphLaunch(void *executable, void *stream) { (void)executable; (void)stream; now++; return OK; }

// ---------------------------------------------------------------- launches: nothing runs
typedef struct { unsigned x, y, z; } dim_t;
static __thread struct { dim_t grid, block; size_t shared; void *stream; } pushed;
API unsigned __cudaPushCallConfiguration(dim_t grid, dim_t block, size_t shared, void *stream) { pushed.grid = grid; pushed.block = block; pushed.shared = shared; pushed.stream = stream; return OK; }
API int __cudaPopCallConfiguration(dim_t *grid, dim_t *block, size_t *shared, void *stream) { *grid = pushed.grid; *block = pushed.block; *shared = pushed.shared; *(void **)stream = pushed.stream; return OK; }
static int launched(void) { now++; n_launches++; return OK; }
API int cudaLaunchKernel(const void *f, dim_t grid, dim_t block, void **arguments, size_t shared, void *stream) { (void)f; (void)grid; (void)block; (void)arguments; (void)shared; (void)stream; return launched(); }
API int __cudaLaunchKernel(void *f, dim_t grid, dim_t block, void **arguments, size_t shared, void *stream) { (void)f; (void)grid; (void)block; (void)arguments; (void)shared; (void)stream; return launched(); }
API int cudaLaunchCooperativeKernel(const void *f, dim_t grid, dim_t block, void **arguments, size_t shared, void *stream) { (void)f; (void)grid; (void)block; (void)arguments; (void)shared; (void)stream; return launched(); }
API int cudaLaunchKernelExC(const void *config, const void *f, void **arguments) { (void)config; (void)f; (void)arguments; return launched(); }
API int cudaLaunchHostFunc(void *stream, void (*f)(void *), void *data) { (void)stream; f(data); return OK; }
API int cudaStreamAddCallback(void *stream, void (*f)(void *, int, void *), void *data, unsigned flags) { (void)flags; f(stream, OK, data); return OK; }
API int __cudaGetKernel(void **kernel, const void *entry) { *kernel = (void *)entry; return OK; }
API char __cudaInitModule(void **handle) { (void)handle; return 1; }
static void *binary_handle[4];
API void **__cudaRegisterFatBinary(void *binary) { (void)binary; return binary_handle; }
API void __cudaRegisterFatBinaryEnd(void **handle) { (void)handle; }
API void __cudaUnregisterFatBinary(void **handle) { (void)handle; }
API void __cudaRegisterFunction(void) {}
API void __cudaRegisterVar(void) {}
API int cudaFuncGetAttributes(void *attributes, const void *f) {
  // struct cudaFuncAttributes, 144 bytes in CUDA 12 and 13: three sizes, then six integers from byte 24 on.
  int *a = (int *)((char *)attributes + 24);
  (void)f;
  memset(attributes, 0, 144);
  a[0] = 1024; a[1] = 32; a[2] = a[3] = machine.capability; a[5] = 166912;  // threads, registers, PTX and binary version, shared bytes
  return OK;
}
API int cudaFuncSetAttribute(const void *f, int attribute, int value) { (void)f; (void)attribute; (void)value; return OK; }
API int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, const void *f, int block, size_t shared) { (void)f; (void)shared; *n = block > 0 && block <= 2048 ? 2048 / block : 1; return OK; }
API int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int block, size_t shared, unsigned flags) { (void)flags; return cudaOccupancyMaxActiveBlocksPerMultiprocessor(n, f, block, shared); }

// ---------------------------------------------------------------- driver
API int cuInit(unsigned flags) { (void)flags; return ensure_machine() ? OK : NO_DEVICE; }
API int cuDriverGetVersion(int *version) { *version = FAKE_CUDART_VERSION; return OK; }
API int cuGetErrorString(int error, const char **text) { *text = cudaGetErrorString(error); return OK; }
API int cuGetErrorName(int error, const char **text) { *text = error == OK ? "CUDA_SUCCESS" : error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_UNKNOWN"; return OK; }
API int cuDeviceGet(int *device, int number) { *device = number; return OK; }
API int cuDeviceGetAttribute(int *value, int attribute, int device) { (void)device; *value = attribute_of(attribute); return OK; }
API int cuDeviceGetCount(int *n) { ensure_machine(); *n = machine.n_devices; return OK; }
API int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *is_active) { *flags = 0; *is_active = device >= 0 && device < machine.n_devices && machine.device[device].has_context; return OK; }
API int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(0x40000000ull + 16 * (device + 1)); return OK; }
API int cuCtxGetCurrent(void **context) { *context = (void *)(0x40000000ull + 16 * (current_device + 1)); return OK; }
API int cuCtxSetCurrent(void *context) { (void)context; return OK; }
API int cuCtxPushCurrent(void *context) { (void)context; return OK; }
API int cuCtxPopCurrent(void **context) { if (context) *context = NULL; return OK; }
API int cuCtxSetLimit(int limit, size_t value) { (void)limit; (void)value; return OK; }
API int cuCtxGetLimit(size_t *value, int limit) { (void)limit; *value = 1024; return OK; }
enum { POINTER_ON_DEVICE = 3 };
API int cuPointerGetAttribute(void *data, int attribute, u64 pointer) { *(u64 *)data = attribute == POINTER_ON_DEVICE ? pointer : 0; return OK; }
API int cuMemGetAllocationGranularity(size_t *, const void *, int), cuMemAddressReserve(u64 *, size_t, size_t, u64, u64), cuMemAddressFree(u64, size_t);
API int cuMemCreate(u64 *, size_t, const void *, u64), cuMemRelease(u64), cuMemMap(u64, size_t, size_t, u64, u64), cuMemUnmap(u64, size_t);
API int cuMemSetAccess(u64, size_t, const void *, size_t), cuMemsetD32Async(u64, unsigned, size_t, void *);
API int cuMemExportToShareableHandle(void *, u64, int, u64), cuMemImportFromShareableHandle(u64 *, void *, int);

// Kernels that were compiled elsewhere (by Triton): there is something to load and to launch, and a launch does nothing.
static char loaded[8];
API int cuModuleLoad(void **module, const char *path) { (void)path; *module = loaded; return OK; }
API int cuModuleLoadData(void **module, const void *image) { (void)image; *module = loaded; return OK; }
API int cuModuleLoadDataEx(void **module, const void *image, unsigned n, void *options, void **values) { (void)n; (void)options; (void)values; return cuModuleLoadData(module, image); }
API int cuModuleUnload(void *module) { (void)module; return OK; }
API int cuModuleGetFunction(void **function, void *module, const char *name) { (void)module; (void)name; *function = loaded; return OK; }
enum { FUNCTION_MAX_THREADS = 0, FUNCTION_REGISTERS = 4 };
API int cuFuncGetAttribute(int *value, int attribute, void *function) { (void)function; *value = attribute == FUNCTION_MAX_THREADS ? 1024 : attribute == FUNCTION_REGISTERS ? 32 : 0; return OK; }
API int cuFuncSetAttribute(void *function, int attribute, int value) { (void)function; (void)attribute; (void)value; return OK; }
API int cuFuncSetCacheConfig(void *function, int config) { (void)function; (void)config; return OK; }
API int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **arguments, void **extra) {
  (void)f; (void)gx; (void)gy; (void)gz; (void)bx; (void)by; (void)bz; (void)shared; (void)stream; (void)arguments; (void)extra;
  return launched();
}
API int cuLaunchKernelEx(const void *config, void *f, void **arguments, void **extra) { (void)config; (void)f; (void)arguments; (void)extra; return launched(); }
API int cuLaunchCooperativeKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **arguments) {
  return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, arguments, NULL);
}
API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *f, int block, size_t shared) { return cudaOccupancyMaxActiveBlocksPerMultiprocessor(n, f, block, shared); }
API int cuOccupancyMaxActiveClusters(int *n, void *f, const void *config) { (void)f; (void)config; *n = machine.n_multiprocessors; return OK; }
API int cuPointerGetAttributes(unsigned n, int *attributes, void **data, u64 pointer) { for (unsigned i = 0; i < n; i++) cuPointerGetAttribute(data[i], attributes[i], pointer); return OK; }
API int cuTensorMapEncodeTiled(void *map) { (void)map; return OK; }

static int driver_stub(void) { return OK; }
#define ENTRY(name) {#name, (void *)name}
static const struct { const char *name; void *function; } driver_entries[] = {
  ENTRY(cuInit), ENTRY(cuDriverGetVersion), ENTRY(cuGetErrorString), ENTRY(cuGetErrorName), ENTRY(cuDeviceGet), ENTRY(cuDeviceGetAttribute),
  ENTRY(cuDeviceGetCount), ENTRY(cuDevicePrimaryCtxGetState), ENTRY(cuDevicePrimaryCtxRetain), ENTRY(cuCtxGetCurrent), ENTRY(cuCtxSetCurrent),
  ENTRY(cuCtxPushCurrent), ENTRY(cuCtxPopCurrent), ENTRY(cuPointerGetAttribute), ENTRY(cuMemGetAllocationGranularity), ENTRY(cuMemAddressReserve),
  ENTRY(cuMemAddressFree), ENTRY(cuMemCreate), ENTRY(cuMemRelease), ENTRY(cuMemMap), ENTRY(cuMemUnmap), ENTRY(cuMemSetAccess),
  ENTRY(cuMemsetD32Async), ENTRY(cuMemExportToShareableHandle), ENTRY(cuMemImportFromShareableHandle),
  ENTRY(cuLaunchKernelEx), ENTRY(cuOccupancyMaxActiveClusters), ENTRY(cuTensorMapEncodeTiled), ENTRY(cuModuleLoadData), ENTRY(cuModuleGetFunction),
  ENTRY(cuFuncGetAttribute), ENTRY(cuFuncSetAttribute), ENTRY(cuLaunchKernel),
};
static int driver_entry(const char *name, void **pointer, int *status) {
  *pointer = (void *)driver_stub;
  for (size_t i = 0; i < sizeof driver_entries / sizeof *driver_entries; i++) if (!strcmp(name, driver_entries[i].name)) *pointer = driver_entries[i].function;
  if (status) *status = 0;
  return OK;
}
API int cudaGetDriverEntryPointByVersion(const char *name, void **pointer, unsigned version, u64 flags, int *status) { (void)version; (void)flags; return driver_entry(name, pointer, status); }
API int cudaGetDriverEntryPoint(const char *name, void **pointer, u64 flags, int *status) { (void)flags; return driver_entry(name, pointer, status); }
API int cuGetProcAddress_v2(const char *name, void **pointer, int version, u64 flags, int *status) { (void)version; (void)flags; return driver_entry(name, pointer, status); }
