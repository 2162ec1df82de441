# SPDX-License-Identifier: Apache-2.0
# godwit_folder(NAME LINKS target...): the static library godwit_NAME of NAME/*.c.
function(godwit_folder name)
  cmake_parse_arguments(PARSE_ARGV 1 folder "" "" "LINKS")
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${name}/*.c)
  add_library(godwit_${name} STATIC ${sources})
  target_include_directories(godwit_${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(godwit_${name} PUBLIC ${folder_LINKS} PRIVATE godwit_flags)
endfunction()
