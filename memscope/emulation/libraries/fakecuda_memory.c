// Device memory of the emulated CUDA runtime and driver: address ranges, capacity, mapping, copies.
#include "fakecuda.h"
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#define ADDRESS_SPACE (8ull << 40)
#define FIRST_BASE 0x720000000000ull
#define MAP_FIXED_NOREPLACE_ 0x100000

static enum { FIRSTFIT, BUMP, RANDOM, TOPDOWN } placement;
static u64 base, bump_next, random_state;
static int fill_byte, warns_of_reads;
static u64 n_malloc, n_free, n_oom, n_create, n_map, n_unmap;

// ---------------------------------------------------------------- ranges: sorted arrays, searched by bisection
typedef struct { u64 start, length, handle; int device; } range_t;
typedef struct { range_t *at; size_t n, room; } ranges_t;
static ranges_t device_ranges, host_ranges, mapped;

static size_t lower_bound(const ranges_t *r, u64 start) {
  size_t low = 0, high = r->n;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (r->at[middle].start < start) low = middle + 1; else high = middle;
  }
  return low;
}

static void insert(ranges_t *r, range_t range) {
  if (r->n == r->room) {
    r->room = r->room ? 2 * r->room : 256;
    r->at = realloc(r->at, r->room * sizeof *r->at);
    if (!r->at) abort();
  }
  size_t i = lower_bound(r, range.start);
  memmove(r->at + i + 1, r->at + i, (r->n - i) * sizeof *r->at);
  r->at[i] = range;
  r->n++;
}

static int take_out(ranges_t *r, u64 start, range_t *found) {
  size_t i = lower_bound(r, start);
  if (i == r->n || r->at[i].start != start) return 0;
  *found = r->at[i];
  memmove(r->at + i, r->at + i + 1, (r->n - i - 1) * sizeof *r->at);
  r->n--;
  return 1;
}

static const range_t *covering(const ranges_t *r, u64 address) {
  size_t i = lower_bound(r, address + 1);
  return i > 0 && address - r->at[i - 1].start < r->at[i - 1].length ? &r->at[i - 1] : NULL;
}

static int overlaps(const ranges_t *r, u64 start, u64 length) {
  size_t i = lower_bound(r, start);
  return (i < r->n && r->at[i].start < start + length) || (i > 0 && r->at[i - 1].start + r->at[i - 1].length > start);
}

// ---------------------------------------------------------------- address space
static u64 variable(const char *name, u64 otherwise) {
  const char *text = getenv(name);
  return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

int reserve_addresses(void) {
  const char *how = getenv("FAKE_CUDA_ADDRESSES");
  placement = !how ? FIRSTFIT : !strcmp(how, "bump") ? BUMP : !strcmp(how, "random") ? RANDOM : !strcmp(how, "topdown") ? TOPDOWN : FIRSTFIT;
  random_state = variable("FAKE_CUDA_SEED", 1) * 0x9E3779B97F4A7C15ull | 1;
  fill_byte = (int)variable("FAKE_CUDA_FILL", 0);
  warns_of_reads = (int)variable("FAKE_CUDA_WARN_READS", 0);
  u64 wanted = FIRST_BASE;
  for (int attempt = 0; attempt < 8; attempt++, wanted -= ADDRESS_SPACE) {
    void *got = mmap((void *)wanted, ADDRESS_SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE_, -1, 0);
    if (got == (void *)wanted) {
      base = bump_next = wanted;
      return 1;
    }
    if (got != MAP_FAILED) munmap(got, ADDRESS_SPACE);
  }
  fprintf(stderr, "memscope: emulated device: 8 TiB of address space cannot be reserved (ulimit -v, or vm.overcommit_memory=2, forbids it)\n");
  return 0;
}

int is_device_address(const void *pointer) { return base && (u64)pointer - base < ADDRESS_SPACE; }

static u64 next_random(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

// Find room for a range, and take it; 0 if there is none.
static u64 place(u64 length, int device) {
  const ranges_t *r = &device_ranges;
  u64 end = base + ADDRESS_SPACE, start = base;
  if (length > ADDRESS_SPACE) return 0;
  if (placement == BUMP) {
    start = bump_next;
    bump_next += length;
  } else if (placement == RANDOM) {
    for (int attempt = 0; attempt < 1000; attempt++) {
      start = base + next_random() % ((ADDRESS_SPACE - length) / GRANULARITY + 1) * GRANULARITY;
      if (!overlaps(r, start, length)) break;
    }
  } else if (placement == TOPDOWN) {
    u64 top = end;
    for (size_t i = r->n; i-- > 0;) {
      if (top - (r->at[i].start + r->at[i].length) >= length) break;
      top = r->at[i].start;
    }
    start = top - length;
  } else {
    for (size_t i = 0; i < r->n && r->at[i].start - start < length; i++) start = r->at[i].start + r->at[i].length;
  }
  if (start < base || start + length > end || overlaps(r, start, length)) return 0;
  insert(&device_ranges, (range_t){start, length, 0, device});
  return start;
}

// ---------------------------------------------------------------- capacity
static int take_bytes(u64 n, int device) {
  device_t *d = &machine.device[device];
  d->has_context = 1;
  if (n > machine.total || d->used + machine.overhead + machine.other + n > machine.total) {
    n_oom++;
    return 0;
  }
  d->used += n;
  return 1;
}

static u64 round_up(u64 n) { return (n + GRANULARITY - 1) / GRANULARITY * GRANULARITY; }

// ---------------------------------------------------------------- runtime: memory
API int cudaMalloc(void **pointer, size_t n) {
  *pointer = NULL;
  if (!ensure_machine()) return fail(NO_DEVICE);
  pthread_mutex_lock(&lock);
  int device = current_device;
  u64 length = round_up(n ? n : 1), start = 0;
  if (n <= machine.total && take_bytes(length, device)) {
    start = place(length, device);
    if (start) n_malloc++; else machine.device[device].used -= length;
  }
  pthread_mutex_unlock(&lock);
  *pointer = (void *)start;
  return start ? OK : fail(OUT_OF_MEMORY);
}

API int cudaFree(void *pointer) {
  if (!pointer) return OK;
  range_t found;
  pthread_mutex_lock(&lock);
  int is_known = take_out(&device_ranges, (u64)pointer, &found);
  if (is_known) {
    machine.device[found.device].used -= found.length;
    n_free++;
    all_done = now;  // cudaFree waits for the device
  }
  pthread_mutex_unlock(&lock);
  return is_known ? OK : fail(INVALID_VALUE);
}

API int cudaMallocAsync(void **pointer, size_t n, void *stream) { (void)stream; return cudaMalloc(pointer, n); }
API int cudaFreeAsync(void *pointer, void *stream) { (void)stream; return cudaFree(pointer); }
API int cudaMallocManaged(void **pointer, size_t n, unsigned flags) { (void)flags; return cudaMalloc(pointer, n); }
API int cudaMemPoolGetAttribute(void *pool, int what, void *value) { (void)pool; (void)what; *(u64 *)value = machine.device[current_device].used; return OK; }
API int cudaMemPoolSetAttribute(void *pool, int what, void *value) { (void)pool; (void)what; (void)value; return OK; }

API int cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
  if (!ensure_machine()) return fail(NO_DEVICE);
  machine.device[current_device].has_context = 1;
  u64 used = machine.device[current_device].used + machine.overhead + machine.other;
  *free_bytes = used > machine.total ? 0 : machine.total - used;
  *total_bytes = machine.total;
  return OK;
}

// ---------------------------------------------------------------- runtime: pinned host memory
static void know_host(void *pointer, size_t n) {
  pthread_mutex_lock(&lock);
  if (!overlaps(&host_ranges, (u64)pointer, n)) insert(&host_ranges, (range_t){(u64)pointer, n, 0, 0});
  pthread_mutex_unlock(&lock);
}

static void forget_host(void *pointer) {
  range_t found;
  pthread_mutex_lock(&lock);
  take_out(&host_ranges, (u64)pointer, &found);
  pthread_mutex_unlock(&lock);
}

API int cudaHostAlloc(void **pointer, size_t n, unsigned flags) {
  (void)flags;
  if (posix_memalign(pointer, 4096, n ? n : 1)) return fail(OUT_OF_MEMORY);
  know_host(*pointer, n ? n : 1);
  return OK;
}
API int cudaMallocHost(void **pointer, size_t n) { return cudaHostAlloc(pointer, n, 0); }
API int cudaFreeHost(void *pointer) { forget_host(pointer); free(pointer); return OK; }
API int cudaHostRegister(void *pointer, size_t n, unsigned flags) { (void)flags; know_host(pointer, n); return OK; }
API int cudaHostUnregister(void *pointer) { forget_host(pointer); return OK; }
API int cudaHostGetDevicePointer(void **device, void *host, unsigned flags) { (void)flags; *device = host; return OK; }

API int cudaPointerGetAttributes(void *attributes, const void *pointer) {
  // struct cudaPointerAttributes: int type; int device; void *device pointer; void *host pointer; 13.0 adds 64 reserved bytes.
  struct { int type, device; const void *on_device, *on_host; } *a = attributes;
  memset(a, 0, FAKE_CUDART_VERSION >= 13000 ? 88 : 24);
  pthread_mutex_lock(&lock);
  const range_t *range = covering(&device_ranges, (u64)pointer);
  const range_t *host = range ? NULL : covering(&host_ranges, (u64)pointer);
  if (range) { a->type = 2; a->device = range->device; a->on_device = pointer; }
  else if (host) { a->type = 1; a->device = current_device; a->on_device = a->on_host = pointer; }
  else { a->device = -2; a->on_host = pointer; }
  pthread_mutex_unlock(&lock);
  return OK;
}

// ---------------------------------------------------------------- runtime: copies
static void warn_of_read(void) {
  static atomic_flag was_said = ATOMIC_FLAG_INIT;
  if (!warns_of_reads || atomic_flag_test_and_set(&was_said)) return;
  static const char text[] =
      "memscope: emulated device: the program reads values back, but nothing was computed: it gets zeros, and code that branches on them takes that branch (said once)\n";
  if (write(2, text, sizeof text - 1) < 0) return;
}

void copy_bytes(void *to, const void *from, size_t n) {
  now++;
  if (!n || is_device_address(to)) return;
  if (!is_device_address(from)) {
    memmove(to, from, n);
    return;
  }
  n_reads++;
  warn_of_read();
  memset(to, fill_byte, n);
}

API int cudaMemcpy(void *to, const void *from, size_t n, int kind) { (void)kind; copy_bytes(to, from, n); return OK; }
API int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream) { (void)kind; (void)stream; copy_bytes(to, from, n); return OK; }
API int cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t n, void *stream) { (void)to_device; (void)from_device; (void)stream; copy_bytes(to, from, n); return OK; }
API int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, int kind, void *stream) {
  (void)kind; (void)stream;
  for (size_t row = 0; row < height; row++) copy_bytes((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
  return OK;
}
API int cudaMemcpyToSymbol(const void *symbol, const void *from, size_t n, size_t offset, int kind) { (void)symbol; (void)from; (void)n; (void)offset; (void)kind; return OK; }
API int cudaMemset(void *to, int value, size_t n) { if (!is_device_address(to)) memset(to, value, n); return OK; }
API int cudaMemsetAsync(void *to, int value, size_t n, void *stream) { (void)stream; now++; return cudaMemset(to, value, n); }
API int cudaGetSymbolAddress(void **pointer, const void *symbol) { *pointer = (void *)symbol; return OK; }

// ---------------------------------------------------------------- driver: physical memory and its mapping
typedef struct { u64 size; int device, n_refs; } physical_t;
static physical_t *physical;
static size_t n_physical, physical_room;
static u64 first_unused;  // 1 + index; an unused entry's size is the next

static int is_handle(u64 handle) { return handle && handle <= n_physical && physical[handle - 1].n_refs > 0; }

static void drop_physical(u64 handle) {
  physical_t *p = &physical[handle - 1];
  if (--p->n_refs) return;
  machine.device[p->device].used -= p->size;
  p->size = first_unused;
  first_unused = handle;
}

API int cuMemGetAllocationGranularity(size_t *granularity, const void *properties, int option) { (void)properties; (void)option; *granularity = GRANULARITY; return OK; }

API int cuMemAddressReserve(u64 *pointer, size_t n, size_t alignment, u64 hint, u64 flags) {
  (void)alignment; (void)hint; (void)flags;
  pthread_mutex_lock(&lock);
  *pointer = place(round_up(n), current_device);
  pthread_mutex_unlock(&lock);
  return *pointer ? OK : OUT_OF_MEMORY;
}

API int cuMemAddressFree(u64 pointer, size_t n) {
  (void)n;
  range_t found;
  pthread_mutex_lock(&lock);
  int is_known = take_out(&device_ranges, pointer, &found);
  pthread_mutex_unlock(&lock);
  return is_known ? OK : INVALID_VALUE;
}

API int cuMemCreate(u64 *handle, size_t n, const void *properties, u64 flags) {
  (void)flags;
  if (n % GRANULARITY) return INVALID_VALUE;
  pthread_mutex_lock(&lock);
  int device = properties ? ((const int *)properties)[3] : current_device;  // CUmemAllocationProp: type, handle types, location {type, id}
  if (device < 0 || device >= machine.n_devices) device = current_device;
  int is_taken = take_bytes(n, device);
  if (is_taken) {
    u64 i = first_unused ? first_unused - 1 : n_physical;
    if (first_unused) {
      first_unused = physical[i].size;
    } else {
      if (n_physical == physical_room) {
        physical_room = physical_room ? 2 * physical_room : 256;
        physical = realloc(physical, physical_room * sizeof *physical);
        if (!physical) abort();
      }
      n_physical++;
    }
    physical[i] = (physical_t){n, device, 1};
    n_create++;
    *handle = i + 1;
  }
  pthread_mutex_unlock(&lock);
  return is_taken ? OK : OUT_OF_MEMORY;
}

API int cuMemRelease(u64 handle) {
  pthread_mutex_lock(&lock);
  int is_known = is_handle(handle);
  if (is_known) drop_physical(handle);
  pthread_mutex_unlock(&lock);
  return is_known ? OK : INVALID_VALUE;
}

API int cuMemMap(u64 pointer, size_t n, size_t offset, u64 handle, u64 flags) {
  (void)offset; (void)flags;
  pthread_mutex_lock(&lock);
  int is_good = is_handle(handle) && !overlaps(&mapped, pointer, n);
  if (is_good) {
    insert(&mapped, (range_t){pointer, n, handle, physical[handle - 1].device});
    physical[handle - 1].n_refs++;
    n_map++;
  }
  pthread_mutex_unlock(&lock);
  return is_good ? OK : INVALID_VALUE;
}

API int cuMemUnmap(u64 pointer, size_t n) {
  pthread_mutex_lock(&lock);
  size_t first = lower_bound(&mapped, pointer), end = first;
  while (end < mapped.n && mapped.at[end].start + mapped.at[end].length <= pointer + n) drop_physical(mapped.at[end++].handle);
  memmove(mapped.at + first, mapped.at + end, (mapped.n - end) * sizeof *mapped.at);
  mapped.n -= end - first;
  n_unmap++;
  pthread_mutex_unlock(&lock);
  return end > first ? OK : INVALID_VALUE;
}

API int cuMemSetAccess(u64 pointer, size_t n, const void *access, size_t count) { (void)pointer; (void)n; (void)access; (void)count; return OK; }
API int cuMemsetD32Async(u64 pointer, unsigned value, size_t n, void *stream) { (void)pointer; (void)value; (void)n; (void)stream; return OK; }
API int cuMemExportToShareableHandle(void *out, u64 handle, int type, u64 flags) { (void)handle; (void)type; (void)flags; *(int *)out = -1; return NOT_SUPPORTED; }
API int cuMemImportFromShareableHandle(u64 *handle, void *from, int type) { (void)handle; (void)from; (void)type; return NOT_SUPPORTED; }

// ---------------------------------------------------------------- steering and counting, by ctypes
API void fakecuda_set_total(u64 n_bytes) { machine.total = n_bytes; }
API void fakecuda_set_other(u64 n_bytes) { machine.other = n_bytes; }
API void fakecuda_set_fill(int byte) { fill_byte = byte; }
// cudaMalloc, cudaFree, failures, cuMemCreate, cuMemMap, cuMemUnmap, launches, copies to the host.
API void fakecuda_counters(u64 *out) {
  u64 counts[8] = {n_malloc, n_free, n_oom, n_create, n_map, n_unmap, n_launches, n_reads};
  memcpy(out, counts, sizeof counts);
}
// One device by its number before CUDA_VISIBLE_DEVICES: total, this process's bytes with its context's, others' bytes.
API int fakecuda_device_memory(int number, u64 out[3]) {
  if (!ensure_machine() && number >= machine.n_physical) return 0;
  if (number < 0 || number >= machine.n_physical) return 0;
  out[0] = machine.total;
  out[1] = 0;
  out[2] = machine.other;
  for (int i = 0; i < machine.n_devices; i++)
    if (machine.device[i].physical == number && machine.device[i].has_context) out[1] = machine.device[i].used + machine.overhead;
  return 1;
}
