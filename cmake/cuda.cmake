# libditmoe_cuda.so, the backend for NVIDIA GPUs: a module that programs load when they are asked
# for it. It holds the CUDA run-time library; the driver is found at run time.
set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
file(GLOB kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/backend/cuda/*.cu)
file(GLOB glue CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/backend/cuda/*.c)
# The warnings of add_compile_options are those of C.
add_library(ditmoe_cuda_kernels OBJECT ${kernels})
set_target_properties(ditmoe_cuda_kernels PROPERTIES COMPILE_OPTIONS
  "-O3;-Xptxas;-warn-spills;-Werror;all-warnings;--expt-relaxed-constexpr" CUDA_STANDARD 17)
add_library(ditmoe_cuda MODULE ${glue} $<TARGET_OBJECTS:ditmoe_cuda_kernels>)
target_link_libraries(ditmoe_cuda PRIVATE ditmoe_internal CUDA::cudart_static)
set_target_properties(ditmoe_cuda PROPERTIES LINKER_LANGUAGE C)
target_link_options(ditmoe_cuda PRIVATE -Wl,--no-undefined)
install(TARGETS ditmoe_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
