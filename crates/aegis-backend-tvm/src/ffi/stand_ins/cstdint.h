// What TVM's CUDA source uses of <cuda/std/cstdint>, for NVRTC.
#pragma once
namespace cuda {
namespace std {
using int8_t = signed char;
using int16_t = short;
using int32_t = int;
using int64_t = long long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
}  // namespace std
}  // namespace cuda
