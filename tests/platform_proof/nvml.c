/* A libnvidia-ml.so.1 that answers as ARMORY_NVML says: init-fails, no-device, no-memory, or well. */
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9 };
typedef struct { unsigned long long total, free, used; } memory_t;

static int is(char const *state) {
  char const *now = getenv("ARMORY_NVML");
  return now && strcmp(now, state) == 0;
}
static int text(char *into, unsigned length, char const *value) {
  strncpy(into, value, length);
  return OK;
}
int nvmlInitWithFlags(unsigned flags) { (void)flags; return is("init-fails") ? DRIVER_NOT_LOADED : OK; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }
char const *nvmlErrorString(int code) {
  return code == NOT_SUPPORTED ? "Not Supported" : code == DRIVER_NOT_LOADED ? "Driver Not Loaded" : "Error";
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = is("no-device") ? 0 : 1; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  *handle = (void *)1;
  return index == 0 && !is("no-device") ? OK : INVALID;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
  (void)handle;
  if (is("no-memory")) return NOT_SUPPORTED;
  memory->total = 64ULL << 30;
  memory->free = memory->used = 32ULL << 30;
  return OK;
}
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
  (void)handle;
  *major = 11;
  *minor = 0;
  return OK;
}
int nvmlDeviceGetName(void *handle, char *name, unsigned length) { (void)handle; return text(name, length, "NVIDIA Thor"); }
int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) { (void)handle; return text(uuid, length, "GPU-0"); }
int nvmlSystemGetDriverVersion(char *version, unsigned length) { return text(version, length, "580.00"); }
