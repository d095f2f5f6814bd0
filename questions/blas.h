// cuBLAS by its C names, opened at run time: the programs that use it say so,
// and go on without it where it is missing.
#pragma once
#include "driver.h"

class Blas {
public:
    Blas()
    {
        void *library = dlopen(name().c_str(), RTLD_NOW);
        if (!library)
            return;
        find(library, create, "cublasCreate_v2");
        find(library, destroy, "cublasDestroy_v2");
        find(library, set_stream, "cublasSetStream_v2");
        find(library, sgemm, "cublasSgemm_v2");
        find(library, gemm_ex, "cublasGemmEx");
        if (!create || !destroy || !set_stream || !sgemm || !gemm_ex || create(&handle) != 0)
            handle = nullptr;
        CU(cuCtxSetCurrent, context);
    }
    ~Blas()
    {
        if (handle)
            destroy(handle);
    }
    Blas(const Blas &) = delete;

    static std::string name() { return cublas_path.empty() ? "libcublas.so.13" : cublas_path; }
    bool usable() const { return handle != nullptr; }
    void use(CUstream stream) const { set_stream(handle, stream); }

    // product = a * b, square, fp32; cuBLAS's status.
    int multiply(int n, CUdeviceptr a, CUdeviceptr b, CUdeviceptr product) const
    {
        float one = 1, zero = 0;
        return sgemm(handle, 0, 0, n, n, n, &one, a, n, b, n, &zero, product, n);
    }
    // The same in bf16, summed in fp32.
    int multiply_bf16(int n, CUdeviceptr a, CUdeviceptr b, CUdeviceptr product) const
    {
        constexpr int R_16BF = 14, COMPUTE_32F = 68, DEFAULT_ALGORITHM = -1;
        float one = 1, zero = 0;
        return gemm_ex(handle, 0, 0, n, n, n, &one, a, R_16BF, n, b, R_16BF, n, &zero, product, R_16BF, n,
                       COMPUTE_32F, DEFAULT_ALGORITHM);
    }

private:
    template <class Function> static void find(void *library, Function &function, const char *symbol)
    {
        function = reinterpret_cast<Function>(dlsym(library, symbol));
    }
    void *handle = nullptr;
    int (*create)(void **) = nullptr;
    int (*destroy)(void *) = nullptr;
    int (*set_stream)(void *, CUstream) = nullptr;
    int (*sgemm)(void *, int, int, int, int, int, const float *, CUdeviceptr, int, CUdeviceptr, int,
                 const float *, CUdeviceptr, int) = nullptr;
    int (*gemm_ex)(void *, int, int, int, int, int, const void *, CUdeviceptr, int, int, CUdeviceptr, int, int,
                   const void *, CUdeviceptr, int, int, int, int) = nullptr;
};
