/* Stands for the library in the launcher's tests: says that it was loaded,
 * and drops the marker that the library drops when cuInit succeeds.
 *
 * FAKE_LOADED=FILE: append a line with the process id.
 * FAKE_CUDA=1: behave as if this process had initialised CUDA. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void loaded(void)
{
    const char *file = getenv("FAKE_LOADED");
    if (file) {
        FILE *out = fopen(file, "a");
        if (out) {
            fprintf(out, "%d\n", (int)getpid());
            fclose(out);
        }
    }
    const char *dir = getenv("AUTOOFFLOAD_LAUNCH_DIR");
    if (dir && getenv("FAKE_CUDA")) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%d", dir, (int)getpid());
        FILE *marker = fopen(path, "w");
        if (marker)
            fclose(marker);
    }
}
