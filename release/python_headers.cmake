# Included after project(bgert) by release/wheels.py (CMAKE_PROJECT_bgert_INCLUDE): the Python to build for is a folder
# of headers, BGERT_PYTHON_INCLUDE, of version BGERT_PYTHON_VERSION ("3.14t" is the free-threaded one). It need not run
# on this machine, which FindPython wants. nanobind asks for these names.
string(REGEX REPLACE "t$" "" Python_VERSION "${BGERT_PYTHON_VERSION}")
string(REPLACE "." "" BGERT_PYTHON_ABI "${BGERT_PYTHON_VERSION}")
set(Python_INTERPRETER_ID Python)
set(Python_INCLUDE_DIRS "${BGERT_PYTHON_INCLUDE}")
set(Python_EXECUTABLE "${BGERT_PYTHON_EXECUTABLE}")
# Those of the Python that runs the build are in the cache; a variable goes before it.
set(SKBUILD_SOABI "cpython-${BGERT_PYTHON_ABI}-${CMAKE_SYSTEM_PROCESSOR}-linux-gnu")
set(SKBUILD_SOSABI "abi3")
foreach(target Interpreter Module SABIModule)
  add_library(Python::${target} INTERFACE IMPORTED)
endforeach()
target_include_directories(Python::Module INTERFACE ${BGERT_PYTHON_INCLUDE})
if(BGERT_PYTHON_VERSION MATCHES "t$") # what a free-threaded pyconfig.h says, for the two that include it
  add_compile_definitions($<$<IN_LIST:$<TARGET_PROPERTY:NAME>,_native$<SEMICOLON>nanobind-static-ft>:Py_GIL_DISABLED=1>)
endif()
# nanobind takes stdio from Python.h, which has none under Py_LIMITED_API, or from libstdc++; Zig's is libc++.
add_compile_options(-include cstdio)
