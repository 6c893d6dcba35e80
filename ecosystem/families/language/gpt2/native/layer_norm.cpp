// Layer normalisation with the summation order of torch.layer_norm, which is that of its AVX2 kernel on every x86-64.
// Compiled for AVX2 with fused multiply-adds, as PyTorch compiles that kernel.

#include <ATen/native/cpu/moments_utils.h>

#include "kernels.h"

Moments layer_norm(const float* x, const float* weight, const float* bias, int64_t width, float eps, float* y) {
    const auto [mean, variance] = at::native::RowwiseMoments<float>(x, width);
    const Moments moments{mean, 1.0f / std::sqrt(variance + eps)};
    const Vec shift(-mean), scale(moments.scale);
    vec::map3<float>(
        [&](Vec v, Vec w, Vec b) { return vec::fmadd((v + shift) * scale, w, b); }, y, x, weight, bias, width);
    return moments;
}
