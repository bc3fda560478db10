// libnvidia-ml.so.1 of the emulated device: the same devices, seen from outside the process that uses them.
//
// It says of this process's memory what the emulated runtime in it has given out. Variables, read at every call:
//   FAKE_NVML_INIT            nvmlInit returns this error (9: driver not loaded)                           (0)
//   FAKE_NVML_MEMORY          unsupported: nvmlDeviceGetMemoryInfo says NOT_SUPPORTED                      (ok)
//   FAKE_NVML_RESERVED_BYTES  memory the driver keeps; NVML's total counts it, CUDA's does not             (0)
//   FAKE_NVML_PROCESSES       listed: with this process's number and bytes; renumbered: under another number, as in a
//                             container; unmeasured: bytes not available; hidden: left out; unsupported    (listed)
//   FAKE_NVML_MIG             1: MIG mode is on                                                            (0: not supported)
// FAKE_CUDA_DEVICES, FAKE_CUDA_NAME and FAKE_CUDA_OTHER_BYTES (another process's) are the runtime's.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
typedef unsigned long long u64;
enum { OK = 0, INVALID_ARGUMENT = 2, UNSUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };
#define HANDLE_BASE 0x50000000ull
#define NOT_AVAILABLE (~0ull)
#define OTHER_PROCESS 4242u
int fakecuda_device_memory(int number, uint64_t out[3]);

static const char *variable(const char *name) { const char *text = getenv(name); return text ? text : ""; }
static int says(const char *name, const char *value) { return !strcmp(variable(name), value); }
static unsigned n_devices(void) { const char *text = variable("FAKE_CUDA_DEVICES"); return *text ? (unsigned)atoi(text) : 1; }
static int number_of(void *handle) { return (int)(((u64)handle - HANDLE_BASE) / 16); }
static int give(unsigned number, void **handle) {
  if (number >= n_devices()) return NOT_FOUND;
  *handle = (void *)(HANDLE_BASE + 16 * number);
  return OK;
}

API int nvmlInit_v2(void) { return atoi(variable("FAKE_NVML_INIT")); }
API int nvmlInit(void) { return nvmlInit_v2(); }
API int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
API int nvmlShutdown(void) { return OK; }
API const char *nvmlErrorString(int error) {
  switch (error) {
    case OK: return "Success"; case INVALID_ARGUMENT: return "Invalid Argument"; case UNSUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found"; case INSUFFICIENT_SIZE: return "Insufficient Size"; case 9: return "Driver Not Loaded"; default: return "Unknown Error";
  }
}
API int nvmlSystemGetDriverVersion(char *text, unsigned n) { snprintf(text, n, "580.00.emulated"); return OK; }
API int nvmlSystemGetNVMLVersion(char *text, unsigned n) { snprintf(text, n, "13.580.00.emulated"); return OK; }
API int nvmlSystemGetCudaDriverVersion(int *version) { *version = FAKE_CUDART_VERSION; return OK; }
API int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = FAKE_CUDART_VERSION; return OK; }

// ---------------------------------------------------------------- which device
API int nvmlDeviceGetCount_v2(unsigned *n) { *n = n_devices(); return OK; }
API int nvmlDeviceGetCount(unsigned *n) { return nvmlDeviceGetCount_v2(n); }
API int nvmlDeviceGetHandleByIndex_v2(unsigned number, void **handle) { return number < n_devices() ? give(number, handle) : INVALID_ARGUMENT; }
API int nvmlDeviceGetHandleByIndex(unsigned number, void **handle) { return nvmlDeviceGetHandleByIndex_v2(number, handle); }
API int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **handle) {
  unsigned domain, bus;
  return sscanf(id, "%x:%x:", &domain, &bus) == 2 && bus > 0 ? give(bus - 1, handle) : NOT_FOUND;
}
API int nvmlDeviceGetHandleByPciBusId(const char *id, void **handle) { return nvmlDeviceGetHandleByPciBusId_v2(id, handle); }

static void write_uuid(unsigned number, char *text, unsigned n) {
  char digits[33];
  for (int i = 0; i < 16; i++) snprintf(digits + 2 * i, 3, "%02x", (number * 17 + i) & 255);
  snprintf(text, n, "GPU-%.8s-%.4s-%.4s-%.4s-%.12s", digits, digits + 8, digits + 12, digits + 16, digits + 20);
}
API int nvmlDeviceGetUUID(void *handle, char *text, unsigned n) { write_uuid(number_of(handle), text, n); return OK; }
API int nvmlDeviceGetHandleByUUID(const char *id, void **handle) {
  char uuid[64];
  for (unsigned number = 0; number < n_devices(); number++) {
    write_uuid(number, uuid, sizeof uuid);
    if (!strcmp(id, uuid)) return give(number, handle);
  }
  return NOT_FOUND;
}
API int nvmlDeviceGetIndex(void *handle, unsigned *number) { *number = number_of(handle); return OK; }
API int nvmlDeviceGetName(void *handle, char *text, unsigned n) { (void)handle; const char *name = variable("FAKE_CUDA_NAME"); snprintf(text, n, "%s", *name ? name : "Emulated device"); return OK; }
API int nvmlDeviceGetPciInfo_v3(void *handle, void *info) {
  // nvmlPciInfo_t: char busIdLegacy[16]; unsigned domain, bus, device, pciDeviceId, pciSubSystemId; char busId[32]
  struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } *pci = info;
  memset(pci, 0, sizeof *pci);
  pci->bus = number_of(handle) + 1;
  snprintf(pci->legacy, sizeof pci->legacy, "0000:%02X:00.0", pci->bus);
  snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus);
  return OK;
}
API int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
  (void)handle;
  if (!says("FAKE_NVML_MIG", "1")) return UNSUPPORTED;
  *current = *pending = 1;
  return OK;
}

// ---------------------------------------------------------------- memory
typedef struct { u64 total, free, used, reserved, own, other; } memory_t;
static int memory_of(void *handle, memory_t *m) {
  uint64_t bytes[3];
  if (says("FAKE_NVML_MEMORY", "unsupported")) return UNSUPPORTED;
  if (!fakecuda_device_memory(number_of(handle), bytes)) return INVALID_ARGUMENT;
  m->reserved = strtoull(variable("FAKE_NVML_RESERVED_BYTES"), NULL, 10);
  m->total = bytes[0] + m->reserved;
  m->own = bytes[1];
  m->other = bytes[2];
  m->used = m->own + m->other;
  m->free = bytes[0] > m->used ? bytes[0] - m->used : 0;
  return OK;
}
API int nvmlDeviceGetMemoryInfo(void *handle, u64 *info) {  // total, free, used: the driver's own part counts as used
  memory_t m;
  int status = memory_of(handle, &m);
  if (status) return status;
  info[0] = m.total; info[1] = m.free; info[2] = m.used + m.reserved;
  return OK;
}
API int nvmlDeviceGetMemoryInfo_v2(void *handle, void *info) {
  struct { unsigned version; u64 total, reserved, free, used; } *out = info;
  memory_t m;
  int status = memory_of(handle, &m);
  if (status) return status;
  out->total = m.total; out->reserved = m.reserved; out->free = m.free; out->used = m.used;
  return OK;
}

// ---------------------------------------------------------------- processes
typedef struct { unsigned pid; u64 used; } process_1_t;
typedef struct { unsigned pid; u64 used; unsigned instance, compute_instance; } process_2_t;

static int processes(void *handle, unsigned *n, process_1_t found[2]) {
  memory_t m;
  if (says("FAKE_NVML_PROCESSES", "unsupported")) return UNSUPPORTED;
  int status = memory_of(handle, &m);
  if (status) return status;
  *n = 0;
  if (m.own && !says("FAKE_NVML_PROCESSES", "hidden"))
    found[(*n)++] = (process_1_t){(unsigned)getpid() + (says("FAKE_NVML_PROCESSES", "renumbered") ? 100000u : 0u), m.own};
  if (m.other) found[(*n)++] = (process_1_t){OTHER_PROCESS, m.other};
  for (unsigned i = 0; says("FAKE_NVML_PROCESSES", "unmeasured") && i < *n; i++) found[i].used = NOT_AVAILABLE;
  return OK;
}
static int list(void *handle, unsigned *room, void *out, int has_instances) {
  process_1_t found[2];
  unsigned n;
  int status = processes(handle, &n, found);
  if (status) return status;
  unsigned had = *room;
  *room = n;
  if (had < n) return INSUFFICIENT_SIZE;
  for (unsigned i = 0; i < n; i++) {
    if (has_instances) ((process_2_t *)out)[i] = (process_2_t){found[i].pid, found[i].used, ~0u, ~0u};
    else ((process_1_t *)out)[i] = found[i];
  }
  return OK;
}
API int nvmlDeviceGetComputeRunningProcesses(void *handle, unsigned *n, void *out) { return list(handle, n, out, 0); }
API int nvmlDeviceGetComputeRunningProcesses_v2(void *handle, unsigned *n, void *out) { return list(handle, n, out, 1); }
API int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *n, void *out) { return list(handle, n, out, 1); }
API int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *n, void *out) { (void)handle; (void)out; *n = 0; return OK; }

// ---------------------------------------------------------------- links: there are none
API int nvmlDeviceGetNvLinkRemoteDeviceType(void *handle, unsigned link, int *type) { (void)handle; (void)link; (void)type; return UNSUPPORTED; }
API int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *handle, unsigned link, void *info) { (void)handle; (void)link; (void)info; return UNSUPPORTED; }
// PyTorch requires this to succeed before it maps expandable segments on Hopper: all zero is a GPU without a fabric.
API int nvmlDeviceGetGpuFabricInfoV(void *handle, void *info) {
  (void)handle;
  size_t size = *(unsigned *)info & 0xffffff;  // the struct says its own version and size first
  if (size > sizeof(unsigned)) memset((char *)info + sizeof(unsigned), 0, size - sizeof(unsigned));
  return OK;
}
