// What the parts of the emulated CUDA runtime share. Our own work: no header of NVIDIA's is used, and none is needed.
//
// The devices have memory, streams and events, and no processor: an allocation is a range of reserved address space that
// nothing may touch, a kernel launch does nothing, and a copy to the host fills it with one byte.
//
// Variables read when the first CUDA call is made (memscope/emulation/launch.py sets them):
//   FAKE_CUDA_DEVICES         number of devices                                                    (1)
//   FAKE_CUDA_NAME            device name                                                          (Emulated device)
//   FAKE_CUDA_TOTAL_BYTES     memory of each device, as its driver reports it                      (80 GiB)
//   FAKE_CUDA_OVERHEAD_BYTES  part of it that a process's context takes                            (0)
//   FAKE_CUDA_OTHER_BYTES     part of it that another process holds                                (0)
//   FAKE_CUDA_CC              compute capability, 90 for 9.0                                       (80)
//   FAKE_CUDA_SMS             multiprocessors                                                      (108)
//   FAKE_CUDA_EVENTS          ready: complete at once; lag:N: after N more device calls; queries:N: at the Nth query;
//                             manual: at a synchronization or fakecuda_complete_all()              (ready)
//   FAKE_CUDA_FILL            byte that copies to the host are filled with                         (0)
//   FAKE_CUDA_WARN_READS      1: say on stderr, once, that values read back mean nothing           (0)
//   FAKE_CUDA_ADDRESSES       firstfit, bump, random or topdown: where the driver puts memory      (firstfit)
//   FAKE_CUDA_SEED            seed of random                                                       (1)
//   FAKE_CUDA_TRACE_STUBS     1: name each function without a meaning when it is called            (0)
// CUDA_VISIBLE_DEVICES is obeyed: a list of numbers, of which the first that is no device ends it.
#ifndef FAKECUDA_H
#define FAKECUDA_H
#define _GNU_SOURCE
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define API __attribute__((visibility("default")))
#define MIB (1ull << 20)
#define GRANULARITY (2 * MIB)
#define MAX_DEVICES 16
#define MAX_STREAMS 4096
#define STREAM_BASE 0x10000000ull  // a stream handle is STREAM_BASE + 0x100 * index; every other handle is the default stream

typedef uint64_t u64;

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, NOT_READY = 600, NOT_SUPPORTED = 801 };

typedef struct {
  u64 used;         // bytes that this process got
  int has_context;  // whether this process has touched the device
  int physical;     // its number before CUDA_VISIBLE_DEVICES
} device_t;

typedef struct {
  int n_devices, n_physical, capability, n_multiprocessors;
  u64 total, overhead, other;
  char name[256];
  device_t device[MAX_DEVICES];
} machine_t;

typedef struct {
  u64 done;        // work up to this time is complete
  u64 capture_id;  // the graph capture that it takes part in
  int priority, device;
} stream_t;

extern machine_t machine;
extern pthread_mutex_t lock;
extern __thread int current_device;
extern stream_t streams[MAX_STREAMS];
extern u64 now;       // logical clock: it advances with every launch, copy, event record and synchronization
extern u64 all_done;  // every event recorded up to this time is complete
extern u64 n_launches, n_reads;

// Read the environment, once. Returns whether there is a device.
int ensure_machine(void);
// Start of the reserved range and its length; 0, 0 where it could not be reserved.
int reserve_addresses(void);
int is_device_address(const void *pointer);
int fail(int error);
int stream_index(const void *stream);
int attribute_of(int attribute);
// A copy as the host sees it.
void copy_bytes(void *to, const void *from, size_t n);
#endif
