/* A program linked to libcuda, as torch's libcaffe2_nvrtc and Triton's
 * launchers are: its references bind to our exports. */
#include "check.h"

extern int cuInit(unsigned);
extern int cuMemGetInfo_v2(size_t *, size_t *);
extern int cuDriverGetVersion(int *);

int main(void)
{
    size_t free_bytes = 0, total = 0;
    int version = 0;
    int on = !getenv("AUTOOFFLOAD") || strcmp(getenv("AUTOOFFLOAD"), "0");
    CHECK(is_hook((void *)cuInit) && is_hook((void *)cuMemGetInfo_v2), "not hooked");
    CHECK(is_driver((void *)cuDriverGetVersion), "hooked");
    CHECK(!cuInit(0) && !cuMemGetInfo_v2(&free_bytes, &total) && !cuDriverGetVersion(&version), "call");
    calls_fn calls = (calls_fn)dlsym(driver_library(), "fake_calls");
    CHECK(calls("cuInit") == 1, "the driver saw %lu", calls("cuInit"));
    CHECK(calls("cuMemGetInfo_v2") >= 1, "the driver saw nothing");
    CHECK(on || calls("cuMemGetInfo_v2") == 1, "switched off, and yet calls of our own");
    return 0;
}
