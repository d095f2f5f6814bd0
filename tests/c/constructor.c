/* A library that uses the driver while it is being loaded, as cuBLASLt and
 * cuDNN do. CONSTRUCTOR_INIT=1: it also initialises CUDA there. */
#include "check.h"

__attribute__((constructor)) static void loaded(void)
{
    void *driver = driver_library();
    CHECK(is_hook(dlsym(driver, "cuLaunchKernel")), "not hooked");
    get_proc_address_fn get = (get_proc_address_fn)dlsym(driver, "cuGetProcAddress_v2");
    void *function = NULL;
    CHECK(!get("cuMemcpyDtoH", &function, 13000, 0, NULL) && is_hook(function), "not hooked");
    if (getenv("CONSTRUCTOR_INIT"))
        CHECK(!((init_fn)dlsym(driver, "cuInit"))(0), "cuInit");
}
