#pragma once

#ifdef __CUDACC__
#define REALRL_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
// Inlined into each clone of a function that is compiled for several instruction sets.
#define REALRL_HOST_DEVICE inline __attribute__((always_inline))
#else
#define REALRL_HOST_DEVICE inline
#endif
