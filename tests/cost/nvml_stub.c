/* A stand-in for libnvidia-ml.so.1, without a GPU: three devices, the last divided into two MIG instances.
 *
 * What the driver would know is read at every call from the file $NVML_STUB_STATE: lines "key value" with
 *   used reserved total     bytes of GPU 1 and of both MIG instances (other GPUs have 7 bytes in use)
 *   energy power busy       mJ, mW, per cent
 *   pid own                 a process on the device and its bytes (own -1: not shown; no pid: no process)
 *   instances               how many MIG instances GPU 2 has
 * $NVML_STUB_FAIL is "call code" or "call code n": that call (or "*", any) fails with this nvmlReturn_t, from its n-th
 * time on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned index; unsigned instance; } device; /* instance 0 is the whole GPU */
typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process;
typedef struct { unsigned gpu, memory; } utilisation;

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15, UNKNOWN = 999 };

static device devices[] = {{0, 0}, {1, 0}, {2, 0}, {2, 1}, {2, 2}};
static const char *uuids[] = {"GPU-0000", "GPU-1111", "GPU-2222", "MIG-2222-1", "MIG-2222-2"};
static int initialised = 0;

int stub_references(void) { return initialised; }

static long long state(const char *key, long long otherwise) {
    char name[64];
    long long value;
    const char *path = getenv("NVML_STUB_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return otherwise;
    while (fscanf(file, "%63s %lld", name, &value) == 2)
        if (!strcmp(name, key)) {
            fclose(file);
            return value;
        }
    fclose(file);
    return otherwise;
}

static int failure(const char *call) {
    static char counted[256];
    static int times;
    char name[128];
    int code, from = 1;
    const char *wanted = getenv("NVML_STUB_FAIL");
    if (strcmp(counted, wanted ? wanted : "")) { /* another failure: count from the beginning */
        snprintf(counted, sizeof counted, "%s", wanted ? wanted : "");
        times = 0;
    }
    if (!wanted || sscanf(wanted, "%127s %d %d", name, &code, &from) < 2) return SUCCESS;
    if (strcmp(name, "*") && strcmp(name, call)) return SUCCESS;
    return ++times >= from ? code : SUCCESS;
}

#define CHECKED(call)                                    \
    do {                                                 \
        int code_ = failure(call);                       \
        if (code_) return code_;                         \
        if (!initialised) return UNINITIALIZED;          \
    } while (0)

int nvmlInitWithFlags(unsigned flags) {
    int code = failure("nvmlInit");
    (void)flags;
    if (!code) initialised++;
    return code;
}

int nvmlShutdown(void) {
    CHECKED("nvmlShutdown");
    initialised--;
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    switch (code) {
        case NOT_SUPPORTED: return "Not Supported";
        case NO_PERMISSION: return "Insufficient Permissions";
        case NOT_FOUND: return "Not Found";
        case FUNCTION_NOT_FOUND: return "Function Not Found";
        case GPU_IS_LOST: return "GPU is lost";
        default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    CHECKED("nvmlSystemGetDriverVersion");
    snprintf(text, size, "999.1");
    return SUCCESS;
}

int nvmlSystemGetNVMLVersion(char *text, unsigned size) {
    CHECKED("nvmlSystemGetNVMLVersion");
    snprintf(text, size, "12.999.1");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    CHECKED("nvmlDeviceGetCount");
    *count = 3;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **found) {
    CHECKED("nvmlDeviceGetHandleByIndex");
    if (index > 2) return INVALID_ARGUMENT;
    *found = &devices[index];
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device **found) {
    CHECKED("nvmlDeviceGetHandleByUUID");
    for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++)
        if (!strcmp(uuid, uuids[i])) {
            *found = &devices[i];
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetName(device *of, char *text, unsigned size) {
    CHECKED("nvmlDeviceGetName");
    snprintf(text, size, "Stub %u", of->index);
    return SUCCESS;
}

int nvmlDeviceGetUUID(device *of, char *text, unsigned size) {
    CHECKED("nvmlDeviceGetUUID");
    snprintf(text, size, "%s", uuids[of->index + of->instance]);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(device *of, unsigned *current, unsigned *pending) {
    CHECKED("nvmlDeviceGetMigMode");
    if (of->index == 0) return NOT_SUPPORTED;
    *current = *pending = of->index == 2;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(device *of, unsigned *count) {
    CHECKED("nvmlDeviceGetMaxMigDeviceCount");
    *count = of->index == 2 ? 7 : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device *of, unsigned index, device **found) {
    CHECKED("nvmlDeviceGetMigDeviceHandleByIndex");
    if (of->index != 2 || index >= (unsigned)state("instances", 2)) return NOT_FOUND;
    *found = &devices[3 + index];
    return SUCCESS;
}

static unsigned long long used(device *of) {
    return of->index == 1 || of->instance ? (unsigned long long)state("used", 0) : 7;
}

int nvmlDeviceGetMemoryInfo(device *of, memory_v1 *info) { /* the old call counts the reserve as used */
    CHECKED("nvmlDeviceGetMemoryInfo");
    info->total = state("total", 80000000000);
    info->used = used(of) + state("reserved", 0);
    info->free = info->total - info->used;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(device *of, memory_v2 *info) {
    CHECKED("nvmlDeviceGetMemoryInfo_v2");
    if (info->version != (2u << 24 | sizeof *info)) return INVALID_ARGUMENT;
    info->total = state("total", 80000000000);
    info->reserved = state("reserved", 0);
    info->used = used(of);
    info->free = info->total - info->used - info->reserved;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device *of, unsigned *count, process *found) {
    long long pid = of->index == 1 || of->instance ? state("pid", 0) : 0, own = state("own", -1);
    CHECKED("nvmlDeviceGetComputeRunningProcesses");
    if (!pid) {
        *count = 0;
        return SUCCESS;
    }
    if (*count < 2) {
        *count = 2;
        return INSUFFICIENT_SIZE;
    }
    *count = 2;
    memset(found, 0, 2 * sizeof *found);
    found[0].pid = 1; /* a stranger */
    found[0].used = 123;
    found[1].pid = (unsigned)pid;
    found[1].used = (unsigned long long)own;
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(device *of, unsigned long long *millijoules) {
    CHECKED("nvmlDeviceGetTotalEnergyConsumption");
    if (of->instance) return NOT_SUPPORTED;
    *millijoules = of->index == 1 ? (unsigned long long)state("energy", 0) : 5;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(device *of, unsigned *milliwatts) {
    CHECKED("nvmlDeviceGetPowerUsage");
    (void)of;
    *milliwatts = (unsigned)state("power", 0);
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(device *of, utilisation *rates) {
    CHECKED("nvmlDeviceGetUtilizationRates");
    if (of->instance) return NOT_SUPPORTED;
    rates->gpu = (unsigned)state("busy", 0);
    rates->memory = 1;
    return SUCCESS;
}
