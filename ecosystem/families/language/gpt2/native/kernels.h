// What decoding and training share. Vectors are as wide as PyTorch's on the same processor.

#pragma once

#include <ATen/cpu/vec/functional.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

namespace vec = at::vec;
using Vec = vec::Vectorized<float>;
constexpr int64_t kVec = Vec::size();

extern "C" void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*, const float*,
                       const int*, const float*, const int*, const float*, float*, const int*);

struct Moments {
    float mean, scale;  // scale: one over the standard deviation
};

// Both are compiled for AVX2, as in PyTorch.
Moments layer_norm(const float* x, const float* weight, const float* bias, int64_t width, float eps, float* y);
void layer_norm_backward(const float* grad, const float* x, const float* weight, const Moments* moments, int64_t rows,
                         int64_t width, float* grad_x, float* grad_weight, float* grad_bias);

template <class T>
struct Aligned {  // the BLAS may sum in another order where memory is aligned in another way than PyTorch's
    typedef T value_type;
    Aligned() = default;
    template <class U>
    Aligned(const Aligned<U>&) {}
    T* allocate(size_t size) { return static_cast<T*>(::operator new(size * sizeof(T), std::align_val_t(64))); }
    void deallocate(T* memory, size_t) { ::operator delete(memory, std::align_val_t(64)); }
    template <class U>
    bool operator==(const Aligned<U>&) const { return true; }
};
typedef std::vector<float, Aligned<float>> Floats;

// c = a [m, k] @ b [k, n] + beta * c, of matrices that may be stored transposed.
static inline void matmul(bool a_transposed, bool b_transposed, int m, int n, int k, const float* a, const float* b,
                          float beta, float* c) {
    const int lda = a_transposed ? m : k, ldb = b_transposed ? k : n;
    const float one = 1.0f;
    sgemm_(b_transposed ? "t" : "n", a_transposed ? "t" : "n", &n, &m, &k, &one, b, &ldb, a, &lda, &beta, c, &n);
}

// y = x @ weight + bias.
static inline void linear(const float* x, const float* weight, const float* bias, int64_t rows, int64_t in, int64_t out,
                          float* y) {
    for (int64_t row = 0; row < rows; ++row) std::memcpy(y + row * out, bias, out * sizeof(float));
    matmul(false, false, rows, out, in, x, weight, 1.0f, y);
}

static inline void add(float* x, const float* y, int64_t size) {
    for (int64_t i = 0; i < size; ++i) x[i] += y[i];
}

constexpr float kBeta = M_SQRT2 * M_2_SQRTPI * 0.5, kKappa = 0.044715;

// GELU with a hyperbolic tangent, which the gradient needs again.
static inline Vec gelu(Vec x, Vec& tangent) {
    tangent = (Vec(kBeta) * vec::fmadd(Vec(kKappa), x * x * x, x)).tanh();
    return Vec(0.5f) * x * (Vec(1.0f) + tangent);
}

static inline void softmax(float* x, int64_t size) {
    const Vec largest(vec::reduce_all<float>([](Vec& a, Vec& b) { return vec::maximum(a, b); }, x, size));
    vec::map<float>([&](Vec v) { return (v - largest).exp(); }, x, x, size);
    const Vec scale(1 / vec::reduce_all<float>([](Vec a, Vec b) { return a + b; }, x, size));
    vec::map<float>([&](Vec v) { return v * scale; }, x, x, size);
}
