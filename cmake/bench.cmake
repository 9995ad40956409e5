# ditmoe-bench. Its rows carry the commit as it was when the build was configured, which happens
# again after a commit. oneDNN 2 is used if it is there; later versions have another interface.
sources_of(bench bench)
list(FILTER bench EXCLUDE REGEX "/bench/(ops/[^/]*|cuda/[^/]*|peak_onednn)\\.c$")
add_executable(ditmoe-bench ${bench})

# Runs of single operations, which the tests use, too.
sources_of(operations bench/ops)
add_library(operations STATIC ${operations})
target_link_libraries(operations PUBLIC cli ditmoe_internal)
target_link_libraries(ditmoe-bench PRIVATE operations)

find_library(DNNL_LIBRARY dnnl)
find_path(DNNL_INCLUDE oneapi/dnnl/dnnl_version.h)
if(DNNL_LIBRARY AND DNNL_INCLUDE)
  file(STRINGS ${DNNL_INCLUDE}/oneapi/dnnl/dnnl_version.h dnnl_version REGEX "DNNL_VERSION_MAJOR +2")
  if(dnnl_version)
    target_sources(ditmoe-bench PRIVATE bench/peak_onednn.c)
    target_compile_definitions(ditmoe-bench PRIVATE HAVE_ONEDNN)
    target_include_directories(ditmoe-bench SYSTEM PRIVATE ${DNNL_INCLUDE})
    target_link_libraries(ditmoe-bench PRIVATE ${DNNL_LIBRARY})
  endif()
endif()

set(commit unknown)
find_program(GIT git)
if(GIT)
  execute_process(COMMAND ${GIT} describe --always --dirty WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
    OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(described)
    set(commit ${described})
  endif()
  if(EXISTS ${PROJECT_SOURCE_DIR}/.git/logs/HEAD)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
      ${PROJECT_SOURCE_DIR}/.git/logs/HEAD)
  endif()
endif()
set_source_files_properties(bench/rows.c PROPERTIES COMPILE_DEFINITIONS
  "DITMOE_COMMIT=\"${commit}\"")

install(DIRECTORY bench/shapes DESTINATION ${CMAKE_INSTALL_DATADIR}/ditmoe)
