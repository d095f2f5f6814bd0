/* An allocator for torch.cuda.memory.CUDAPluggableAllocator: the driver's, with nothing kept. */

#include <stddef.h>
#include <sys/types.h>

int cuMemAlloc_v2(unsigned long long *address, size_t bytes);
int cuMemFree_v2(unsigned long long address);

void *plug_allocate(ssize_t bytes, int device, void *stream) {
    unsigned long long address = 0;
    (void)device, (void)stream;
    return cuMemAlloc_v2(&address, (size_t)bytes) == 0 ? (void *)address : NULL;
}

void plug_free(void *address, ssize_t bytes, int device, void *stream) {
    (void)bytes, (void)device, (void)stream;
    cuMemFree_v2((unsigned long long)address);
}
