// The gradients of layer normalisation, with the bits of PyTorch's kernel on one thread. Compiled for AVX2 without
// contraction: the multiply-adds that PyTorch's compiler fused are written out, and no others.

#include "kernels.h"

static Vec sum(Vec a, Vec b) { return a + b; }

// Gradients with respect to x [rows, width], the weight and the bias [width].
void layer_norm_backward(const float* grad, const float* x, const float* weight, const Moments* moments, int64_t rows,
                         int64_t width, float* grad_x, float* grad_weight, float* grad_bias) {
    std::fill_n(grad_weight, width, 0.0f);
    std::fill_n(grad_bias, width, 0.0f);
    for (int64_t row = 0; row < rows; ++row, grad += width, x += width, grad_x += width) {
        const auto [mean, a] = moments[row];
        const Vec scale(a), offset(-a * mean);
        for (int64_t j = 0; j < width; j += kVec) {
            const Vec g = Vec::loadu(grad + j), normal = vec::fmadd(scale, Vec::loadu(x + j), offset);
            vec::fmadd(g, normal, Vec::loadu(grad_weight + j)).store(grad_weight + j);
            (Vec::loadu(grad_bias + j) + g).store(grad_bias + j);
        }
        const auto three = [](Vec g, Vec v, Vec w) { return g * v * w; };
        const float ds = vec::map3_reduce_all<float>(three, sum, grad, x, weight, width);
        const float db = vec::map2_reduce_all<float>([](Vec g, Vec w) { return g * w; }, sum, grad, weight, width);
        const float share = 1.0f / float(width);
        const float b = std::fma(db, mean, -ds) * a * a * a * share;
        const float c = std::fma(-b, mean, -(db * a * share));
        vec::map3<float>([=](Vec g, Vec v, Vec w) { return vec::fmadd(Vec(b), v, scale * g * w) + Vec(c); }, grad_x,
                         grad, x, weight, width);
    }
}
