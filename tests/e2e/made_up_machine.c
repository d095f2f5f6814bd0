/* A machine with as much memory as a file says: who opens /proc/meminfo gets the file named by
 * MADE_UP_MEMINFO. Preloaded by test_fair.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int open64(const char *path, int flags, ...)
{
    static int (*next)(const char *, int, ...);
    if (!next)
        next = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    va_list more;
    va_start(more, flags);
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0;
    va_end(more);
    const char *file = getenv("MADE_UP_MEMINFO");
    return next(file && strcmp(path, "/proc/meminfo") == 0 ? file : path, flags, mode);
}
