// What device_memory.py calls of CUDA's driver, with host memory for device memory. What the driver refuses,
// as memory that is freed twice or opened in the process that allocated it, is refused here too.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>

namespace {

enum Code { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, MAP_FAILED_CODE = 205 };

struct Memory {
    int descriptor;
    size_t num_bytes;
};

struct Handle {
    int process;
    int descriptor;
    size_t num_bytes;
    char unused[48];
};
static_assert(sizeof(Handle) == 64, "the size of CUipcMemHandle");

constexpr size_t LARGEST_BYTES = size_t(1) << 40;
std::map<uint64_t, Memory> allocated;
std::map<uint64_t, size_t> opened;
int num_contexts = 0;
bool refuses = false;

uint64_t map(int descriptor, size_t num_bytes) {
    void* start = mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    return start == MAP_FAILED ? 0 : reinterpret_cast<uint64_t>(start);
}

}  // namespace

extern "C" {

void refuse_to_open() { refuses = true; }

int num_allocated() { return static_cast<int>(allocated.size()); }

int num_opened() { return static_cast<int>(opened.size()); }

int cuCtxGetCurrent(void** context) {
    *context = &allocated;
    return SUCCESS;
}

int cuCtxPushCurrent_v2(void* context) {
    if (context != &allocated) return INVALID_CONTEXT;
    ++num_contexts;
    return SUCCESS;
}

int cuCtxPopCurrent_v2(void** context) {
    if (num_contexts == 0) return INVALID_CONTEXT;
    --num_contexts;
    *context = &allocated;
    return SUCCESS;
}

int cuCtxSynchronize() { return SUCCESS; }

int cuGetErrorString(int code, const char** text) {
    *text = code == OUT_OF_MEMORY      ? "out of memory"
            : code == INVALID_CONTEXT  ? "invalid device context"
            : code == MAP_FAILED_CODE  ? "mapping of buffer object failed"
                                       : "invalid argument";
    return SUCCESS;
}

int cuMemAlloc_v2(uint64_t* pointer, size_t num_bytes) {
    if (num_bytes == 0) return INVALID_VALUE;
    if (num_bytes > LARGEST_BYTES) return OUT_OF_MEMORY;
    int descriptor = memfd_create("rehearsed-device", MFD_CLOEXEC);
    if (descriptor < 0 || ftruncate(descriptor, num_bytes) != 0) return OUT_OF_MEMORY;
    *pointer = map(descriptor, num_bytes);
    if (*pointer == 0) return OUT_OF_MEMORY;
    allocated[*pointer] = {descriptor, num_bytes};
    return SUCCESS;
}

int cuMemFree_v2(uint64_t pointer) {
    auto found = allocated.find(pointer);
    if (found == allocated.end()) return INVALID_VALUE;
    munmap(reinterpret_cast<void*>(pointer), found->second.num_bytes);
    close(found->second.descriptor);
    allocated.erase(found);
    return SUCCESS;
}

int cuIpcGetMemHandle(Handle* handle, uint64_t pointer) {
    auto found = allocated.find(pointer);
    if (found == allocated.end()) return INVALID_VALUE;
    *handle = {getpid(), found->second.descriptor, found->second.num_bytes, {}};
    return SUCCESS;
}

int cuIpcOpenMemHandle_v2(uint64_t* pointer, Handle handle, unsigned flags) {
    if (flags != 1 || handle.num_bytes == 0) return INVALID_VALUE;
    if (refuses) return MAP_FAILED_CODE;
    if (handle.process == getpid()) return INVALID_CONTEXT;
    char path[64];
    std::snprintf(path, sizeof path, "/proc/%d/fd/%d", handle.process, handle.descriptor);
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0) return INVALID_VALUE;
    *pointer = map(descriptor, handle.num_bytes);
    close(descriptor);
    if (*pointer == 0) return MAP_FAILED_CODE;
    opened[*pointer] = handle.num_bytes;
    return SUCCESS;
}

int cuIpcCloseMemHandle(uint64_t pointer) {
    auto found = opened.find(pointer);
    if (found == opened.end()) return INVALID_VALUE;
    munmap(reinterpret_cast<void*>(pointer), found->second);
    opened.erase(found);
    return SUCCESS;
}

}  // extern "C"
