/* A library in the middle of the search order, as OpenMP tools are. */
#define _GNU_SOURCE
#include <dlfcn.h>

int tick(void)
{
    int (*next)(void) = dlsym(RTLD_NEXT, "tick");
    return next && next != tick ? 1 + next() : -1;
}

void *next_malloc(void)
{
    return dlsym(RTLD_NEXT, "malloc");
}
