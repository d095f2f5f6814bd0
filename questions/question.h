// What every program in this folder shares: the parts of a question, their
// limits, samples, and the one JSON line per answer that scripts/gpu-check reads.
//
// Not here: the driver (driver.h), what is asked (one .cpp a topic).
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

inline uint64_t now_ns()
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return uint64_t(t.tv_sec) * 1000000000u + t.tv_nsec;
}

// A number of measurements of one thing, in the unit they are reported in.
class Samples {
public:
    void add(double value) { values.push_back(value); }
    size_t count() const { return values.size(); }
    double max() const { return values.empty() ? 0 : *std::max_element(values.begin(), values.end()); }

    // The smallest value that at least `share` of all values do not exceed.
    double quantile(double share) const
    {
        if (values.empty())
            return 0;
        std::vector<double> sorted = values;
        std::sort(sorted.begin(), sorted.end());
        size_t rank = size_t(share * double(sorted.size()) + 0.999999);
        return sorted[std::min(rank ? rank - 1 : 0, sorted.size() - 1)];
    }
    double p50() const { return quantile(0.50); }
    double p99() const { return quantile(0.99); }

private:
    std::vector<double> values;
};

// Adds the microseconds that `call` takes on this thread.
template <class Call> void time_us(Samples &samples, Call &&call)
{
    uint64_t began = now_ns();
    call();
    samples.add(double(now_ns() - began) / 1e3);
}

inline std::string text_of(const char *format, double value)
{
    char text[64];
    snprintf(text, sizeof text, format, value);
    return text;
}

// What is being answered, and until when. One per process.
struct Run {
    const char *question = "";
    std::string label; // appended to every item: the same question under other conditions
    uint64_t deadline_ns = 0;
    std::string shim; // the library's own kernels, as text
    bool on_standin = false;
    bool rehearsal = false; // kernels do not compute: numbers mean nothing, parts are short
};
inline Run run_state;

inline double seconds_left()
{
    return (double(run_state.deadline_ns) - double(now_ns())) / 1e9;
}

// The point in time `seconds` from now, or the program's own end if that is earlier.
inline uint64_t at_most(double seconds)
{
    if (run_state.rehearsal)
        seconds /= 50;
    return std::min(run_state.deadline_ns, now_ns() + uint64_t(seconds * 1e9));
}

inline std::string quoted(const std::string &text)
{
    std::string out = "\"";
    for (unsigned char c : text) {
        if (c == '"' || c == '\\')
            out += '\\';
        out += c < 32 ? ' ' : char(c);
    }
    return out + "\"";
}

// One line per answer. `number`, `p50`, `p99` are JSON numbers or null.
inline void answer_line(const std::string &item, const std::string &text, const std::string &number,
                        const std::string &unit, const std::string &p50, const std::string &p99,
                        size_t n)
{
    printf("{\"question\": %s, \"item\": %s, \"answer\": %s, \"number\": %s, \"unit\": %s, "
           "\"p50\": %s, \"p99\": %s, \"n\": %zu, \"standin\": %s}\n",
           quoted(run_state.question).c_str(), quoted(run_state.label.empty() ? item : item + ", " + run_state.label).c_str(), quoted(text).c_str(),
           number.c_str(), quoted(unit).c_str(), p50.c_str(), p99.c_str(), n,
           run_state.on_standin ? "true" : "false");
    fflush(stdout);
}

// A fact without a number.
inline void answer(const std::string &item, const std::string &text)
{
    answer_line(item, text, "null", "", "null", "null", 0);
}

// A number that was found once, or counted.
inline void answer(const std::string &item, const std::string &text, double number,
                   const std::string &unit)
{
    answer_line(item, text, text_of("%.6g", number), unit, "null", "null", 1);
}

// Many measurements of one thing: the number is their median.
inline void answer(const std::string &item, const std::string &text, const Samples &samples,
                   const std::string &unit)
{
    if (!samples.count()) {
        answer(item, "not measured: no sample was taken in time");
        return;
    }
    std::string p50 = text_of("%.6g", samples.p50());
    answer_line(item, text, p50, unit, p50, text_of("%.6g", samples.p99()), samples.count());
}

inline void not_measured(const std::string &item, const std::string &reason)
{
    answer(item, "not measured: " + reason);
}

// What a part of a question needs to be answered.
enum class Needs {
    Driver, // calls only: runs on the stand-in too
    Card,   // kernels of kernels.cu
};

struct Part {
    const char *name;
    Needs needs;
    void (*body)();
};
