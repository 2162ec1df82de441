# SPDX-License-Identifier: Apache-2.0
# Flags of every C file that runs on the host.  The test guest has its own.
add_library(godwit_flags INTERFACE)
target_compile_options(godwit_flags INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Wshadow -Wconversion -Wsign-conversion -Wvla -Wswitch-enum
  -Wformat=2 -Wnull-dereference -Wstrict-prototypes -Wmissing-prototypes -Wcast-qual -Wundef
  -Wwrite-strings -Wno-format-zero-length -fno-strict-aliasing -fstack-protector-strong)
target_compile_definitions(godwit_flags INTERFACE _GNU_SOURCE _FILE_OFFSET_BITS=64
  GODWIT_VERSION="${PROJECT_VERSION}")
target_link_options(godwit_flags INTERFACE -Wl,-z,relro,-z,now)

if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT GODWIT_SANITIZE)
  target_compile_options(godwit_flags INTERFACE -D_FORTIFY_SOURCE=2)
endif()
if(GODWIT_SANITIZE)
  add_compile_options(-fno-omit-frame-pointer)
  target_compile_options(godwit_flags INTERFACE -fsanitize=${GODWIT_SANITIZE})
  target_link_options(godwit_flags INTERFACE -fsanitize=${GODWIT_SANITIZE})
  if(NOT GODWIT_SANITIZE MATCHES "thread")
    target_compile_options(godwit_flags INTERFACE -fno-sanitize-recover=all)
  elseif(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    # gcc warns that it takes no note of fences; what meets at ours are atomics all the same.
    target_compile_options(godwit_flags INTERFACE -Wno-tsan)
  endif()
endif()
if(GODWIT_FUZZ)
  target_compile_options(godwit_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined
    -fno-sanitize-recover=all)
  target_link_options(godwit_flags INTERFACE -fsanitize=address,undefined)
endif()
if(GODWIT_MUTANT)
  target_compile_definitions(godwit_flags INTERFACE GODWIT_MUTANT_${GODWIT_MUTANT}=1)
endif()
