/* A capture begun by the first version of the entry point, found by `name` or
 * by `version`, and two that overlap: what their graphs name stays where it is. */
#include "driver.h"

enum { BYTES = 4 * MIB, CAPTURED = 3, BUFFERS = 16 };

int main(int count, char **arguments)
{
    CHECK(count == 2, "one argument");
    start();
    handle stream = new_stream(), second = new_stream(), graphs[2], execs[2];
    ptr buffer[BUFFERS];
    for (int i = 0; i < 2 * CAPTURED; i++)
        fill(buffer[i] = new_memory(BYTES), i, BYTES, stream);
    OK(cuCtxSynchronize);
    int (*begin)(handle) = NULL;
    if (!strcmp(arguments[1], "version")) {
        int status;
        OK(cuGetProcAddress_v2, "cuStreamBeginCapture", &begin, 10000, 0ull, &status);
    } else {
        begin = (int (*)(handle))dlsym(driver, "cuStreamBeginCapture");
    }
    CHECK(begin && is_hook((void *)begin) == (dlsym(RTLD_DEFAULT, "autooffload_api_version") != NULL),
          "it is in %s", library_of((void *)begin));
    CHECK(begin(stream) == 0, "the capture begins");
    fill(buffer[0], 0x70, BYTES, stream);
    CHECK(begin(second) == 0, "another begins");
    for (int i = 0; i < CAPTURED; i++) {
        fill(buffer[i], 0x70 + i, BYTES, stream);
        fill(buffer[CAPTURED + i], 0x80 + i, BYTES, second);
    }
    OK(cuStreamEndCapture, stream, &graphs[0]);
    OK(cuStreamEndCapture, second, &graphs[1]);
    for (int i = 0; i < 2; i++)
        OK(cuGraphInstantiateWithFlags, &execs[i], graphs[i], 0ull);
    for (int i = 2 * CAPTURED; i < BUFFERS; i++)
        fill(buffer[i] = new_memory(BYTES), i, BYTES, stream);
    for (int i = 0; i < 2; i++)
        OK(cuGraphLaunch, execs[i], stream);
    OK(cuStreamSynchronize, stream);
    for (int i = 0; i < CAPTURED; i++) {
        expect("the first graph", buffer[i], 0x70 + i, BYTES);
        expect("the second graph", buffer[CAPTURED + i], 0x80 + i, BYTES);
    }
    puts("right");
    return 0;
}
