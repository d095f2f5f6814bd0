/* A program linked to the library and to libcuda, without any preloading. Says on
 * standard output whether the kernel takes it for one with foreign rights. */
#include "check.h"
#include <sys/auxv.h>

extern int cuInit(unsigned);

int main(void)
{
    CHECK(is_hook((void *)cuInit), "not hooked");
    CHECK(!cuInit(0), "call");
    puts(getauxval(AT_SECURE) ? "foreign" : "own");
    return 0;
}
